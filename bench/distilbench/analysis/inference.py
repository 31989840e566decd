"""Errors of scores and of differences, from resampled examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, pairwise, product

import numpy as np
import numpy.typing as npt
import pandas as pd

from distilbench.analysis import stats
from distilbench.analysis.bootstrap import Array
from distilbench.analysis.examples import aligned, replicates
from distilbench.analysis.frame import ALPHA, OVERALL, RESAMPLES, StudyFrames, diverged_runs, groups
from distilbench.analysis.moderated import ALONE, CONSTANT, ScoreMatrix
from distilbench.analysis.shared_texts import Overlap, overlap, together
from distilbench.analysis.simultaneous import Family, family
from distilbench.analysis.verdicts import Comparison, Judgement, Verdict, judge, without_survivors

CONSTANT_ROLES = ("ceiling", "reference")
"""Of rows that no seed changes."""
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
    overlap: Overlap | None = None
    """How the examples share texts; None where that is not known."""
    _known: dict[str, dict[tuple[str, str], Comparison]] = field(default_factory=dict, init=False)
    _whole: dict[str, set[str]] = field(default_factory=dict, init=False)
    """Column -> the runs that have all of its tasks."""

    @classmethod
    def of(
        cls,
        study: StudyFrames,
        examples: pd.DataFrame,
        resamples: int = RESAMPLES,
        texts: pd.DataFrame | None = None,
    ) -> Inference:
        """Resample the examples of a study; see `distilbench.records.frames.read_examples`.

        `texts`: which texts they are made of, as `distilbench.records.example_texts` has them; without it, examples are
        taken to be independent.
        """
        known = aligned(examples, study.scores)
        tasks = {task: known[task] for task in study.scores if task in known}
        found = replicates(tasks, resamples, np.random.default_rng(SEED))
        more = {} if texts is None else together(tasks, texts, resamples, np.random.default_rng(SEED))
        resampled = {
            task: _spread(part_RB + more.get(task, 0.0), study.scores[task]) for task, part_RB in found.items()
        }
        made = cls(study, study.scores[list(tasks)], resampled)
        if texts is not None and more:
            apart = {task: _spread(part_RB, study.scores[task]) for task, part_RB in found.items()}
            counted = overlap(texts[texts["task"].isin(more)])
            made.overlap = replace(counted, widening=_widening(made, cls(study, made.scores, apart)))
        return made

    @cached_property
    def columns(self) -> dict[str, dict[str, float]]:
        """Column -> the weights of its tasks: single tasks and averages, those of which every task can be compared."""
        named = {str(task): {str(task): 1.0} for task in self.scores} | groups(self.study.tasks)
        return {name: tasks for name, tasks in named.items() if tasks.keys() <= set(self.scores)}

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
        if self.constant.issuperset(weights):
            return stats.fixed(float(values_S[0]), replicates_SB[0])
        return stats.estimate(values_S, replicates_SB)

    def judged(
        self,
        contrasts: Sequence[Mapping[str, float]],
        columns: Sequence[str],
        *,
        beside: Sequence[str] = (),
        alike: bool = False,
    ) -> tuple[Family, list[list[Judgement | None]]]:
        """Contrasts of rows, each with weights that sum to 0, judged as one family on some columns, [P][C].

        The rows `beside` are in no contrast, but say how much rows vary from seed to seed; all that were trained do so
        where they are `alike`, else those of the same settings. None where no seed has all rows of a contrast.
        """
        keys = list(dict.fromkeys([*(key for weights in contrasts for key in weights), *beside]))
        weights_PK = np.array([[weights.get(key, 0.0) for key in keys] for weights in contrasts])
        found = family(score_matrix(self, keys, columns, alike=alike), weights_PK, ALPHA, np.random.default_rng(SEED))
        known = iter(judge([item for line in found.estimates for item in line if item], found, self.study.margin))
        return found, [[next(known) if item else None for item in line] for line in found.estimates]

    def comparisons(self, column: str = OVERALL) -> list[Comparison]:
        """All pairs of rows but the ceiling, in the order of the tables; empty where they cannot be compared."""
        if column not in self._known:
            self._known |= self._compare(judged_with(self, column)) if column in self.columns else {column: {}}
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
            whole = self.scores[list(self.columns.get(column, {}))].notna().all(axis=1)
            self._whole[column] = set(map(str, whole.index[whole]))
        return {seed: run for seed, run in self._runs.get(key, {}).items() if run in self._whole[column]}

    def values(self, runs: Sequence[str], column: str) -> tuple[Array, Array]:
        """Score of each run on a column, [S], and its replicates, [S, B]."""
        places = [self._places[run] for run in runs]
        weights = self.columns[column]
        values: Array = np.array(list(weights.values())) @ self._by_task(runs, column)
        return values, np.sum([weight * self.resampled[task][places] for task, weight in weights.items()], axis=0)

    def _by_task(self, runs: Sequence[str], column: str) -> Array:
        """Score of each run on each task of a column, [T, S]."""
        places = [self._places[run] for run in runs]
        return np.stack([self._task_scores[task][places] for task in self.columns[column]])

    def _compare(self, columns: list[str]) -> dict[str, dict[tuple[str, str], Comparison]]:
        """Column -> pair of rows -> what can be said of it."""
        rows = self.study.rows
        keys = [str(key) for key in rows.index[rows["role"] != "ceiling"]]
        letters = self.study.runs.groupby("key")["letters"].first()
        alike = [pair for pair in combinations(keys, 2) if letters[pair[0]] == letters[pair[1]]]
        pairs = [pair for pair in alike if any(self._common(pair, column) for column in columns)]
        if not pairs:
            return {column: {} for column in columns}
        found, judged = self.judged([{one: 1.0, other: -1.0} for one, other in pairs], columns)
        made: dict[str, dict[tuple[str, str], Comparison]] = {column: {} for column in columns}
        for pair, estimates, judgements in zip(pairs, found.estimates, judged, strict=True):
            for column, estimate, judgement in zip(columns, estimates, judgements, strict=True):
                if estimate is not None and judgement is not None:
                    made[column][pair] = self._comparison(pair, column, estimate, judgement)
        return made

    def _comparison(
        self, pair: tuple[str, str], column: str, difference: stats.Estimate, judgement: Judgement
    ) -> Comparison:
        values = [self._by_task(side, column).T for side in zip(*self._common(pair, column), strict=True)]
        spread = np.sqrt(difference.seed_variance * difference.seeds)
        effect = difference.mean / spread if spread else np.nan
        diverged = (self._diverged.get(pair[0], 0), self._diverged.get(pair[1], 0))
        judgement = replace(judgement, verdict=without_survivors(judgement.verdict, diverged))
        return Comparison(*pair, difference, effect, stats.improvement(*values), **vars(judgement), diverged=diverged)

    def _common(self, keys: Sequence[str], column: str) -> list[tuple[str, ...]]:
        """For each seed that all rows have, the run of each; a row that no seed changes has one run for all."""
        runs = [self.runs(key, column) for key in keys]
        if not all(runs):
            return []
        varying = [set(mine) for key, mine in zip(keys, runs, strict=True) if key not in self.constant]
        seeds = sorted(set.intersection(*varying)) if varying else [0]
        return [
            tuple(
                next(iter(mine.values())) if key in self.constant else mine[seed]
                for key, mine in zip(keys, runs, strict=True)
            )
            for seed in seeds
        ]

    @cached_property
    def _diverged(self) -> dict[str, int]:
        return diverged_runs(self.study)

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
    def constant(self) -> set[str]:
        """The rows that no seed changes."""
        return {str(key) for key, role in self.study.rows["role"].items() if role in CONSTANT_ROLES}


def judged_with(inference: Inference, column: str) -> list[str]:
    """The columns that are one family with a column: all averages, or all single tasks."""
    averages = [name for name in map(str, inference.study.averages) if name in inference.columns]
    return averages if column in averages else [name for name in inference.columns if name not in averages]


def score_matrix(
    inference: Inference, keys: Sequence[str], columns: Sequence[str], *, alike: bool = False
) -> ScoreMatrix:
    """The scores of some rows on some columns, with how they vary over the choice of examples."""
    runs = {(key, column): inference.runs(key, column) for key in keys for column in columns}
    seeds = sorted({seed for (key, _), mine in runs.items() for seed in mine if key not in inference.constant}) or [0]
    resamples = next((part.shape[1] for part in inference.resampled.values()), 0)
    values_KSC = np.full((len(keys), len(seeds), len(columns)), np.nan)
    replicates = np.zeros((len(seeds), len(keys), len(columns), resamples), dtype=np.float32)
    for (k, key), (c, column) in product(enumerate(keys), enumerate(columns)):
        mine = runs[key, column]
        if key in inference.constant and mine:
            mine = dict.fromkeys(seeds, next(iter(mine.values())))
        if mine:
            places = [seeds.index(seed) for seed in mine]
            values_S, replicates_SB = inference.values(list(mine.values()), column)
            values_KSC[k, places, c] = values_S
            replicates[places, k, c] = replicates_SB - replicates_SB.mean(axis=1, keepdims=True)
    covariance = _example_covariance(replicates.reshape(len(seeds), -1, resamples), values_KSC)
    shape = (len(keys), len(columns)) * 2
    return ScoreMatrix(values_KSC, covariance.reshape(shape), _trained_alike(inference, keys, alike=alike))


def _trained_alike(inference: Inference, keys: Sequence[str], *, alike: bool) -> npt.NDArray[np.int64]:
    """The group of each row: rows of one group were trained under the same settings, or differ in them on purpose."""
    first = inference.study.runs.groupby("key").first().loc[list(keys)]
    groups = pd.factorize(first["letters"])[0] * (not alike)
    groups[(first["role"] != "method").to_numpy()] = ALONE
    groups[[key in inference.constant for key in keys]] = CONSTANT
    return np.asarray(groups, dtype=np.int64)


def _example_covariance(replicates_SNB: npt.NDArray[np.float32], values_KSC: Array) -> Array:
    """Covariance over the choice of examples of N = K x C mean scores, from the centred replicates of their runs.

    What seeds and examples make together is in the variance between seeds already. Products of two different runs do
    not hold it, so that means over those are taken; a row of one run has no other, and keeps it.
    """
    there_SN = np.isfinite(values_KSC).transpose(1, 0, 2).reshape(len(replicates_SNB), -1).astype(np.float64)
    count_N = np.maximum(there_SN.sum(axis=0), 1)
    degrees = max(replicates_SNB.shape[2] - 1, 1)
    mean_NB = replicates_SNB.sum(axis=0, dtype=np.float64) / count_N[:, None]
    of_means = mean_NB @ mean_NB.T / degrees
    same_run = sum(
        (part.astype(np.float64) @ part.T.astype(np.float64) for part in replicates_SNB),
        np.zeros((len(count_N), len(count_N))),
    )
    products = np.outer(count_N, count_N) - there_SN.T @ there_SN
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = (np.outer(count_N, count_N) * of_means - same_run / degrees) / products
    return np.asarray(np.where(products > 0, apart, of_means))


def _widening(made: Inference, apart: Inference) -> dict[str, float]:
    """Average -> the example part of the error of differences over that of independent ones, the middle one."""
    keys = [str(key) for key, role in made.study.rows["role"].items() if role == "method"]
    pairs = [{one: 1.0, other: -1.0} for one, other in pairwise(keys)] or [{key: 1.0} for key in keys]
    found = {}
    for column in (name for name in map(str, made.study.averages) if name in made.columns):
        both = [(made.contrast(weights, column), apart.contrast(weights, column)) for weights in pairs]
        ratios = [
            one.example_variance / other.example_variance
            for one, other in both
            if one is not None and other is not None and other.example_variance > 0
        ]
        if ratios:
            found[column] = float(np.sqrt(np.median(ratios)))
    return found


def _spread(part_RB: Array, scores: pd.Series[float]) -> Array:
    """The replicates of the runs that have a score of a task, and not-a-number for the others, [R, B]."""
    found_RB = np.full((len(scores), part_RB.shape[1]), np.nan)
    found_RB[scores.notna().to_numpy()] = part_RB
    return found_RB
