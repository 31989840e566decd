"""The averages by which mteb's leaderboard orders models: over tasks, and over task types. Pure functions.

A score may be a number or an array, such as a task's score in every resample: then so is the average.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]


def type_means(scores: Mapping[str, npt.ArrayLike], types: Mapping[str, str]) -> dict[str, Scores]:
    """Task type -> the mean over its tasks.

    `types` says of every task that counts, of which type it is (`tasks.<task>.type` of a record). As on the
    leaderboard, a mean is not-a-number where a task is missing.
    """
    tasks: dict[str, list[str]] = {}
    for task, kind in types.items():
        tasks.setdefault(kind, []).append(task)
    return {kind: _mean([scores.get(task, np.nan) for task in names]) for kind, names in tasks.items()}


def mean_over_tasks(scores: Mapping[str, npt.ArrayLike], types: Mapping[str, str]) -> Scores:
    """The leaderboard's `Mean (Task)`: each task counts once."""
    return _mean([scores.get(task, np.nan) for task in types])


def mean_over_types(scores: Mapping[str, npt.ArrayLike], types: Mapping[str, str]) -> Scores:
    """The leaderboard's `Mean (TaskType)`: each type counts once, however many tasks it has."""
    return _mean(list(type_means(scores, types).values()))


def _mean(values: list[npt.ArrayLike]) -> Scores:
    arrays = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in values)) if values else []
    return np.asarray(np.mean(arrays, axis=0) if len(arrays) else np.nan)
