"""A study as tidy frames, one line a value; what the columns hold is said where `Results` offers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from distilbench.core.errors import UserError, one_of

if TYPE_CHECKING:
    from distilbench.analysis.frame import StudyFrames
    from distilbench.analysis.inference import Inference
    from distilbench.analysis.verdicts import Comparison


def scores(study: StudyFrames) -> pd.DataFrame:
    """All metrics of the completed runs."""
    values = [
        (study.runs.at[run_id, "row"], record.role, record.seed, task, metric, value)
        for run_id, record in study.records.items()
        if record.status == "completed"
        for task, metrics in record.scores.items()
        for metric, value in metrics.items()
    ]
    frame = pd.DataFrame(values, columns=["row", "role", "seed", "task", "metric", "value"])
    return frame.astype({"seed": "int64", "value": "float64"})


def runs(study: StudyFrames) -> pd.DataFrame:
    """All runs, whatever became of them."""
    more = [(record.method, record.error) for record in study.records.values()]
    frame = study.runs.join(pd.DataFrame(more, study.runs.index, columns=["method", "error"]))
    return frame.reset_index()[["run_id", "row", "role", "method", "seed", "status", "error"]]


def costs(study: StudyFrames) -> pd.DataFrame:
    """The ledgers of the completed runs."""
    entries = study.costs.melt(var_name="cost", ignore_index=False).dropna()
    return study.runs[["row", "role", "seed"]].join(entries, how="right").reset_index(drop=True)


def verdicts(study: StudyFrames, inference: Inference, reference: str | None, column: str) -> pd.DataFrame:
    """All pairs of rows, or each row against a reference, on a column.

    Raises `UserError` for an unknown row or column, and where there is nothing to compare.
    """
    chosen = set(study.rows.index) if reference is None else _keys(study, reference)
    lines = []
    for pair in _comparisons(study, inference, column):
        item = pair.turned() if pair.other not in chosen else pair
        if item.other in chosen:
            names = (study.rows.at[item.one, "row"], study.rows.at[item.other, "row"])
            points, half = 100 * item.difference.mean, 100 * item.half_width
            interval = (points, points - half, points + half)
            lines.append((*names, *interval, item.p_differs, item.p_within, item.verdict))
    columns = ["row", "other", "points", "low", "high", "p_differs", "p_within", "verdict"]
    return pd.DataFrame(lines, columns=columns)


def _keys(study: StudyFrames, name: str) -> set[str]:
    """The rows of a name or a label; several where rows of one label were run under different settings."""
    rows = study.rows
    keys = rows.index[(rows["row"] == name) | (rows["label"] == name)]
    if not len(keys):
        raise UserError(one_of("row", name, {*rows["label"], *rows["row"]}))
    return set(map(str, keys))


def _comparisons(study: StudyFrames, inference: Inference, column: str) -> list[Comparison]:
    if inference.columns and column not in inference.columns:
        raise UserError(one_of("column", column, inference.columns))
    if not (compared := inference.comparisons(column)):
        raise UserError(f"{study.name} has no two rows with the same scored examples; there is nothing to compare")
    return compared
