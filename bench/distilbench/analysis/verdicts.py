"""Which differences are real: better, worse, equivalent, or undecided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from distilbench.analysis import stats
from distilbench.analysis.bootstrap import Array
from distilbench.analysis.examples import aligned, read_examples, replicates
from distilbench.analysis.frame import ALPHA, OVERALL, RESAMPLES, StudyFrames, groups

Verdict = Literal["better", "worse", "equivalent", "undecided"]
REVERSED: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}
CONSTANT = ("ceiling", "reference")
"""Roles that no seed changes."""
SEED = 20240
"""Of the bootstrap, so that the same records give the same report."""


@dataclass(frozen=True)
class Comparison:
    """The difference between two rows on one column, one less other, and what can be said of it."""

    one: str
    other: str
    column: str
    difference: stats.Estimate
    tested: stats.Estimate
    """The same with a variance between seeds that few of them have not made too small by chance: what is judged."""
    effect: float
    """Mean difference over its standard deviation between seeds (Cohen's d of paired values)."""
    improvement: float
    """Probability that a run of the one beats a run of the other on a task drawn at random."""
    p_differs: float
    """Adjusted for all comparisons of the column (Holm)."""
    p_within: float
    """Likewise, of the hypothesis that the difference is the margin or more."""
    verdict: Verdict
    alpha: float
    """What is left of the error for this comparison at the first step of Holm's procedure."""


@dataclass
class Inference:
    """Errors of scores, and comparisons of rows, by seeds and examples."""

    study: StudyFrames
    scores: pd.DataFrame
    """Completed runs x tasks that can be compared by example."""
    resampled: Mapping[str, Array]
    """Task -> its score in every resample, [R, B], runs as in `scores`."""
    alpha: float = ALPHA
    _known: dict[str, list[Comparison]] = field(default_factory=dict, init=False)
    _variances: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, study: StudyFrames, folder: Path, resamples: int = RESAMPLES) -> Inference:
        """Read the examples below a study's folder and resample them."""
        records = [study.records[str(run_id)] for run_id in study.scores.index]
        found = aligned(read_examples(records, folder), study.scores)
        tasks = [task for task in study.scores if task in found]
        resampled = replicates({task: found[task] for task in tasks}, resamples, np.random.default_rng(SEED))
        return cls(study, study.scores[tasks], resampled)

    @cached_property
    def columns(self) -> dict[str, list[str]]:
        """Column -> its tasks: single tasks, groups, and all; those of which every task can be compared."""
        named: dict[str, list[str]] = {str(task): [str(task)] for task in self.scores}
        named |= groups(self.study.tasks)
        return {name: tasks for name, tasks in named.items() if set(tasks) <= set(self.scores)}

    def score(self, key: str, column: str) -> stats.Estimate | None:
        """A row's score; None for rows without completed runs, and columns that cannot be compared."""
        runs = self._runs(key)
        if column not in self.columns or not runs:
            return None
        values_S, replicates_SB = self._values(list(runs.values()), column)
        if self._is_constant(key):
            return stats.fixed(float(values_S[0]), replicates_SB[0])
        return stats.estimate(values_S, replicates_SB)

    def half_widths(self) -> pd.DataFrame:
        """Rows x columns: half of each score's interval; not-a-number where one seed leaves it unknown."""
        found = {}
        for key in map(str, self.study.rows.index):
            scores = {column: self.score(key, column) for column in self.columns}
            found[key] = {column: np.nan if item is None else item.half_width() for column, item in scores.items()}
        return pd.DataFrame.from_dict(found, orient="index", columns=list(self.columns), dtype="float64")

    def interquartile_means(self) -> pd.DataFrame:
        """Rows x (mean, half_width): interquartile mean over runs and tasks, with its 95 % bootstrap interval.

        Agarwal et al. 2021, arXiv:2108.13264; but runs are resampled for all tasks at once, since one model is scored
        on all of them. Half-widths are not-a-number with one seed; empty when no task can be compared.
        """
        rng, found = np.random.default_rng(SEED), {}
        for key in map(str, self.study.rows.index):
            places = self.scores.index.get_indexer(pd.Index(list(self._runs(key).values())))
            if not len(places) or self.scores.empty:
                continue
            runs_TSB = np.stack([self.resampled[str(task)][places] for task in self.scores])
            drawn_SB = rng.integers(0, len(places), size=runs_TSB.shape[1:])
            resampled_TSB = np.take_along_axis(runs_TSB, drawn_SB[None], axis=1)
            means_B = stats.interquartile_mean(resampled_TSB.reshape(-1, runs_TSB.shape[2]))
            low, high = np.quantile(means_B, [0.025, 0.975])
            known = len(places) > 1 or self._is_constant(key)
            mean = stats.interquartile_mean(self.scores.iloc[places].to_numpy(dtype=np.float64).ravel())
            found[key] = {"mean": float(mean), "half_width": (high - low) / 2 if known else np.nan}
        return pd.DataFrame.from_dict(found, orient="index", columns=["mean", "half_width"], dtype="float64")

    def leaders(self, column: str) -> dict[str, Literal["best", "second"]]:
        """The method that is better than all others, and the one that is better than all but that one, if any."""
        left = [str(key) for key in self.study.rows.index[self.study.rows["role"] == "method"]]
        found: dict[str, Literal["best", "second"]] = {}
        for name in ("best", "second"):
            ahead = [one for one in left if all(self.verdict(one, x, column) == "better" for x in left if x != one)]
            if len(left) < 2 or not ahead:
                break
            found[ahead[0]] = "best" if name == "best" else "second"
            left.remove(ahead[0])
        return found

    def ranks(self, column: str) -> pd.DataFrame:
        """Methods x (mean, low, high): rank by score over resampled seeds and examples, with 95 % intervals.

        Of the largest set of rows that are comparable with each other, those that have all the seeds; empty where
        there are none, or seeds too few to resample.
        """
        methods = self._largest_set()
        runs = {key: self._runs(key) for key in methods}
        seeds = sorted(set().union(*runs.values()))
        whole = [key for key in methods if len(runs[key]) == len(seeds)]
        frame = pd.DataFrame(columns=["mean", "low", "high"], dtype="float64")
        if column not in self.columns or len(seeds) < 2 or not whole:
            return frame
        values = np.stack([self._values([runs[key][seed] for seed in seeds], column)[1] for key in whole])
        rng = np.random.default_rng(SEED)
        weights_SB = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), values.shape[2]).T
        scores_MB = (values * weights_SB).sum(axis=1)
        ranks_MB = pd.DataFrame(-scores_MB).rank().to_numpy()
        frame["mean"] = pd.Series(ranks_MB.mean(axis=1), index=whole)
        frame["low"], frame["high"] = np.quantile(ranks_MB, [0.025, 0.975], axis=1)
        return frame

    def _largest_set(self) -> list[str]:
        """The methods of the letter that most of them have, the first of equals."""
        rows = self.study.runs[self.study.runs["role"] == "method"].drop_duplicates("key").set_index("key")
        methods = [str(key) for key in self.study.rows.index if key in rows.index]
        sets = [[key for key in methods if rows.at[key, "letters"] == letters] for letters in rows["letters"].unique()]
        return max(sets, key=len, default=[])

    def comparisons(self, column: str = OVERALL) -> list[Comparison]:
        """All pairs of rows but the ceiling, in the order of the tables; empty where they cannot be compared."""
        if column not in self._known:
            self._known[column] = list(self._compare(column)) if column in self.columns else []
        return self._known[column]

    def verdict(self, one: str, other: str, column: str = OVERALL) -> Verdict | None:
        """What can be said of `one` against `other`; None when they were not compared."""
        for item in self.comparisons(column):
            if (item.one, item.other) == (one, other):
                return item.verdict
            if (item.one, item.other) == (other, one):
                return REVERSED.get(item.verdict, item.verdict)
        return None

    def _compare(self, column: str) -> Iterator[Comparison]:
        rows = self.study.rows
        keys = [str(key) for key in rows.index[rows["role"] != "ceiling"]]
        letters = self.study.runs.groupby("key")["letters"].first()
        pairs = [
            (one, other)
            for one, other in combinations(keys, 2)
            if letters[one] == letters[other] and self._common(one, other)
        ]
        differences = [self.difference(one, other, column) for one, other in pairs]
        tested = [
            self._steadied(found, one, other, column) for found, (one, other) in zip(differences, pairs, strict=True)
        ]
        differs = stats.holm([item.p_differs() for item in tested])
        within = stats.holm([item.p_within(self.study.margin) for item in tested])
        for (one, other), item, judged, p_differs, p_within in zip(
            pairs, differences, tested, differs, within, strict=True
        ):
            runs = self._common(one, other)
            values = [self._by_task(list(side), column).T for side in zip(*runs, strict=True)]
            spread = float((values[0] - values[1]).mean(axis=1).std(ddof=1)) if len(runs) > 1 else np.nan
            yield Comparison(
                one=one,
                other=other,
                column=column,
                difference=item,
                tested=judged,
                effect=item.mean / spread if spread else np.nan,
                improvement=stats.improvement(*values),
                p_differs=p_differs,
                p_within=p_within,
                verdict=self.judge(item, p_differs, p_within),
                alpha=self.alpha / len(pairs),
            )

    def judge(self, difference: stats.Estimate, p_differs: float, p_within: float) -> Verdict:
        """What can be said of a difference, given its adjusted p-values."""
        if p_within < self.alpha:
            return "equivalent"
        if p_differs < self.alpha:
            return "better" if difference.mean > 0 else "worse"
        return "undecided"

    def difference(self, one: str, other: str, column: str) -> stats.Estimate:
        """One row's score less another's, over the seeds that both have."""
        runs = self._common(one, other)
        (values_S, replicates_SB), (others_S, other_SB) = (
            self._values(list(side), column) for side in zip(*runs, strict=True)
        )
        if self._is_constant(one) and self._is_constant(other):
            return stats.fixed(float(values_S[0] - others_S[0]), replicates_SB[0] - other_SB[0])
        return stats.estimate(values_S - others_S, replicates_SB - other_SB)

    def tested(self, one: str, other: str, column: str) -> stats.Estimate:
        """The difference as it is judged: it varies between seeds at least as all trained rows do."""
        return self._steadied(self.difference(one, other, column), one, other, column)

    def _steadied(self, found: stats.Estimate, one: str, other: str, column: str) -> stats.Estimate:
        if self._is_constant(one) or self._is_constant(other):
            return found
        variance, freedom = self._pooled(str(self.study.runs.loc[self._common(one, other)[0][0], "letters"]), column)
        # Two runs differ by what each of them varies.
        return found.steadied(2 * variance / found.seeds, freedom, alike=False)

    def _pooled(self, letters: str, column: str) -> tuple[float, float]:
        """The residual variance of all trained rows that were run under the same settings."""
        if (letters, column) not in self._variances:
            runs = self.study.runs
            keys = runs.loc[(runs["letters"] == letters) & (runs["role"] == "method"), "key"].unique()
            self._variances[letters, column] = self.residual_variance([str(key) for key in keys], column)
        return self._variances[letters, column]

    def contrast(self, weights: Mapping[str, float], column: str) -> stats.Estimate | None:
        """A weighted sum of the scores of trained rows, over the seeds that all of them have; None without any."""
        runs = {key: self._runs(key) for key in weights}
        seeds = sorted(set.intersection(*(set(mine) for mine in runs.values())))
        if not seeds or column not in self.columns:
            return None
        parts = {key: self._values([runs[key][seed] for seed in seeds], column) for key in weights}
        values_S = np.sum([weight * parts[key][0] for key, weight in weights.items()], axis=0)
        replicates_SB = np.sum([weight * parts[key][1] for key, weight in weights.items()], axis=0)
        return stats.estimate(values_S, replicates_SB)

    def residual_variance(self, keys: Sequence[str], column: str) -> tuple[float, float]:
        """What a run of some trained rows varies by beyond row and seed, over the seeds that all of them have.

        With its degrees of freedom, which are 0 where there is nothing to take it from.
        """
        runs = {key: self._runs(key) for key in keys}
        seeds = sorted(set.intersection(*(set(mine) for mine in runs.values()))) if runs else []
        if len(seeds) < 2 or len(keys) < 2:
            return np.nan, 0.0
        return stats.residual_variance(
            np.stack([self._values([runs[key][seed] for seed in seeds], column)[0] for key in keys])
        )

    def _common(self, one: str, other: str) -> list[tuple[str, str]]:
        """Pairs of runs of one seed; a row that no seed changes has one run for all."""
        mine, theirs = self._runs(one), self._runs(other)
        if self._is_constant(one) and mine:
            mine = dict.fromkeys(theirs, next(iter(mine.values())))
        if self._is_constant(other) and theirs:
            theirs = dict.fromkeys(mine, next(iter(theirs.values())))
        return [(mine[seed], theirs[seed]) for seed in sorted(mine.keys() & theirs.keys())]

    def _runs(self, key: str) -> dict[int, str]:
        """Seed -> run."""
        return self._runs_of_keys.get(key, {})

    @cached_property
    def _runs_of_keys(self) -> dict[str, dict[int, str]]:
        found: dict[str, dict[int, str]] = {}
        runs = self.study.runs.loc[self.scores.index]
        for run_id, key, seed in zip(map(str, runs.index), runs["key"], runs["seed"], strict=True):
            found.setdefault(str(key), {})[int(seed)] = run_id
        return found

    @cached_property
    def _places(self) -> dict[str, int]:
        """Run -> its place in `scores`."""
        return {str(run_id): place for place, run_id in enumerate(self.scores.index)}

    @cached_property
    def _columns_of_scores(self) -> dict[str, Array]:
        return {str(task): self.scores[task].to_numpy(dtype=np.float64) for task in self.scores}

    def _is_constant(self, key: str) -> bool:
        return key in self._constant

    @cached_property
    def _constant(self) -> set[str]:
        return {str(key) for key, role in self.study.rows["role"].items() if role in CONSTANT}

    def _values(self, runs: list[str], column: str) -> tuple[Array, Array]:
        """Score of each run on a column, [S], and its replicates, [S, B]."""
        places = [self._places[run] for run in runs]
        values: Array = self._by_task(runs, column).mean(axis=0)
        return values, np.mean([self.resampled[task][places] for task in self.columns[column]], axis=0)

    def _by_task(self, runs: list[str], column: str) -> Array:
        """Score of each run on each task of a column, [T, S]."""
        places = [self._places[run] for run in runs]
        return np.stack([self._columns_of_scores[task][places] for task in self.columns[column]])
