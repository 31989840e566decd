"""Figures of the training: the loss, and how the dev score answers to the budget."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distilbench.analysis.designs.dev_curves import dev_scores
from distilbench.analysis.frame import row_names
from distilbench.reporting.figures.drawn import FigureData, grid_of_panels
from distilbench.reporting.figures.labels import ends_of, name_ends
from distilbench.reporting.figures.style import COLOURS, is_narrow, logarithmic, looks, new_figure, short

CURVE_POINTS = 200
MANY_TIMES = 20
"""The largest loss over the smallest, from which on an axis is logarithmic."""


def learning_curves(given: FigureData) -> Figure | None:
    """One panel per method: smoothed loss against sentences, a line per seed; several terms in colours."""
    curves = given.curves.assign(key=given.curves["run_id"].map(given.study.runs["key"]))
    methods = {key: name for key, name in row_names(given.study, "method").items() if key in set(curves["key"])}
    if not methods or not {"sentences", "loss"} <= set(curves):
        return None
    figure, panels = grid_of_panels(len(methods), height=1.75, margin=0.5)
    for axes, (key, name) in zip(panels, methods.items(), strict=True):
        _curves_panel(axes, curves[curves["key"] == key].dropna(axis="columns", how="all"))
        axes.set_title(short(name))
    figure.supxlabel("sentences", fontsize=8)
    figure.supylabel("loss (running mean)", fontsize=8)
    return figure


def _curves_panel(axes: Axes, curves: pd.DataFrame) -> None:
    terms = [str(name) for name in curves if str(name).startswith("term_")]
    drawn = {"loss": ("total", "black")}
    if len(terms) > 1:
        drawn |= {name: (name.removeprefix("term_"), COLOURS[i % 6]) for i, name in enumerate(terms)}
    for index, (_, run) in enumerate(curves.sort_values("sentences").groupby("run_id")):
        points = np.unique(np.linspace(0, len(run) - 1, CURVE_POINTS).astype(int))
        sentences = run["sentences"].to_numpy()[points]
        for name, (label, colour) in drawn.items():
            smooth = run[name].rolling(max(1, len(run) // 20), min_periods=1).mean().to_numpy()[points]
            axes.plot(sentences, smooth, color=colour, linewidth=0.8, label=None if index else label)
    shown = curves[list(drawn)].to_numpy()
    if np.nanmin(shown) > 0 and np.nanmax(shown) > MANY_TIMES * np.nanmin(shown):
        logarithmic(axes, "y")
    if len(drawn) > 1:
        axes.legend(fontsize=6, handlelength=1, labelspacing=0.2)


def response(given: FigureData) -> Figure | None:
    """Dev score against what was spent of the binding currency, on a logarithmic axis."""
    study = given.study
    frame = dev_scores(study)
    methods = {key: name for key, name in row_names(study, "method").items() if key in set(frame["key"])}
    if not methods:
        return None
    figure = new_figure(2.6 if is_narrow() else 3.2)
    axes = figure.subplots()
    ends = dict[str, float]()
    for key, name in methods.items():
        colour, marker = looks(study.runs)[key]
        points = frame[frame["key"] == key].groupby("spent")["score"].agg(["mean", "min", "max"]) * 100
        axes.plot(points.index, points["mean"], marker=marker, color=colour, markersize=4, label=short(name))
        axes.fill_between(points.index, points["min"], points["max"], color=colour, alpha=0.12, linewidth=0)
        ends[key] = float(points["mean"].iloc[-1])
    currency = next(str(record.budget["currency"]) for record in study.records.values() if record.role == "method")
    logarithmic(axes)
    axes.set(xlabel=currency, ylabel="dev score x 100")
    name_ends(figure, axes, ends_of(methods, looks(study.runs), ends))
    return figure
