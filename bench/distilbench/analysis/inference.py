"""Errors of scores and of differences, from resampled examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd

from distilbench.analysis import stats
from distilbench.analysis.bootstrap import Array
from distilbench.analysis.examples import aligned, replicates
from distilbench.analysis.frame import ALPHA, OVERALL, RESAMPLES, StudyFrames, groups
from distilbench.analysis.verdicts import Comparison, Verdict, judge

CONSTANT = ("ceiling", "reference")
"""Roles that no seed changes."""
SEED = 20240
"""Of the bootstrap, so that the same records give the same report."""


@dataclass
class Inference:
    """Errors of scores, and comparisons of rows, by seeds and examples."""

    study: StudyFrames
    scores: pd.DataFrame
    """Completed runs x tasks that can be compared by example."""
    resampled: Mapping[str, Array]
    """Task -> its score in every resample, [R, B], runs as in `scores`."""
    alpha: float = ALPHA
    _known: dict[str, dict[tuple[str, str], Comparison]] = field(default_factory=dict, init=False)
    _variances: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict, init=False)
    _whole: dict[str, set[str]] = field(default_factory=dict, init=False)
    """Column -> the runs that have all of its tasks."""

    @classmethod
    def of(cls, study: StudyFrames, examples: pd.DataFrame, resamples: int = RESAMPLES) -> Inference:
        """Resample the examples of a study; see `distilbench.records.frames.read_examples`."""
        known = aligned(examples, study.scores)
        tasks = [task for task in study.scores if task in known]
        found = replicates({task: known[task] for task in tasks}, resamples, np.random.default_rng(SEED))
        resampled = {task: _spread(part_RB, study.scores[task]) for task, part_RB in found.items()}
        return cls(study, study.scores[tasks], resampled)

    @cached_property
    def columns(self) -> dict[str, list[str]]:
        """Column -> its tasks: single tasks, groups, and all; those of which every task can be compared."""
        named: dict[str, list[str]] = {str(task): [str(task)] for task in self.scores}
        named |= groups(self.study.tasks)
        return {name: tasks for name, tasks in named.items() if set(tasks) <= set(self.scores)}

    def score(self, key: str, column: str) -> stats.Estimate | None:
        """A row's score; None for rows without completed runs, and columns that cannot be compared."""
        return self.contrast({key: 1.0}, column)

    def contrast(self, weights: Mapping[str, float], column: str) -> stats.Estimate | None:
        """A weighted sum of the scores of some rows, over the seeds that all of them have; None without any."""
        runs = self._common(list(weights), column) if column in self.columns else []
        if not runs:
            return None
        parts = [
            (weight, *self.values(mine, column))
            for weight, mine in zip(weights.values(), zip(*runs, strict=True), strict=True)
        ]
        values_S = np.sum([weight * part for weight, part, _ in parts], axis=0)
        replicates_SB = np.sum([weight * part for weight, _, part in parts], axis=0)
        if self._constant.issuperset(weights):
            return stats.fixed(float(values_S[0]), replicates_SB[0])
        return stats.estimate(values_S, replicates_SB)

    def residual_variance(self, keys: Sequence[str], column: str) -> tuple[float, float]:
        """What a run of some trained rows varies by beyond row and seed, over the seeds that each of them has.

        With its degrees of freedom, which are 0 where there is nothing to take it from.
        """
        runs = {key: self.runs(key, column) for key in keys}
        seeds = sorted({seed for mine in runs.values() for seed in mine})
        if len(seeds) < 2 or len(keys) < 2:
            return np.nan, 0.0
        values_KS = np.full((len(keys), len(seeds)), np.nan)
        for row, mine in enumerate(runs.values()):
            places = [seeds.index(seed) for seed in mine]
            values_KS[row, places] = self._by_task(list(mine.values()), column).mean(axis=0)
        return stats.residual_variance(values_KS)

    def comparisons(self, column: str = OVERALL) -> list[Comparison]:
        """All pairs of rows but the ceiling, in the order of the tables; empty where they cannot be compared."""
        if column not in self._known:
            items = self._compare(column) if column in self.columns else ()
            self._known[column] = {(item.one, item.other): item for item in items}
        return list(self._known[column].values())

    def comparison(self, one: str, other: str, column: str = OVERALL) -> Comparison | None:
        """`one` against `other`; None when they were not compared."""
        self.comparisons(column)
        known = self._known[column]
        if (one, other) in known:
            return known[one, other]
        return known[other, one].turned() if (other, one) in known else None

    def verdict(self, one: str, other: str, column: str = OVERALL) -> Verdict | None:
        """What can be said of `one` against `other`; None when they were not compared."""
        item = self.comparison(one, other, column)
        return None if item is None else item.verdict

    def runs(self, key: str, column: str = OVERALL) -> dict[int, str]:
        """Seed -> completed run of a row that has all of a column's tasks."""
        if column not in self._whole:
            whole = self.scores[self.columns.get(column, [])].notna().all(axis=1)
            self._whole[column] = set(map(str, whole.index[whole]))
        return {seed: run for seed, run in self._runs.get(key, {}).items() if run in self._whole[column]}

    def values(self, runs: Sequence[str], column: str) -> tuple[Array, Array]:
        """Score of each run on a column, [S], and its replicates, [S, B]."""
        places = [self._places[run] for run in runs]
        values: Array = self._by_task(runs, column).mean(axis=0)
        return values, np.mean([self.resampled[task][places] for task in self.columns[column]], axis=0)

    def _by_task(self, runs: Sequence[str], column: str) -> Array:
        """Score of each run on each task of a column, [T, S]."""
        places = [self._places[run] for run in runs]
        return np.stack([self._task_scores[task][places] for task in self.columns[column]])

    def _compare(self, column: str) -> Iterator[Comparison]:
        rows = self.study.rows
        keys = [str(key) for key in rows.index[rows["role"] != "ceiling"]]
        letters = self.study.runs.groupby("key")["letters"].first()
        alike = [pair for pair in combinations(keys, 2) if letters[pair[0]] == letters[pair[1]]]
        pairs = [pair for pair in alike if self._common(pair, column)]
        differences = [self._difference(*pair, column) for pair in pairs]
        tested = [
            self._steadied(difference, pair, str(letters[pair[0]]), column)
            for difference, pair in zip(differences, pairs, strict=True)
        ]
        judged = judge(tested, self.study.margin, self.alpha)
        for pair, difference, steadied, judgement in zip(pairs, differences, tested, judged, strict=True):
            values = [self._by_task(side, column).T for side in zip(*self._common(pair, column), strict=True)]
            spread = float((values[0] - values[1]).mean(axis=1).std(ddof=1)) if difference.seeds > 1 else np.nan
            effect = difference.mean / spread if spread else np.nan
            yield Comparison(*pair, difference, steadied, effect, stats.improvement(*values), **vars(judgement))

    def _difference(self, one: str, other: str, column: str) -> stats.Estimate:
        difference = self.contrast({one: 1.0, other: -1.0}, column)
        assert difference is not None
        return difference

    def _steadied(self, item: stats.Estimate, pair: tuple[str, str], letters: str, column: str) -> stats.Estimate:
        """The difference as it is judged: it varies between seeds at least as all trained rows do."""
        if self._constant.intersection(pair) or stats.is_exactly_zero(item):
            return item
        variance, freedom = self._pooled(letters, column)
        # Two runs differ by what each of them varies.
        return item.steadied(2 * variance / item.seeds, freedom, alike=False)

    def _pooled(self, letters: str, column: str) -> tuple[float, float]:
        """The residual variance of all trained rows that were run under the same settings."""
        if (letters, column) not in self._variances:
            runs = self.study.runs
            keys = runs.loc[(runs["letters"] == letters) & (runs["role"] == "method"), "key"].unique()
            self._variances[letters, column] = self.residual_variance([str(key) for key in keys], column)
        return self._variances[letters, column]

    def _common(self, keys: Sequence[str], column: str) -> list[tuple[str, ...]]:
        """For each seed that all rows have, the run of each; a row that no seed changes has one run for all."""
        runs = [self.runs(key, column) for key in keys]
        if not all(runs):
            return []
        varying = [set(mine) for key, mine in zip(keys, runs, strict=True) if key not in self._constant]
        seeds = sorted(set.intersection(*varying)) if varying else [0]
        return [
            tuple(
                next(iter(mine.values())) if key in self._constant else mine[seed]
                for key, mine in zip(keys, runs, strict=True)
            )
            for seed in seeds
        ]

    @cached_property
    def _runs(self) -> dict[str, dict[int, str]]:
        by_seed: dict[str, dict[int, str]] = {}
        runs = self.study.runs.loc[self.scores.index]
        for run_id, key, seed in zip(map(str, runs.index), runs["key"], runs["seed"], strict=True):
            by_seed.setdefault(str(key), {})[int(seed)] = run_id
        return by_seed

    @cached_property
    def _places(self) -> dict[str, int]:
        """Run -> its place in `scores`."""
        return {str(run_id): place for place, run_id in enumerate(self.scores.index)}

    @cached_property
    def _task_scores(self) -> dict[str, Array]:
        return {str(task): self.scores[task].to_numpy(dtype=np.float64) for task in self.scores}

    @cached_property
    def _constant(self) -> set[str]:
        return {str(key) for key, role in self.study.rows["role"].items() if role in CONSTANT}


def _spread(part_RB: Array, scores: pd.Series[float]) -> Array:
    """The replicates of the runs that have a score of a task, and not-a-number for the others, [R, B]."""
    found_RB = np.full((len(scores), part_RB.shape[1]), np.nan)
    found_RB[scores.notna().to_numpy()] = part_RB
    return found_RB
