"""Figures of scores: by row, task and seed, and against what they cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distilbench.analysis.frame import OVERALL, StudyFrames, median_costs, row_names
from distilbench.reporting.figures.drawn import FigureData, legend, reach, scored_methods
from distilbench.reporting.figures.style import GREY, logarithmic, looks, new_figure, short
from distilbench.reporting.tables.scores import flop_unit

REFERENCE_LINES = {"floor": ":", "ceiling": "--"}
CROWDED = 20
"""Tasks from which on the heat map's numbers are small."""


def scores(given: FigureData) -> Figure | None:
    """One panel per task group: a dot per seed, the mean with its interval per method, floor and ceiling as lines."""
    study = given.study
    methods = scored_methods(study)
    if not methods:
        return None
    figure = new_figure(1.2 + 0.3 * len(methods))
    panels = figure.subplots(1, len(study.averages.columns), sharey=True, squeeze=False)[0]
    for axes, group in zip(panels, study.averages, strict=True):
        _scores_panel(axes, study, methods, str(group))
        axes.set(title=short(str(group)), xlabel="mean score x 100", ylim=(len(methods) - 0.5, -0.5))
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(methods)), [short(name) for name in methods.values()])
    legend(figure, panels[0])
    return figure


def score_vs_cost(given: FigureData) -> Figure | None:
    """Mean over tasks against training seconds and student FLOPs: interval upwards, range of the cost sideways."""
    study = given.study
    methods = scored_methods(study)
    if not methods or not {"seconds_train", "student_flops"} <= set(study.costs):
        return None
    unit, size = flop_unit(study.costs["student_flops"].max())
    figure = new_figure(3.3)
    panels = figure.subplots(1, 2, sharey=True)
    costs = {"seconds_train": ("training time (s)", 1.0), "student_flops": (f"student compute ({unit})", size)}
    for axes, (cost, (label, divisor)) in zip(panels, costs.items(), strict=True):
        _against(axes, study, methods, study.costs[cost] / divisor)
        _pareto_front(axes, study, methods, median_costs(study)[cost] / divisor)
        _reference_lines(axes.axhline, study, OVERALL)
        axes.set(xlabel=label)
    panels[0].set_ylabel("mean over tasks x 100")
    legend(figure, panels[0])
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
    colours = colormaps["YlGnBu"].with_extremes(bad="#eeeeee")
    image = axes.imshow(np.ma.masked_invalid(shares), cmap=colours, vmin=0, vmax=100, aspect="auto")
    for (y, x), share in np.ndenumerate(shares):
        size = 7 if len(study.tasks) <= CROWDED else 4.5
        text = "—" if np.isnan(share) else f"{share:.0f}"
        axes.text(x, y, text, ha="center", va="center", fontsize=size, color="white" if share > 60 else "black")
    names = [short(str(task)) for task in study.tasks.index]
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(methods)), [short(name) for name in methods.values()])
    for x in np.flatnonzero(study.tasks["type"].to_numpy()[1:] != study.tasks["type"].to_numpy()[:-1]):
        axes.axvline(x + 0.5, color="white", linewidth=3)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="gap closed (%)", extend="both", pad=0.02)
    return figure


def seed_spread(given: FigureData) -> Figure | None:
    """Mean over tasks by seed, a line per method: lines that run side by side show what pairing over seeds removes."""
    study, methods = given.study, scored_methods(given.study)
    runs = study.runs.loc[study.averages.index].assign(score=study.averages[OVERALL] * 100)
    by_seed = runs[runs["key"].isin(list(methods))].pivot_table(index="seed", columns="key", values="score")
    if len(by_seed) < 2:
        return None
    figure = new_figure(3.0)
    axes = figure.subplots()
    # A row that lacks a task has no mean over tasks, and no column.
    for key, name in ((key, name) for key, name in methods.items() if key in by_seed):
        colour, marker = looks(study.runs)[key]
        axes.plot(by_seed.index.astype(str), by_seed[key], marker=marker, color=colour, markersize=4, label=short(name))
    axes.set(xlabel="seed", ylabel="mean over tasks x 100")
    legend(figure, axes)
    return figure


def _scores_panel(axes: Axes, study: StudyFrames, methods: dict[str, str], group: str) -> None:
    keys = study.runs["key"].reindex(study.averages.index)
    for y, key in enumerate(methods):
        colour, marker = looks(study.runs)[key]
        seeds = study.averages.loc[keys == key, group].to_numpy() * 100
        axes.plot(seeds, np.full(len(seeds), y + 0.22), ".", color=colour, alpha=0.6, markersize=5)
        mean, width = study.average.percent(key, group)
        axes.errorbar(mean, y, xerr=width, fmt=marker, color=colour, markersize=5, capsize=2.5)
    _reference_lines(axes.axvline, study, group)


def _reference_lines(line: Callable[..., object], study: StudyFrames, group: str) -> None:
    for role, dashes in REFERENCE_LINES.items():
        for key, name in row_names(study, role).items():
            mean, _ = study.average.percent(key, group)
            if not np.isnan(mean):
                line(mean, linestyle=dashes, color=GREY, linewidth=1, label=short(name), zorder=1)


def _against(axes: Axes, study: StudyFrames, methods: dict[str, str], cost: pd.Series[float]) -> None:
    keys = study.runs["key"].reindex(cost.index)
    for key, name in methods.items():
        colour, marker = looks(study.runs)[key]
        spent = cost[keys == key].to_numpy()
        typical, (mean, width) = float(np.median(spent)), study.average.percent(key, OVERALL)
        sideways = reach(typical, spent.min(), spent.max())
        bars = axes.errorbar(typical, mean, width, sideways, marker, color=colour, capsize=2.5)
        bars.set_label(short(name))
    trained = cost[keys.isin(list(methods))]
    if trained.max() > 20 * trained.min() > 0:
        logarithmic(axes)


def _pareto_front(axes: Axes, study: StudyFrames, methods: dict[str, str], cost: pd.Series[float]) -> None:
    """A line through the methods that no other beats at the same cost or less."""
    points = sorted((float(cost[key]), study.average.percent(key, OVERALL)[0]) for key in methods)
    front: list[tuple[float, float]] = []
    for point in points:
        if np.isfinite(point).all() and (not front or point[1] > front[-1][1]):
            front.append(point)
    if front:
        axes.step(*zip(*front, strict=True), where="post", color=GREY, linewidth=0.8, zorder=0)
