"""Figures of what goes on inside students: the information plane, and their layers beside the teacher's."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from distilbench.analysis.frame import StudyFrames, row_names
from distilbench.reporting.figures.drawn import FigureData, grid_of_panels
from distilbench.reporting.figures.labels import ends_of, name_ends
from distilbench.reporting.figures.style import GREY, is_narrow, looks, new_figure, short

PLANES = {"hsic": "normalised HSIC", "nce": "InfoNCE bound (nats)"}
SATURATED = 0.1
"""Nats below the most that the bound can reach, within which it tells no two students apart."""


def information_plane(given: FigureData) -> Figure | None:
    """A panel per measure, a line per method over the budget: dependence on the teacher against that on the input."""
    study = given.study
    placed = planes(study)
    methods = {key: name for key, name in row_names(study, "method").items() if key in set(placed["key"])}
    if not methods:
        return None
    shown = {measure: label for measure, label in PLANES.items() if measure != "nce" or not _is_saturated(placed)}
    figure = new_figure(2.6 if is_narrow() else 3.4)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (measure, label) in zip(panels, shown.items(), strict=True):
        for key, name in methods.items():
            colour, marker = looks(study.runs)[key]
            line = placed[placed["key"] == key].sort_values("share")
            x, y = line[f"{measure}_input"], line[f"{measure}_teacher"]
            axes.plot(x, y, color=colour, linewidth=1, label=short(name), marker=".", markersize=3)
            axes.plot(x.iloc[-1:], y.iloc[-1:], marker=marker, color=colour, markersize=6)
        axes.set(title=label, xlabel="student and input", ylabel="student and teacher")
    if "nce" in shown:
        panels[-1].axhline(float(placed["nce_limit"].max()), color=GREY, linestyle=":", linewidth=1)
    last = placed.sort_values("share").groupby("key").last()[f"{list(shown)[-1]}_teacher"]
    name_ends(figure, panels[-1], ends_of(methods, looks(study.runs), dict(last)))
    return figure


def _is_saturated(placed: pd.DataFrame) -> bool:
    """Whether a side of the InfoNCE plane is at its limit for every student, so that its places mean nothing."""
    below = placed[["nce_input", "nce_teacher"]].rsub(placed["nce_limit"], axis="index")
    return bool((below < SATURATED).all().any())


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
    # Shades for what there is, in steps of a tenth: between 0 and 1 all would be the same blue.
    low = np.floor(10 * min(float(np.nanmin(matrix)) for key in shown for matrix in matrices[key])) / 10
    for axes, (key, name) in zip(panels, shown.items(), strict=True):
        image = axes.imshow(
            np.ma.masked_invalid(matrices[key]).mean(axis=0),
            cmap="YlGnBu",
            vmin=low,
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
