"""How figures look: colours that belong to names, names beside what they name, messages, and the size of the page."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.optimize import LinearConstraint, minimize

import distilbench as db
from distilbench.analysis.frame import StudyFrames, make_study
from distilbench.analysis.inference import Inference
from distilbench.records.design import Design
from distilbench.records.record import Record
from distilbench.reporting import Layout
from distilbench.reporting.figures.all_figures import FIGURES, draw
from distilbench.reporting.figures.drawn import FigureData
from distilbench.reporting.figures.labels import Named, name_ends, spread
from distilbench.reporting.figures.scores import pareto_front
from distilbench.reporting.figures.style import MARKERS, PLACES, WIDTHS, looks, new_figure, styled
from distilbench.reporting.figures.titles import MESSAGES, title
from distilbench.study.method_catalogue import describe_methods
from tests.reporting.planted import factorial, simulate

Make = Callable[..., Record]
Write = Callable[..., Path]


def study_of(make: Make, *labels: str) -> StudyFrames:
    return make_study("demo", [make(label, 1, (0.5, 0.6, 0.4)) for label in labels])


def look_of(make: Make, *labels: str) -> dict[str, tuple[str, str]]:
    study = study_of(make, *labels)
    return {str(study.rows.at[key, "label"]): look for key, look in looks(study.runs).items()}


def data(study: StudyFrames) -> FigureData:
    return FigureData(study, pd.DataFrame(), Inference(study, study.scores[[]], {}), Design())


def test_a_method_looks_the_same_in_every_study(make: Make) -> None:
    alone = {name: look_of(make, name)[name] for name in PLACES}
    assert look_of(make, *PLACES) == alone
    assert len(set(alone.values())) == len(PLACES)
    own = look_of(make, "my-own-loss")["my-own-loss"]
    others = [name for name, look in alone.items() if look[0] != own[0]]
    assert look_of(make, "my-own-loss", *others[:5])["my-own-loss"] == own


def test_every_method_that_ships_has_a_place() -> None:
    assert {method.name for method in describe_methods()} <= set(PLACES)


def test_the_five_of_the_question_and_their_neighbours_differ_in_colour(make: Make) -> None:
    five = ("mse", "ibkd", "codir", "internal-kd", "simcse")
    assert len({colour for colour, _ in look_of(make, *five, "ckd", "rkd", "leaf").values()}) == 8


def test_a_tuned_row_has_the_colour_of_its_method_and_another_marker(make: Make) -> None:
    found = look_of(make, "mse", "mse-tuned", "ckd", "ckd-tuned")
    assert found["mse-tuned"][0] == found["mse"][0] and found["ckd-tuned"][0] == found["ckd"][0]
    assert len(set(found.values())) == 4


def test_unknown_names_take_colours_that_are_free(make: Make) -> None:
    found = look_of(make, *(f"loss-{index}" for index in range(8)))
    assert len({colour for colour, _ in found.values()}) == 8
    many = look_of(make, *(f"loss-{index}" for index in range(70)))
    assert len(set(many.values())) == 70
    assert len(look_of(make, *(f"loss-{index}" for index in range(90)))) == 90
    assert {marker for _, marker in many.values()} <= set(MARKERS)


@pytest.mark.parametrize("heights", [[], [3.0], [0.0, 1.0, 30.0, 31.0, 32.0], [5.0] * 6, [0.0, 20.0, 40.0]])
def test_names_are_moved_as_little_as_may_be(heights: list[float]) -> None:
    """Against a general optimiser with the same constraints."""
    found = spread(heights, 10.0)
    assert (np.diff(found) >= 10.0 - 1e-9).all()
    if len(heights) > 1:
        apart = LinearConstraint(np.diff(np.eye(len(heights)), axis=0), lb=10.0)
        start = np.arange(len(heights)) * 10.0

        def moved(places: npt.NDArray[np.float64]) -> float:
            return float(((places - heights) ** 2).sum())

        free = minimize(moved, start, constraints=apart, tol=1e-10)
        assert found == pytest.approx(free.x, abs=1e-3)


@pytest.mark.figures
@pytest.mark.parametrize("count", [4, 60])
def test_names_stand_at_the_right_where_they_fit_and_in_a_legend_where_not(count: int) -> None:
    with styled("test"):
        figure = new_figure(3.0)
        axes = figure.subplots()
        for index in range(count):
            axes.plot([0, 1], [0, index % 5], label=f"line {index}")
        name_ends(figure, axes, [Named(f"line {index}", index % 5, "black", "o") for index in range(count)])
        figure.draw_without_rendering()
    assert len(figure.legends) == (count > 4)
    beside = [text for text in axes.texts if text.get_text().startswith("line")]
    assert len(beside) == (count if count == 4 else 0)
    boxes = sorted((text.get_window_extent() for text in beside), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    assert all(box.x1 <= figure.bbox.x1 + 1 for box in boxes)


@pytest.mark.figures
def test_costs_are_logarithmic_and_seeds_are_not_joined(plain: list[Record]) -> None:
    study = make_study("demo", plain)
    for name, scale in (("score_vs_cost", "log"), ("seed_spread", "linear")):
        figure = draw(name, data(study))
        assert figure is not None
        assert {axes.get_xscale() for axes in figure.axes} == {scale}
        for axes in figure.axes:
            marked = [line for line in axes.get_lines() if line.get_marker() in (*MARKERS, ".")]
            assert {line.get_linestyle() for line in marked} == {"None"}


def test_the_front_leaves_out_what_is_not_known(make: Make) -> None:
    scores = {"a": 0.5, "b": 0.6, "c": 0.7, "d": 0.4}
    study = make_study("demo", [make(name, 1, (score,)) for name, score in scores.items()])
    keys = [str(key) for key in study.rows.index[study.rows["role"] == "method"]]
    costs = {"a": 1.0, "b": float("nan"), "c": 3.0, "d": 2.0}
    cost = pd.Series({key: costs[str(study.rows.at[key, "label"])] for key in keys})
    assert [study.rows.at[key, "label"] for key in pareto_front(study, keys, cost)] == ["a", "c"]


@pytest.mark.figures
def test_a_share_below_the_floor_is_seen(plain: list[Record], make: Make) -> None:
    study = make_study("demo", [*plain, make("lost", 1, (0.1, 0.1, 0.02))])
    figure = draw("tasks", data(study))
    assert figure is not None
    [image] = [image for axes in figure.axes for image in axes.get_images()]
    low, high = image.get_clim()
    shown = image.get_array()
    assert shown is not None
    assert low == -high and low <= float(shown.min()) < 0


@pytest.mark.figures
def test_one_task_is_drawn_once(make: Make) -> None:
    study = make_study("demo", [make("mse", seed, (0.6,)) for seed in (1, 2)])
    figure = draw("scores", data(study))
    assert figure is not None and len(figure.axes) == 1


def planted() -> FigureData:
    """A study of two rows that differ by twenty points, and one that is a twin of the first."""
    rows = factorial(level=["low", "high", "twin"])
    simulated = simulate(rows, lambda levels: 0.5 + 0.2 * (levels["level"] == "high"), 4, np.random.default_rng(1))
    inference = simulated.inference(200, np.random.default_rng(0))
    return FigureData(inference.study, pd.DataFrame(), inference, Design())


@pytest.mark.parametrize("name", ["scores", "differences", "ranks"])
def test_messages_follow_from_the_verdicts(name: str) -> None:
    found = title(name, planted())
    assert (
        found
        == {
            "scores": "high is shown to be best on Mean (Task)",
            "differences": "On Mean (Task), against high: 2 worse",
            "ranks": "high has the first place",
        }[name]
    )


def test_every_figure_but_that_of_interactions_has_a_message() -> None:
    assert set(FIGURES) - set(MESSAGES) == {"interactions"}


@pytest.mark.figures
def test_the_message_stands_above_the_figure(plain: list[Record]) -> None:
    figure = draw("tasks", data(make_study("demo", plain)))
    assert isinstance(figure, Figure)
    # (0.65 - 0.25) / (0.8 - 0.25) on STS-A, (0.45 - 0.05) / (0.7 - 0.05) on Search.
    assert figure.get_suptitle() == "mse closed 73 % of the gap on STS-A, and 62 % on Search"


@pytest.mark.figures
def test_figures_are_as_wide_as_a_column_of_the_page(write: Write, plain: list[Record], tmp_path: Path) -> None:
    folder = write(plain)
    results = db.read_results(folder)
    layouts: tuple[Layout, ...] = ("one-column", "two-column")
    assert {layout: results.plot("scores", layout=layout).get_figwidth() for layout in layouts} == WIDTHS
    [page] = db.report(folder, out=tmp_path / "out", layout="two-column")
    text = (page.parent / "figures" / "scores.svg").read_text(encoding="utf-8")
    assert f'width="{72 * 3.4:g}pt"' in text
