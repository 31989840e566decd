"""Figures of a study's design: what components do, alone and together, and what tuning brings."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from matplotlib.figure import Figure

from distilbench.analysis.designs.best_of_k import curve
from distilbench.analysis.designs.effects import Effect, changed_settings, effects, keys_of, with_levels
from distilbench.analysis.frame import OVERALL
from distilbench.analysis.stats import Estimate
from distilbench.records.design import Ablation
from distilbench.reporting.figures.drawn import (
    FigureData,
    equivalence_band,
    grid_of_panels,
    judged_difference,
)
from distilbench.reporting.figures.labels import Named, name_ends
from distilbench.reporting.figures.style import COLOURS, MARKERS, new_figure, short


def ablation(given: FigureData) -> Figure | None:
    """One panel per ablation: each effect on the mean over tasks with its interval, against the margin."""
    estimated = [item for item in effects(given.inference, given.design.ablations) if item.estimates]
    names = list(dict.fromkeys(item.ablation for item in estimated))
    if not names:
        return None
    parts = [[item for item in estimated if item.ablation == name] for name in names]
    figure = new_figure(0.6 + 0.45 * len(parts) + 0.22 * len(estimated))
    panels = figure.subplots(
        len(parts), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [len(part) + 0.6 for part in parts]}
    )[:, 0]
    for axes, name, part in zip(panels, names, parts, strict=True):
        equivalence_band(axes, given.study.margin)
        for y, item in enumerate(part):
            colour = COLOURS[3] if item.interaction else COLOURS[0]
            if item.judgement is not None:
                judged_difference(axes, y, item.estimates[OVERALL], item.judgement, colour, markersize=4, capsize=2)
        axes.set_yticks(range(len(part)), [_line_name(item) for item in part])
        axes.set(title=short(name), ylim=(len(part) - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
    panels[-1].set_xlabel("difference of the mean over tasks (points)")
    return figure


def _line_name(item: Effect) -> str:
    return f"{item.factor}: {item.change}" if len(item.factor + item.change) < 60 else f"{item.factor[:58]}…"


def interactions(given: FigureData) -> Figure | None:
    """One panel per pair of factors of a factorial design: score at the levels of one, a line for each of the other."""
    pairs = [
        (item, one, other)
        for item in given.design.ablations
        if item.design == "factorial" and OVERALL in given.inference.columns
        for one, other in combinations(item.factors, 2)
    ]
    drawn = [(pair, lines) for pair in pairs if (lines := _lines(given, *pair))]
    if not drawn:
        return None
    figure, panels = grid_of_panels(len(drawn), height=2.3, margin=0.4)
    for axes, ((item, one, other), lines) in zip(panels, drawn, strict=True):
        for place, (level, points) in enumerate(lines.items()):
            means = [point.mean * 100 for point in points]
            widths = np.nan_to_num([point.half_width() * 100 for point in points])
            x = np.arange(len(points)) + 0.04 * (place - (len(lines) - 1) / 2)
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            axes.errorbar(
                x, means, yerr=widths, color=colour, marker=marker, capsize=2, markersize=4, label=short(level)
            )
        axes.set_xticks(range(len(item.factors[one])), [short(level) for level in item.factors[one]])
        axes.set(xlabel=short(one), ylabel="mean over tasks x 100", title=short(item.name))
        axes.legend(title=short(other), fontsize=6, title_fontsize=6)
    return figure


def _lines(given: FigureData, ablation: Ablation, one: str, other: str) -> dict[str, list[Estimate]]:
    """Level of the other factor -> score at each level of the one; empty where a cell is missing."""
    estimates: dict[str, list[Estimate]] = {}
    for other_level in ablation.factors[other]:
        for level in ablation.factors[one]:
            labels = [cell.label for cell in with_levels(ablation, {one: level, other: other_level})]
            keys = keys_of(given.study, labels, changed_settings(ablation))
            weights = {key: labels.count(label) / len(labels) for label, key in (keys or {}).items()}
            estimate = given.inference.contrast(weights, OVERALL) if weights else None
            if estimate is None:
                return {}
            estimates.setdefault(other_level, []).append(estimate)
    return estimates


def best_of_k(given: FigureData) -> Figure | None:
    """Expected best dev score against the number of trials, a line per method."""
    curves = {item.label: curve(item) for item in (given.design.tuning.methods if given.design.tuning else [])}
    if not any(len(means) for means, _ in curves.values()):
        return None
    figure = new_figure(3.3)
    axes = figure.subplots()
    for place, (label, (means, spreads)) in enumerate(curves.items()):
        colour = COLOURS[place % len(COLOURS)]
        trials = np.arange(1, len(means) + 1)
        marker = MARKERS[place % len(MARKERS)]
        axes.plot(trials, means * 100, marker=marker, markersize=3, label=short(label), color=colour)
        axes.fill_between(
            trials, (means - spreads) * 100, (means + spreads) * 100, alpha=0.1, linewidth=0, color=colour
        )
    axes.set(xlabel="trials", ylabel="expected best dev score x 100")
    ends = [
        Named(label, float(means[-1]) * 100, COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)])
        for place, (label, (means, _)) in enumerate(curves.items())
        if len(means)
    ]
    name_ends(figure, axes, ends)
    return figure
