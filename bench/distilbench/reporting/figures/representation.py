"""Figures of what goes on inside students: the information plane, and their layers beside the teacher's."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from distilbench.analysis.frame import StudyFrames
from distilbench.reporting.figures.drawn import FigureData, legend
from distilbench.reporting.figures.style import GREY, looks, new_figure, short

PLANES = {"hsic": "normalised HSIC", "nce": "InfoNCE bound (nats)"}


def information_plane(given: FigureData) -> Figure | None:
    """A panel per measure, a line per method over the budget: dependence on the teacher against that on the input."""
    study = given.study
    found = planes(study)
    methods = {key: name for key, name in study.names("method").items() if key in set(found["key"])}
    if not methods:
        return None
    figure = new_figure(3.4)
    panels = figure.subplots(1, len(PLANES))
    for axes, (measure, label) in zip(panels, PLANES.items(), strict=True):
        for key, name in methods.items():
            colour, marker = looks(study.runs)[key]
            line = found[found["key"] == key].sort_values("share")
            x, y = line[f"{measure}_input"], line[f"{measure}_teacher"]
            axes.plot(x, y, color=colour, linewidth=1, label=short(name), marker=".", markersize=3)
            axes.plot(x.iloc[-1:], y.iloc[-1:], marker=marker, color=colour, markersize=6)
        axes.set(title=label, xlabel="student and input", ylabel="student and teacher")
    panels[list(PLANES).index("nce")].axhline(float(found["nce_limit"].max()), color=GREY, linestyle=":", linewidth=1)
    legend(figure, panels[0])
    return figure


def planes(study: StudyFrames) -> pd.DataFrame:
    """Means over seeds by method (`key`) and share of the budget; no rows where no run was placed."""
    columns = [f"{measure}_{side}" for measure in PLANES for side in ("input", "teacher")] + ["nce_limit"]
    rows = [
        {"key": study.runs.at[run_id, "key"], **{name: row[name] for name in ("share", *columns)}}
        for run_id, record in study.records.items()
        for row in record.response
        if "nce_limit" in row
    ]
    frame = pd.DataFrame(rows, columns=["key", "share", *columns])
    return frame.groupby(["key", "share"], as_index=False).mean()


def layers(given: FigureData) -> Figure | None:
    """One panel per row: each of the student's layers (upwards) beside each of the teacher's, as shades."""
    study = given.study
    matrices: dict[str, list[np.ndarray]] = {}
    for run_id, record in study.records.items():
        if record.role != "ceiling" and len(found := record.vectors.get("layers", [])) > 1:
            matrices.setdefault(str(study.runs.at[run_id, "key"]), []).append(np.array(found, dtype=float))
    names = {**study.names("method"), **study.names("floor")}
    shown = {key: name for key, name in names.items() if key in matrices}
    if not shown:
        return None
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    height = 0.35 + 0.16 * max(len(matrices[key][0]) for key in shown)
    figure = new_figure(1.0 + (height + 0.35) * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes, (key, name) in zip(panels.ravel(), shown.items(), strict=False):
        image = axes.imshow(
            np.ma.masked_invalid(matrices[key]).mean(axis=0),
            cmap="YlGnBu",
            vmin=0,
            vmax=1,
            origin="lower",
            aspect="auto",
        )
        axes.set(title=short(name), xticks=range(0, matrices[key][0].shape[1], 3), yticks=range(len(matrices[key][0])))
        axes.grid(visible=False)
    for axes in panels.ravel()[len(shown) :]:
        axes.remove()
    figure.supxlabel("teacher's layer (0: embeddings)", fontsize=8)
    figure.supylabel("student's layer", fontsize=8)
    figure.colorbar(image, ax=list(panels.ravel()[: len(shown)]), label="linear CKA", pad=0.02)
    return figure
