"""Figures of scores: by row, task and seed, and against what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distilbench.analysis.frame import OVERALL, StudyFrames, median_costs, row_names
from distilbench.reporting.figures.drawn import FigureData, panels_beside, reach, scored_methods
from distilbench.reporting.figures.labels import Named, ends_of, name_ends
from distilbench.reporting.figures.style import GREY, is_narrow, logarithmic, looks, new_figure, short
from distilbench.reporting.tables.scores import flop_unit

REFERENCES = {"ceiling": "--", "reference": "-.", "floor": ":"}
"""Roles of rows that are compared with, and the dashes of their lines."""
CROWDED = 20
"""Tasks from which on the heat map's numbers are small."""
WIDEST_SCALE = 200.0
"""Percent of the gap: beyond it colours say no more, as where a task's gap is next to nothing."""


def scores(given: FigureData) -> Figure | None:
    """One panel per task group: a dot per seed and the mean with its interval; teacher and floor through all rows."""
    study = given.study
    methods = scored_methods(study)
    if not methods:
        return None
    rows = {**_named(study, "ceiling"), **methods, **_named(study, "reference"), **_named(study, "floor")}
    columns = distinct_groups(study)
    figure, panels = panels_beside(len(columns), 0.7 + 0.24 * len(rows))
    for axes, group in zip(panels, columns, strict=True):
        _scores_panel(axes, study, rows, group)
        axes.set(title=short(group), ylim=(len(rows) - 0.5, -0.5))
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(rows)), [short(name) for name in rows.values()])
    figure.supxlabel("mean score x 100", fontsize=8)
    return figure


def score_vs_cost(given: FigureData) -> Figure | None:
    """Mean over tasks against training seconds and student FLOPs: interval upwards, range of the cost sideways."""
    study = given.study
    methods = scored_methods(study)
    if not methods or not {"seconds_train", "student_flops"} <= set(study.costs):
        return None
    unit, size = flop_unit(study.costs["student_flops"].max())
    costs = {"seconds_train": ("training time (s)", 1.0), "student_flops": (f"student compute ({unit})", size)}
    figure, panels = panels_beside(len(costs), 2.6 if is_narrow() else 3.2)
    for axes, (cost, (label, divisor)) in zip(panels, costs.items(), strict=True):
        _against(axes, study, methods, study.costs[cost] / divisor)
        spent = median_costs(study)[cost] / divisor
        front = [(spent[key], study.average.percent(key, OVERALL)[0]) for key in pareto_front(study, methods, spent)]
        if front:
            axes.step(*zip(*front, strict=True), where="post", color=GREY, linewidth=0.8, zorder=0)
        for role in REFERENCES:
            for key, name in _named(study, role).items():
                _reference(axes.axhline, axes.axhspan, study.average.percent(key, OVERALL), role, name)
        axes.set(xlabel=label)
    panels[0].set_ylabel(f"{OVERALL} x 100")
    means = {key: study.average.percent(key, OVERALL)[0] for key in methods}
    beside = [
        Named(name, study.average.percent(key, OVERALL)[0])
        for role in REFERENCES
        for key, name in _named(study, role).items()
    ]
    name_ends(figure, panels[-1], [*ends_of(methods, looks(study.runs), means), *beside])
    return figure


def tasks(given: FigureData) -> Figure | None:
    """Methods x tasks: share of the gap closed, in percent."""
    study = given.study
    methods = scored_methods(study)
    means = study.gap.mean.reindex(list(methods))
    shares = means[list(study.tasks.index)].to_numpy() * 100
    if len(study.tasks) < 2 or not np.isfinite(shares).any():
        return None
    figure = new_figure(1.8 + 0.28 * len(methods))
    axes = figure.subplots()
    # White is the student before training: blue is gained, red is lost.
    colours = colormaps["RdBu"].with_extremes(bad="#eeeeee")
    most = min(WIDEST_SCALE, max(100.0, float(np.nanmax(np.abs(shares)))))
    image = axes.imshow(np.ma.masked_invalid(shares), cmap=colours, vmin=-most, vmax=most, aspect="auto")
    size = 4.5 if len(study.tasks) > CROWDED else 6 if is_narrow() else 7
    for (y, x), share in np.ndenumerate(shares):
        text = "—" if np.isnan(share) else f"{share:.0f}".replace("-0", "0") if abs(share) < 0.5 else f"{share:.0f}"
        axes.text(x, y, text, ha="center", va="center", fontsize=size, color=_ink(share / most))
    names = [short(str(task)) for task in study.tasks.index]
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(methods)), [short(name) for name in methods.values()])
    for x in np.flatnonzero(study.tasks["type"].to_numpy()[1:] != study.tasks["type"].to_numpy()[:-1]):
        axes.axvline(x + 0.5, color=GREY, linewidth=1)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, label="gap closed (%)", pad=0.02)
    bar.ax.set_ylim(max(-most, min(0.0, float(np.nanmin(shares)))), most)
    return figure


