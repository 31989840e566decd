"""Names beside what they name, in the place of a legend where they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy
from scipy.optimize import isotonic_regression

from distilbench.reporting.figures.style import GREY, TITLE_SIZE, is_narrow, short, width

LEGEND_CHARACTERS, MARKER_CHARACTERS = 110, 7
"""Of a legend across a page-wide figure; and what its marker and the space around it take."""
LEGEND_LINE_INCHES = 0.17
LINE_POINTS, CHARACTER_POINTS, MARKER_POINTS = 9.5, 4.6, 18.0
MOST_OF_THE_WIDTH = 0.3
"""That names at the right may take."""


class Named(NamedTuple):
    """Something at the right end of a panel."""

    name: str
    y: float
    """Where it ends, in data."""
    colour: str = GREY
    marker: str | None = None


def name_ends(figure: Figure, axes: Axes, ends: Sequence[Named]) -> None:
    """Write the names right of the panel, each at the height of its end, or as near as its neighbours let it.

    The panel's limits must be final. Where names do not fit, there is a legend of the panel's artists below.
    """
    shown = sorted((end for end in ends if np.isfinite(end.y)), key=lambda end: end.y)
    longest = max((len(short(end.name)) for end in shown), default=0)
    room = _height(figure, axes)
    if len(shown) * LINE_POINTS > 1.1 * room or longest * CHARACTER_POINTS > MOST_OF_THE_WIDTH * width() * 72:
        legend(figure, axes)
        return
    low, high = axes.get_ylim()
    heights = [room * (end.y - low) / (high - low) for end in shown]
    for end, height, place in zip(shown, heights, spread(heights, LINE_POINTS), strict=True):
        beside = axes.get_yaxis_transform()
        moved = offset_copy(beside, figure, y=place - height, units="points")
        axes.annotate(
            "",
            xy=(1, end.y),
            xycoords=beside,
            xytext=(8, place - height),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )
        if end.marker is not None:
            at = offset_copy(moved, figure, x=12, units="points")
            axes.plot([1], [end.y], end.marker, color=end.colour, markersize=4, transform=at, clip_on=False)
        at = offset_copy(moved, figure, x=MARKER_POINTS if end.marker else 10, units="points")
        axes.text(1, end.y, short(end.name), transform=at, va="center", fontsize=7, clip_on=False)


def spread(heights: Sequence[float], gap: float) -> npt.NDArray[np.float64]:
    """The places nearest to ascending `heights`, by least squares, of which neighbours are `gap` or more apart."""
    steps = np.arange(len(heights)) * gap
    if not len(steps):
        return steps.astype(np.float64)
    places: npt.NDArray[np.float64] = isotonic_regression(np.asarray(heights) - steps).x + steps
    return places


def legend(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, below them."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        longest = max(map(len, labels)) + MARKER_CHARACTERS
        room = LEGEND_CHARACTERS // 2 if is_narrow() else LEGEND_CHARACTERS
        columns = max(1, min(len(labels), 4, room // longest))
        figure.set_figheight(figure.get_figheight() + LEGEND_LINE_INCHES * -(-len(labels) // columns))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _height(figure: Figure, axes: Axes) -> float:
    """Of the panel, in points, once it is laid out below the message that the figure will have."""
    figure.suptitle(" \n " if is_narrow() else " ", fontsize=TITLE_SIZE)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.execute(figure)
    return float(axes.get_position().height * figure.get_figheight() * 72)


def ends_of(names: Mapping[str, str], looks: Mapping[str, tuple[str, str]], ends: Mapping[str, float]) -> list[Named]:
    """What `name_ends` takes, of rows (key -> name) that have an end."""
    return [Named(name, ends[key], *looks[key]) for key, name in names.items() if key in ends]
