"""The tables that runs leave beside their records, as one frame for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from distilbench.core.errors import UserError
from distilbench.core.sealed import undisturbed
from distilbench.records.record import CURE, CURVE_FILE, EXAMPLES_FILE, SLICES, Record

SIMILARITY, GOLD = "similarity", "gold"
MEASURE, AVERAGE_PRECISION = "measure", "average_precision"
"""A column of pairs whose gold scores are 0 and 1, and what makes a score of them; else Spearman's correlation does."""
PLACE = ["task", "split", "example"]
"""What an example is known by."""
COLUMNS = ["run_id", *PLACE, GOLD, "value", MEASURE, SLICES]


def read_examples(records: Sequence[Record], folder: Path) -> pd.DataFrame:
    """A line for each run and example, with the columns `COLUMNS`. Empty when no run has any.

    `value` is the similarity of a pair, or the task's main metric of a query, a text or an experiment. Raises
    `UserError` for damaged files.
    """
    frames = [
        frame.assign(value=_values(frame, record), run_id=record.run_id).reindex(columns=COLUMNS)
        for record in records
        if (frame := _read(folder / record.run_id / EXAMPLES_FILE, PLACE)) is not None
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def read_curves(records: Sequence[Record], folder: Path) -> pd.DataFrame:
    """The logged steps of all runs, with a column run_id; empty when no run has a curve.

    Raises `UserError` for damaged files.
    """
    frames = [
        frame.assign(run_id=record.run_id)
        for record in records
        if (frame := _read(folder / record.run_id / CURVE_FILE, ["step"])) is not None
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["run_id"])


def _read(path: Path, needed: Sequence[str]) -> pd.DataFrame | None:
    return undisturbed(path.parent, lambda: _read_now(path, needed))


def _read_now(path: Path, needed: Sequence[str]) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, LookupError, TypeError, NotImplementedError) as error:
        raise UserError(f"{path} cannot be read ({error}); {CURE}") from error
    if lacking := [name for name in needed if name not in frame]:
        raise UserError(f"{path} has no column {lacking[0]}; {CURE}")
    return frame


def _values(examples: pd.DataFrame, record: Record) -> npt.NDArray[np.float64]:
    values = np.full(len(examples), np.nan)
    for task, facts in record.tasks.items():
        rows = (examples["task"] == task).to_numpy()
        for column in (SIMILARITY, facts["main_metric"]):
            if column in examples and np.isnan(values[rows]).any():
                values[rows] = examples[column].to_numpy(dtype=np.float64)[rows]
    return values
