"""What figures are drawn from, and what they share."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distilbench.analysis.frame import StudyFrames
from distilbench.analysis.verdicts import Inference
from distilbench.records.design import Design

LEGEND_CHARACTERS, MARKER_CHARACTERS = 110, 7
"""Of a legend across a whole figure; and what its marker and the space around it take."""


@dataclass(frozen=True)
class FigureData:
    """All that a figure may show."""

    study: StudyFrames
    curves: pd.DataFrame
    """The logged steps of all runs; see `read_curves`."""
    inference: Inference
    design: Design
    reference: str | None = None
    """Label of the row that others are drawn against; unset, the first of the tables."""


def scored_methods(study: StudyFrames) -> dict[str, str]:
    """The rows of trained students with a completed run and at least one average."""
    scored = study.average.mean.notna().any(axis=1)
    return {key: name for key, name in study.names("method").items() if scored.loc[key]}


def legend(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, below them."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        longest = max(map(len, labels)) + MARKER_CHARACTERS
        columns = max(1, min(len(labels), 4, LEGEND_CHARACTERS // longest))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def reach(middle: float, low: float, high: float) -> list[list[float]]:
    """Lengths of an error bar from `low` to `high`, as `errorbar` takes them; rounding never makes one negative."""
    return [[max(0.0, middle - low)], [max(0.0, high - middle)]]
