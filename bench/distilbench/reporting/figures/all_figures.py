"""The figures. Each takes what there is to draw from, and returns a figure, or None when it has nothing to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from distilbench.reporting import Layout
from distilbench.reporting.figures.design import ablation, best_of_k, interactions
from distilbench.reporting.figures.drawn import FigureData
from distilbench.reporting.figures.representation import information_plane, layers
from distilbench.reporting.figures.scores import score_vs_cost, scores, seed_spread, tasks
from distilbench.reporting.figures.style import COLOURS, TITLE_SIZE, save, show_names, styled
from distilbench.reporting.figures.titles import title
from distilbench.reporting.figures.training import learning_curves, response
from distilbench.reporting.figures.verdicts import differences, ranks
from distilbench.reporting.notes import caution


@dataclass(frozen=True)
class FigureKind:
    """One figure of the report."""

    draw: Callable[[FigureData], Figure | None]
    caption: str
    needs: str
    """What it cannot be drawn without."""


def draw_all(given: FigureData, folder: Path, layout: Layout = "one-column") -> dict[str, str]:
    """Write every figure that the study has data for into `folder`, sized for a page of `layout`.

    Returns name -> caption of those.
    """
    captions = {}
    for name, kind in FIGURES.items():
        with styled(name, layout):
            figure = draw(name, given)
            if figure is None:
                continue
            save(figure, folder, name)
        captions[name] = kind.caption
    return captions


def draw(name: str, given: FigureData) -> Figure | None:
    """One figure as the report has it; None when it has nothing to show."""
    figure = FIGURES[name].draw(given)
    if figure is None:
        return None
    # A figure of what is no result has that as its message.
    if mark := caution(given.study):
        figure.suptitle(mark, color=COLOURS[1], fontweight="bold", fontsize=TITLE_SIZE)
    elif message := title(name, given):
        figure.suptitle(message, fontweight="bold", fontsize=TITLE_SIZE, x=0.01, ha="left")
    show_names(figure)
    return figure


FIGURES = {
    "scores": FigureKind(
        scores,
        "Scores: small dots are seeds, large markers means with 95 % intervals (n ≥ 2). Lines and bands are the "
        "teacher, the reference and the student before training.",
        needs="a completed run of a method",
    ),
    "score_vs_cost": FigureKind(
        score_vs_cost,
        "Mean over tasks against cost, on logarithmic axes: 95 % interval upwards (n ≥ 2), median and range over seeds "
        "sideways; the line joins the methods that no other beats at the same cost or less.",
        needs="a completed run of a method",
    ),
    "differences": FigureKind(
        differences,
        "Differences to one method, paired over seeds and examples, with intervals that hold together at 95 %: filled "
        "where the verdict is better or worse, square where equivalent, hollow where undecided. The band is the "
        "margin.",
        needs="two methods with scored examples of the same tasks",
    ),
    "ranks": FigureKind(
        ranks,
        "Ranks by the mean over tasks, of the largest set of rows that are comparable with each other, with the places "
        "that the verdicts leave open; a bar joins methods of which none is shown to be better than another.",
        needs="three methods with scored examples, and two seeds or more of each",
    ),
    "ablation": FigureKind(
        ablation,
        "What each change of an ablation does to the mean over tasks, paired over seeds and examples, with intervals "
        "that hold together at 95 %: filled where the verdict is better or worse, square where equivalent, hollow "
        "where undecided.",
        needs="a study with `ablate`",
    ),
    "interactions": FigureKind(
        interactions,
        "Factorial ablations: means over seeds (and over the levels of other factors) with 95 % intervals; lines that "
        "are not parallel show an interaction.",
        needs="an ablation of design `factorial` with two factors or more",
    ),
    "best_of_k": FigureKind(
        best_of_k,
        "Expected best dev score of k trials drawn from those of each method, with the standard deviation over draws.",
        needs="a study with `tune`",
    ),
    "response": FigureKind(
        response,
        "How the dev score answers to the budget: means over seeds, the range over seeds as a band.",
        needs="a study with `dev`, which scores students while they train",
    ),
    "information_plane": FigureKind(
        information_plane,
        "The information plane over the budget, on held-out sentences, means over seeds; the large marker is the end. "
        "Input is the teacher's embedding block, pooled. The InfoNCE bound is left out where all students are within "
        "0.1 nats of the most that it can reach with this many sentences (the dotted line), and it tells none apart.",
        needs="a study with `dev`, which looks at students while they train",
    ),
    "layers": FigureKind(
        layers,
        "Similarity (linear CKA, means over seeds) of each layer of the student to each of the teacher, mean-pooled, "
        "after training.",
        needs="students that were looked at layer by layer",
    ),
    "tasks": FigureKind(
        tasks,
        "Share of the gap between floor (0) and ceiling (100) that each method closed on each task; red is below the "
        "floor.",
        needs="two tasks or more, and a teacher and a student before training to measure the gap by",
    ),
    "seed_spread": FigureKind(
        seed_spread,
        "Each seed, by its number, beside the method's mean over seeds. Methods of one seed began with the same "
        "weights and saw the same batches: a seed on the same side in all lines is what pairing over seeds takes out.",
        needs="two seeds or more",
    ),
    "learning_curves": FigureKind(
        learning_curves,
        "Training loss as a running mean over a twentieth of the run; methods' losses have different scales.",
        needs="the curves beside the records (curve.parquet)",
    ),
}
