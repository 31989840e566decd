"""The scores of single examples, aligned over runs: what paired comparisons are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import UserError
from bench.record import EXAMPLES_FILE, SLICES, Record
from bench.report.bootstrap import Array, TaskExamples

SIMILARITY, GOLD = "similarity", "gold"
AGREEMENT = 2e-5
"""mteb rounds retrieval metrics to five decimals."""


def read_examples(records: Sequence[Record], folder: Path) -> pd.DataFrame:
    """One row per run and example: run_id, task, split, example, gold, value, slices. Empty when no run has any."""
    frames = []
    for record in records:
        path = folder / record.run_id / EXAMPLES_FILE
        if not path.is_file():
            continue
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}); delete its folder and run the study again") from error
        frames += [
            part.assign(
                value=_value(part, str(record.tasks.get(str(task), {}).get("main_metric"))), run_id=record.run_id
            )
            for task, part in frame.groupby("task", sort=False)
        ]
    columns = ["run_id", "task", "split", "example", GOLD, "value", SLICES]
    if not frames:
        return pd.DataFrame(columns=columns)
    return pd.concat([frame.reindex(columns=columns) for frame in frames], ignore_index=True)


def _value(examples: pd.DataFrame, metric: str) -> pd.Series[float]:
    """Similarity of a pair; the main metric of a query."""
    column = SIMILARITY if SIMILARITY in examples and examples[SIMILARITY].notna().all() else metric
    return examples[column] if column in examples else pd.Series(np.nan, index=examples.index)


def aligned(examples: pd.DataFrame, scores: pd.DataFrame) -> dict[str, list[TaskExamples]]:
    """Task -> its splits, with the runs in the order of `scores` (runs x tasks).

    Only tasks that all runs were scored on with the same examples, and whose recorded score the examples give again:
    others cannot be compared by example.
    """
    found = {}
    for task, part in examples.groupby("task", sort=False):
        splits = by_split(part, list(scores.index))
        if splits and _gives(splits, scores[str(task)].to_numpy()):
            found[str(task)] = splits
    return found


def by_split(examples: pd.DataFrame, runs: list[str]) -> list[TaskExamples]:
    """Examples of one task, or a part of it, for each of its splits; empty when the runs do not have the same ones."""
    splits = [_split(rows, runs) for _, rows in examples.groupby("split", sort=False)]
    whole = [item for item in splits if item is not None]
    return whole if len(whole) == len(splits) else []


def metric(splits: Sequence[TaskExamples]) -> Array:
    """A task's score from its examples, [R]."""
    found: Array = np.mean([split.metric() for split in splits], axis=0)
    return found


def _split(rows: pd.DataFrame, runs: list[str]) -> TaskExamples | None:
    values = rows.pivot(index="example", columns="run_id", values="value")
    if not set(runs) <= set(values) or values[runs].isna().to_numpy().any():
        return None
    gold = rows.pivot(index="example", columns="run_id", values=GOLD)[runs].to_numpy(dtype=np.float64)
    if np.isnan(gold).all():
        return TaskExamples(values[runs].to_numpy(dtype=np.float64).T, None)
    if (gold != gold[:, :1]).any():
        return None
    return TaskExamples(values[runs].to_numpy(dtype=np.float64).T, gold[:, 0])


def _gives(splits: Sequence[TaskExamples], scores_R: Array) -> bool:
    return bool(np.allclose(metric(splits), scores_R, rtol=0, atol=AGREEMENT))


def replicates(
    examples: Mapping[str, Sequence[TaskExamples]], resamples: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Task -> its score in every resample of its examples, [R, B]."""
    return {
        task: np.asarray(np.mean([split.replicates(resamples, rng) for split in splits], axis=0))
        for task, splits in examples.items()
    }