def seed_spread(given: FigureData) -> Figure | None:
    """A line per method: how far each seed, by its number, ends from the method's mean over seeds."""
    study, methods = given.study, scored_methods(given.study)
    by_seed = seed_deviations(study)
    shown = {key: name for key, name in methods.items() if key in by_seed}
    if len(by_seed) < 2 or not shown:
        return None
    figure = new_figure(0.8 + 0.32 * len(shown))
    axes = figure.subplots()
    axes.axvline(0, color=GREY, linewidth=0.8)
    # A seed has the same height in all lines, so that numbers do not hide each other.
    heights, deviations = np.linspace(-0.36, 0.36, len(by_seed)), by_seed.to_dict()
    for y, key in enumerate(shown):
        colour, _ = looks(study.runs)[key]
        for seed, height in zip(by_seed.index, heights, strict=True):
            if np.isfinite(place := float(deviations[key][seed])):
                axes.plot(place, y + height, ".", color=colour, markersize=4)
                axes.annotate(
                    str(seed), (place, y + height), (3, 0), textcoords="offset points", va="center", fontsize=5.5
                )
    axes.set_yticks(range(len(shown)), [short(name) for name in shown.values()])
    axes.set(xlabel=f"{OVERALL} x 100, less the mean of the row", ylim=(len(shown) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    return figure


def seed_deviations(study: StudyFrames) -> pd.DataFrame:
    """Seeds x rows of methods: mean over tasks in points (x100) less the row's mean; of rows that have all tasks."""
    methods = scored_methods(study)
    runs = study.runs.loc[study.averages.index].assign(score=study.averages[OVERALL] * 100)
    by_seed = runs[runs["key"].isin(list(methods))].pivot_table(index="seed", columns="key", values="score")
    return by_seed - by_seed.mean()


def distinct_groups(study: StudyFrames) -> list[str]:
    """The averages of the study; of those that are equal to the last digit, as with one task, the first."""
    averages = study.averages
    return [str(group) for group in (averages.T.drop_duplicates().index if len(averages) else averages)]


def _ink(shade: float) -> str:
    return "white" if abs(shade) > 0.6 else "black"


def _named(study: StudyFrames, role: str) -> dict[str, str]:
    """The rows of a role that have scores."""
    scored = study.average.mean.notna().any(axis=1)
    return {key: name for key, name in row_names(study, role).items() if scored.loc[key]}


def _scores_panel(axes: Axes, study: StudyFrames, rows: dict[str, str], group: str) -> None:
    keys, drawn = study.runs["key"].reindex(study.averages.index), looks(study.runs)
    for y, key in enumerate(rows):
        colour, marker = drawn.get(key, (GREY, "|"))
        mean, half_width = study.average.percent(key, group)
        role = study.rows.at[key, "role"]
        if key in drawn:
            seeds = study.averages.loc[keys == key, group].to_numpy() * 100
            axes.plot(seeds, np.full(len(seeds), y + 0.27), ".", color=colour, alpha=0.6, markersize=4)
        elif np.isfinite(mean):
            _reference(axes.axvline, axes.axvspan, (mean, half_width), str(role), None)
        axes.errorbar(mean, y, xerr=half_width, fmt=marker, color=colour, markersize=5, capsize=2.5)


def _reference(
    line: Callable[..., object],
    band: Callable[..., object],
    place: tuple[float, float],
    role: str,
    name: str | None,
) -> None:
    """A line at the mean of a row that others are compared with, and the band of its interval."""
    mean, half_width = place
    if not np.isfinite(mean):
        return
    line(mean, linestyle=REFERENCES[role], color=GREY, linewidth=0.9, label=name and short(name), zorder=1)
    if np.isfinite(half_width):
        band(mean - half_width, mean + half_width, color=GREY, alpha=0.1, linewidth=0, zorder=0)


def _against(axes: Axes, study: StudyFrames, methods: dict[str, str], cost: pd.Series[float]) -> None:
    keys = study.runs["key"].reindex(cost.index)
    for key, name in methods.items():
        colour, marker = looks(study.runs)[key]
        spent = cost[keys == key].to_numpy()
        typical, (mean, width) = float(np.median(spent)), study.average.percent(key, OVERALL)
        sideways = reach(typical, spent.min(), spent.max())
        bars = axes.errorbar(typical, mean, width, sideways, marker, color=colour, capsize=2.5)
        bars.set_label(short(name))
    if (cost[keys.isin(list(methods))] > 0).all():
        logarithmic(axes)


def pareto_front(study: StudyFrames, methods: Iterable[str], cost: pd.Series[float]) -> list[str]:
    """Keys of the methods that no other beats at the same cost or less, by their means, the cheapest first."""
    means = {key: study.average.percent(key, OVERALL)[0] for key in methods}
    known = [key for key in means if np.isfinite((cost[key], means[key])).all()]
    front: list[str] = []
    for key in sorted(known, key=lambda key: (float(cost[key]), -means[key])):
        if not front or means[key] > means[front[-1]]:
            front.append(key)
    return front
