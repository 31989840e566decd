"""Cells as tables show them, and tables that are made of lines of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from distilbench.analysis.frame import StudyFrames
from distilbench.analysis.stats import Estimate
from distilbench.reporting.formats.render import Table
from distilbench.reporting.notes import caution

DASH = "—"

Cell = str | int | tuple[str, float]
"""What is shown; and what it is sorted by, where that is something else."""


def study_table(
    study: StudyFrames, name: str, caption: str, lines: Sequence[Mapping[str, Cell]], notes: list[str]
) -> Table:
    """A table on a study, of lines that all have the same columns."""
    text = [{heading: cell[0] if isinstance(cell, tuple) else cell for heading, cell in line.items()} for line in lines]
    order = [
        {heading: cell[1] if isinstance(cell, tuple) else cell for heading, cell in line.items()} for line in lines
    ]
    return Table(name, f"{study.name}: {caption}", pd.DataFrame(text), pd.DataFrame(order), notes, caution(study))


def number(value: float) -> str:
    """A count or a measure: at least three significant digits, thousands apart, a dash when unknown."""
    if math.isnan(value):
        return DASH
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def decimals(value: float, digits: int = 2, *, signed: bool = False) -> str:
    """A number with so many decimals; a dash for what is none."""
    return f"{value:{'+' if signed else ''}.{digits}f}" if math.isfinite(value) else DASH


def plus_minus(value: float, half_width: float, digits: int = 2, *, signed: bool = False) -> str:
    """A number with its error: a dash without the one, no ± without the other."""
    shown = decimals(value, digits, signed=signed)
    return shown if math.isnan(half_width) or shown == DASH else f"{shown} ± {half_width:.{digits}f}"


def p_value(value: float) -> str:
    """A p-value to three decimals."""
    return "< 0.001" if value < 0.001 else decimals(value, 3)


def decimal_cell(value: float, digits: int = 2) -> Cell:
    """A number in a table, sorted by all of its digits."""
    return decimals(value, digits), value


def count_cell(count: int) -> Cell:
    """A count in a table."""
    return str(count), count


def difference_cell(estimate: Estimate | None, alpha: float) -> Cell:
    """A difference in points (x100) with its interval of level 1 - alpha; a dash where it is unknown."""
    if estimate is None:
        return DASH, math.nan
    points = estimate.mean * 100
    return plus_minus(points, estimate.half_width(1 - alpha) * 100, signed=True), points
