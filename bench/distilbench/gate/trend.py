"""A figure of the gate's history, and its change points in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distilbench.gate.candidate import DRIFT
from distilbench.gate.history import change_points, read, series
from distilbench.reporting.figures.style import COLOURS, GREY, MARKERS, new_figure, save, short, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_HEIGHT = 1.7
NAME = "trend"


def draw(history: Path, out: Path) -> list[str]:
    """Write trend.svg, .pdf and .png; returns a line for each change point, and where the figure is.

    Raises `UserError` for a history that is missing or damaged.
    """
    entries = read(history)
    scores = {key: values for key, values in series(entries).items() if key[1] != DRIFT}
    columns = list(dict.fromkeys(column for _, column in scores))
    labels = sorted({label for label, _ in scores})
    sentences = []
    with styled(NAME):
        figure = new_figure(max(1, len(columns)) * PANEL_HEIGHT + 0.8)
        panels = figure.subplots(max(1, len(columns)), 1, sharex=True, squeeze=False)[:, 0]
        for column, axes in zip(columns, panels, strict=False):
            axes.set_title(short(column), loc="left")
            axes.set_ylabel("score x100", color=GREY)
            for number, label in enumerate(labels):
                if values := scores.get((label, column)):
                    cuts = _line(axes, label, number, values)
                    sentences += [_sentence(entries, label, column, values, cut) for cut in cuts]
        names = [_short_commit(entry) for entry in entries]
        step = max(1, len(names) // 12)
        panels[-1].set_xticks(range(0, len(names), step), names[::step], rotation=45, ha="right")
        handles, shown = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, shown, loc="outside lower center", ncols=4)
        out.mkdir(parents=True, exist_ok=True)
        save(figure, out, NAME)
    return [*sentences, str(out / f"{NAME}.svg")]


def _line(axes: Axes, label: str, number: int, values: list[float]) -> list[int]:
    """The scores of a row and their change points, which are returned."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    shown = 100 * np.array(values)
    axes.plot(range(len(values)), shown, label=short(label), markersize=3, color=colour, marker=marker)
    cuts = change_points(values)
    for cut in cuts:
        axes.axvline(cut - 0.5, color=colour, linestyle=":")
    return cuts


def _short_commit(entry: dict[str, Any]) -> str:
    return str(entry["commit"] or entry["time"])[:10]


def _sentence(entries: list[dict[str, Any]], label: str, column: str, values: list[float], cut: int) -> str:
    before, after = np.nanmean(values[:cut]), np.nanmean(values[cut:])
    at = _short_commit(entries[cut])
    return f"{label} on {column}: another level from {at} on ({100 * before:.2f} before, {100 * after:.2f} since)"
