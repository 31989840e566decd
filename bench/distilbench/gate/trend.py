"""A figure of the gate's history, and its change points in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distilbench.gate.candidate import DRIFT
from distilbench.gate.history import change_points, read, series
from distilbench.reporting.figures.style import COLOURS, GREY, MARKERS, new_figure, save, short, styled

PANEL_HEIGHT = 1.7
NAME = "trend"


def draw(history: Path, out: Path) -> list[str]:
    """Write trend.svg, .pdf and .png; returns a line for each change point, and where the figure is.

    Raises `UserError` for a history that is missing or damaged.
    """
    entries = read(history)
    found = {key: values for key, values in series(entries).items() if key[1] != DRIFT}
    columns = list(dict.fromkeys(column for _, column in found))
    labels = sorted({label for label, _ in found})
    said = []
    with styled(NAME):
        figure = new_figure(max(1, len(columns)) * PANEL_HEIGHT + 0.8)
        panels = figure.subplots(max(1, len(columns)), 1, sharex=True, squeeze=False)[:, 0]
        for column, axes in zip(columns, panels, strict=False):
            for number, label in enumerate(labels):
                values = found.get((label, column))
                if values is None:
                    continue
                cuts = change_points(values)
                said += [_sentence(entries, label, column, values, cut) for cut in cuts]
                look: dict[str, Any] = {
                    "color": COLOURS[number % len(COLOURS)],
                    "marker": MARKERS[number % len(MARKERS)],
                }
                axes.plot(range(len(values)), 100 * np.array(values), label=short(label), markersize=3, **look)
                for cut in cuts:
                    axes.axvline(cut - 0.5, color=look["color"], linestyle=":")
            axes.set_title(short(column), loc="left")
            axes.set_ylabel("score x100", color=GREY)
        names = [_short_commit(entry) for entry in entries]
        step = max(1, len(names) // 12)
        panels[-1].set_xticks(range(0, len(names), step), names[::step], rotation=45, ha="right")
        handles, shown = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, shown, loc="outside lower center", ncols=4)
        out.mkdir(parents=True, exist_ok=True)
        save(figure, out, NAME)
    return [*said, str(out / f"{NAME}.svg")]


def _short_commit(entry: dict[str, Any]) -> str:
    return str(entry["commit"] or entry["time"])[:10]


def _sentence(entries: list[dict[str, Any]], label: str, column: str, values: list[float], cut: int) -> str:
    before, after = np.nanmean(values[:cut]), np.nanmean(values[cut:])
    at = _short_commit(entries[cut])
    return f"{label} on {column}: another level from {at} on ({100 * before:.2f} before, {100 * after:.2f} since)"
