"""What figures are drawn from, and what they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distilbench.analysis.frame import StudyFrames, row_names
from distilbench.analysis.inference import Inference
from distilbench.analysis.stats import Estimate
from distilbench.analysis.verdicts import Comparison, Judgement
from distilbench.records.design import Design
from distilbench.reporting.figures.style import GREY, is_narrow, new_figure

PANELS_IN_A_ROW = 3


@dataclass(frozen=True)
class FigureData:
    """All that a figure may show."""

    study: StudyFrames
    curves: pd.DataFrame
    """The logged steps of all runs; see `distilbench.records.frames.read_curves`."""
    inference: Inference
    design: Design
    reference: str | None = None
    """Label of the row that others are drawn against; unset, the first of the tables."""


def scored_methods(study: StudyFrames) -> dict[str, str]:
    """The rows of trained students with a completed run and at least one average."""
    scored = study.average.mean.notna().any(axis=1)
    return {key: name for key, name in row_names(study, "method").items() if scored.loc[key]}


def grid_of_panels(count: int, height: float, margin: float, *, shared: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, three in a row of a page or two of a column.

    `height` of a row and `margin` beside all of them in inches. `shared`: the panels have the same axes.
    """
    columns = min(PANELS_IN_A_ROW - is_narrow(), count)
    rows = -(-count // columns)
    figure = new_figure(margin + height * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).ravel())
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def panels_beside(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels of `height` inches with one vertical axis: in one row, or in a column two by two."""
    columns = min(2, count) if is_narrow() else count
    rows = -(-count // columns)
    figure = new_figure(height * rows)
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).ravel())
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def equivalence_band(axes: Axes, margin: float) -> None:
    """What differs by less than `margin`, a fraction, on an axis of differences in points."""
    axes.axvspan(-margin * 100, margin * 100, color=GREY, alpha=0.15, linewidth=0)
    axes.axvline(0, color=GREY, linewidth=0.8)


def judged_difference(
    axes: Axes, y: int, estimate: Estimate, judged: Comparison | Judgement, colour: str, **look: Any
) -> None:
    """A difference in points with its simultaneous interval: square where equivalent, hollow where undecided."""
    width, verdict = estimate.half_width(1 - judged.alpha) * 100, judged.verdict
    axes.errorbar(
        estimate.mean * 100,
        y,
        xerr=None if np.isnan(width) else width,
        fmt="s" if verdict == "equivalent" else "o",
        color=colour,
        markerfacecolor="white" if verdict == "undecided" else colour,
        **look,
    )


def reach(middle: float, low: float, high: float) -> list[list[float]]:
    """Lengths of an error bar from `low` to `high`, as `errorbar` takes them; rounding never makes one negative."""
    return [[max(0.0, middle - low)], [max(0.0, high - middle)]]
