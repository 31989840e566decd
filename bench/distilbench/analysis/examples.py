"""The scores of single examples, aligned over runs: what paired comparisons are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from distilbench.analysis.bootstrap import Array, TaskExamples
from distilbench.records.frames import AVERAGE_PRECISION, MEASURE

AGREEMENT = 2e-5
"""mteb rounds retrieval metrics to five decimals."""


def aligned(examples: pd.DataFrame, scores: pd.DataFrame) -> dict[str, list[TaskExamples]]:
    """Task -> its splits, with the runs that have a score of it, in the order of `scores` (runs x tasks).

    `examples`: run_id, task, split, example, gold, value. Only tasks that these runs were scored on with the same
    examples, and whose recorded score the examples give again: others cannot be compared by example.
    """
    tasks = {}
    for task, part in examples.groupby("task", sort=False):
        scored = scores[str(task)].dropna()
        splits = by_split(part, list(scored.index))
        if splits and np.allclose(metric(splits), scored.to_numpy(), rtol=0, atol=AGREEMENT):
            tasks[str(task)] = splits
    return tasks


def by_split(examples: pd.DataFrame, runs: list[str]) -> list[TaskExamples]:
    """Examples of one task, or a part of it, for each of its splits; empty when the runs do not have the same ones."""
    splits = [_split(str(name), rows, runs) for name, rows in examples.groupby("split", sort=False)]
    whole = [item for item in splits if item is not None]
    return whole if len(whole) == len(splits) else []


def metric(splits: Sequence[TaskExamples]) -> Array:
    """A task's score from its examples, [R]."""
    return np.asarray(np.mean([split.metric() for split in splits], axis=0))


def replicates(
    examples: Mapping[str, Sequence[TaskExamples]], resamples: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Task -> its score in every resample of its examples, [R, B].

    A resample in which a run has no score, as of a few pairs that happen to be graded alike, is another's again.
    """
    return {
        task: np.asarray(np.mean([_defined(split.replicates(resamples, rng)) for split in splits], axis=0))
        for task, splits in examples.items()
    }


def _defined(scores_RB: Array) -> Array:
    whole = np.flatnonzero(np.isfinite(scores_RB).all(axis=0))
    if len(whole) in (0, scores_RB.shape[1]):
        return scores_RB
    return scores_RB[:, np.resize(whole, scores_RB.shape[1])]


def _split(split: str, rows: pd.DataFrame, runs: list[str]) -> TaskExamples | None:
    run_M, present = pd.factorize(rows["run_id"])
    example_M, examples = pd.factorize(rows["example"], sort=True)
    places_R = pd.Index(present).get_indexer(pd.Index(runs))
    if (places_R < 0).any():
        return None
    # Not by pivots, which are slower.
    values_RN, gold_RN = (np.full((len(present), len(examples)), np.nan) for _ in range(2))
    values_RN[run_M, example_M], gold_RN[run_M, example_M] = rows["value"], rows["gold"]
    values_RN, gold_RN = values_RN[places_R], gold_RN[places_R]
    if np.isnan(values_RN).any():
        return None
    names_N = np.asarray(examples, dtype=object)
    if np.isnan(gold_RN).all():
        return TaskExamples(values_RN, None, split=split, names_N=names_N)
    classified = MEASURE in rows and bool((rows[MEASURE] == AVERAGE_PRECISION).all())
    if not (gold_RN == gold_RN[0]).all():
        return None
    return TaskExamples(values_RN, gold_RN[0], classified, split, names_N)
