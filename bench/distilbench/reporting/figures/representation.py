"""Figures of what goes on inside students: the information plane, and their layers beside the teacher's."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from distilbench.analysis.frame import StudyFrames, row_names
from distilbench.reporting.figures.drawn import FigureData, grid_of_panels, legend
from distilbench.reporting.figures.style import GREY, looks, new_figure, short

PLANES = {"hsic": "normalised HSIC", "nce": "InfoNCE bound (nats)"}


def information_plane(given: FigureData) -> Figure | None:
    """A panel per measure, a line per method over the budget: dependence on the teacher against that on the input."""
    study = given.study
    placed = planes(study)
    methods = {key: name for key, name in row_names(study, "method").items() if key in set(placed["key"])}
    if not methods:
        return None
    figure = new_figure(3.4)
    panels = figure.subplots(1, len(PLANES))
    for axes, (measure, label) in zip(panels, PLANES.items(), strict=True):
        for key, name in methods.items():
            colour, marker = looks(study.runs)[key]
            line = placed[placed["key"] == key].sort_values("share")
            x, y = line[f"{measure}_input"], line[f"{measure}_teacher"]
            axes.plot(x, y, color=colour, linewidth=1, label=short(name), marker=".", markersize=3)
            axes.plot(x.iloc[-1:], y.iloc[-1:], marker=marker, color=colour, markersize=6)
        axes.set(title=label, xlabel="student and input", ylabel="student and teacher")
    panels[list(PLANES).index("nce")].axhline(float(placed["nce_limit"].max()), color=GREY, linestyle=":", linewidth=1)
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
        if record.role != "ceiling" and len(matrix := record.vectors.get("layers", [])) > 1:
            matrices.setdefault(str(study.runs.at[run_id, "key"]), []).append(np.array(matrix, dtype=float))
    names = {**row_names(study, "method"), **row_names(study, "floor")}
    shown = {key: name for key, name in names.items() if key in matrices}
    if not shown:
        return None
    height = 0.35 + 0.16 * max(len(matrices[key][0]) for key in shown)
    figure, panels = grid_of_panels(len(shown), height + 0.35, margin=1.0, shared=True)
    for axes, (key, name) in zip(panels, shown.items(), strict=True):
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
    figure.supxlabel("teacher's layer (0: embeddings)", fontsize=8)
    figure.supylabel("student's layer", fontsize=8)
    figure.colorbar(image, ax=panels, label="linear CKA", pad=0.02)
    return figure
