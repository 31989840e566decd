"""Figures of what is told apart: differences, ranks, and how scores answer to the budget."""

from __future__ import annotations

from matplotlib.figure import Figure

from distilbench.analysis.frame import OVERALL, row_names
from distilbench.analysis.inference import Inference
from distilbench.analysis.rankings import ranks as rank_intervals
from distilbench.core.errors import UserError, one_of
from distilbench.reporting.figures.drawn import (
    FigureData,
    equivalence_band,
    judged_difference,
    panels_beside,
    reach,
    scored_methods,
)
from distilbench.reporting.figures.style import looks, new_figure, short


def differences(given: FigureData) -> Figure | None:
    """One panel per average: each method's paired difference to the reference, with its interval."""
    inference, methods = given.inference, scored_methods(given.study)
    reference = reference_of(given, methods)
    columns = [str(group) for group in given.study.averages if inference.comparisons(str(group))]
    others = {key: name for key, name in methods.items() if key != reference}
    if reference is None or not columns or not others:
        return None
    figure, panels = panels_beside(len(columns), 0.8 + 0.24 * len(others))
    for axes, column in zip(panels, columns, strict=True):
        equivalence_band(axes, given.study.margin)
        for y, key in enumerate(others):
            if item := given.inference.comparison(key, reference, column):
                colour, _ = looks(given.study.runs)[key]
                judged_difference(axes, y, item.difference, item, colour, capsize=2.5)
        axes.set(title=short(column), ylim=(len(others) - 0.5, -0.5))
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(others)), [short(name) for name in others.values()])
    figure.supxlabel(f"difference to {short(methods[reference])} (points)", fontsize=8)
    return figure


def reference_of(given: FigureData, methods: dict[str, str]) -> str | None:
    """Key of the row that others are drawn against. Raises `UserError` for a label that the study does not have."""
    if given.reference is None:
        return next(iter(methods), None)
    labels = {str(given.study.rows.at[key, "label"]): key for key in methods}
    if given.reference not in labels:
        raise UserError(f"--reference: {one_of('method', given.reference, list(labels))}")
    return labels[given.reference]


def ranks(given: FigureData) -> Figure | None:
    """Ranks with the places that the verdicts leave open, and bars over what is not told apart."""
    intervals = rank_intervals(given.inference, OVERALL).sort_values("rank")
    count = len(intervals)
    if count < 3:
        return None
    names = row_names(given.study, "method")
    groups = _not_told_apart(given.inference, list(map(str, intervals.index)))
    figure = new_figure(1.0 + 0.26 * (count + len(groups)))
    axes = figure.subplots()
    for y, (key, row) in enumerate(intervals.iterrows()):
        colour, marker = looks(given.study.runs)[str(key)]
        error = reach(row["rank"], row["low"], row["high"])
        axes.errorbar(row["rank"], y, xerr=error, fmt=marker, color=colour, capsize=2.5)
    for line, (first, last) in enumerate(groups):
        ends = intervals["rank"].iloc[[first, last]]
        axes.plot(ends, [count + line] * 2, color="black", linewidth=2.5, solid_capstyle="butt")
    axes.set_yticks(range(count), [short(names[str(key)]) for key in intervals.index])
    axes.set(xlabel=f"rank by {OVERALL} (1 is best)", ylim=(count + len(groups) - 0.5, -0.5), xlim=(0.7, count + 0.3))
    return figure


def _not_told_apart(inference: Inference, ordered: list[str]) -> list[tuple[int, int]]:
    """First and last place of each longest stretch of two or more rows without a better or worse between them."""
    stretches: list[tuple[int, int]] = []
    for first in range(len(ordered)):
        last = first
        while last + 1 < len(ordered) and all(
            inference.verdict(ordered[last + 1], one) in ("equivalent", "undecided")
            for one in ordered[first : last + 1]
        ):
            last += 1
        if last > first and (not stretches or last > stretches[-1][1]):
            stretches.append((first, last))
    return stretches
