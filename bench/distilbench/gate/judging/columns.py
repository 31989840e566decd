"""Both sides' runs, resampled together, and how far apart they are on each column: tasks, averages and slices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from distilbench.analysis import stats
from distilbench.analysis.bootstrap import Array, TaskExamples
from distilbench.analysis.examples import aligned, metric, replicates
from distilbench.analysis.frame import OVERALL
from distilbench.analysis.shared_texts import together
from distilbench.gate.baseline import Scores
from distilbench.gate.slices import members, slices
from distilbench.records.example_texts import of_data

SEED = 20240
ALL_ROWS = "(all rows)"
"""Stands for the mean over the rows: what lowers all of them shows there first."""
ONE_SEED = (
    "each side is one training (seed {}), and what another seed would change is not known; train both with two seeds "
    "more, or bless a baseline of several seeds"
)
NOTHING = stats.Estimate(math.nan, 0, math.nan, math.nan)


@dataclass(frozen=True)
class Spread:
    """How the runs vary that a difference is made from."""

    residuals: Array
    """Of each seed's difference where they are paired; else of each run from the mean of its side."""
    freedom: int
    """Degrees of freedom between seeds; 0 where there is no other seed, or seeds have no part."""
    scale: float
    """The variance of the difference, in that of a residual's: 1 over the pairs, or 1 over each side's runs, summed."""
    replicates: Array
    """Of the difference, [B]."""
    seeds: tuple[int, ...] = ()
    """Of the candidate, then of the baseline; rows that have the same ones can be averaged by seed."""
    weights: tuple[float, ...] = ()
    """Of the rows, in their mean."""

    @property
    def variance(self) -> float:
        """Between seeds; pooled over both sides where they are not paired. 0 where it is not known."""
        return float(np.square(self.residuals).sum()) / self.freedom if self.freedom else 0.0


NO_SPREAD = Spread(np.zeros(0), 0, 0.0, np.zeros(1))


@dataclass(frozen=True)
class ColumnDifference:
    """A row on a column, not yet judged."""

    label: str
    column: str
    decides: bool
    values: tuple[float, float] = (math.nan, math.nan)
    """Of the baseline and of the candidate."""
    difference: stats.Estimate = NOTHING
    same_code: stats.Estimate = NOTHING
    """What the difference would be if only the seeds were fresh, by the baseline's own spread."""
    fresh: Spread = NO_SPREAD
    """How the runs would then vary."""
    runs: int = 0
    """Of the side that has fewer."""
    paired: bool = False
    spread: Spread = NO_SPREAD
    reason: str = ""
    """Why its error is not known."""
    examples: dict[str, int] | None = None
    """Of a slice: task -> its examples."""

    @property
    def is_known(self) -> bool:
        """Whether the difference has an error."""
        return math.isfinite(self.difference.error)


class ResampledRuns:
    """Both sides' runs, resampled together; `runs` may be cut down afterwards, to compare some of them."""

    def __init__(self, candidate: Scores, baseline: Scores, tasks: list[str], resamples: int) -> None:
        sides = {"new": candidate, "old": baseline}
        self.runs = pd.concat(
            [side.runs.assign(side=name, run=f"{name}:" + side.runs.index) for name, side in sides.items()]
        )
        self.scores = pd.concat(
            [side.scores.set_axis(f"{name}:" + side.scores.index, axis=0) for name, side in sides.items()]
        )[tasks]
        examples = pd.concat(
            [side.examples.assign(run_id=f"{name}:" + side.examples["run"]) for name, side in sides.items()]
        )
        known = aligned(examples[examples["task"].isin(tasks)], self.scores)
        self._unaligned = {task for task in tasks if task not in known}
        kinds = {task: str(baseline.tasks[task]["type"]) for task in tasks}
        self.columns = _columns(kinds)
        kinds = {task: kind for task, kind in kinds.items() if task in known}
        self.slices = slices(members(baseline), examples, kinds, list(self.scores.index))
        for item in self.slices:
            parts = {f"{task}: {item.column}": splits for task, splits in item.examples.items()}
            self.scores = self.scores.assign(**{name: metric(splits) for name, splits in parts.items()})
            self.columns |= {item.column: (list(parts), False)} if parts else {}
            known |= parts
        more = self._together(known, candidate, baseline, resamples)
        apart = replicates(known, resamples, np.random.default_rng(SEED))
        self._resampled = {name: part_RB + more.get(name, 0.0) for name, part_RB in apart.items()}

    def _together(
        self, known: Mapping[str, Sequence[TaskExamples]], candidate: Scores, baseline: Scores, resamples: int
    ) -> dict[str, Array]:
        """What examples that share texts cause together, of tasks and of slices, [R, B].

        Slices each by itself: what they share with the task, and with each other, is the same examples.
        """
        if candidate.example_texts is None:
            return {}
        data = {(str(task), str(facts["data_sha256"])) for task, facts in baseline.tasks.items()}
        texts = of_data(candidate.example_texts, data)
        tasks = {task: known[task] for task in known if task in baseline.tasks}
        found = together(tasks, texts, resamples, np.random.default_rng(SEED))
        for item in self.slices:
            more = together(item.examples, texts, resamples, np.random.default_rng(SEED))
            found |= {f"{task}: {item.column}": part_RB for task, part_RB in more.items()}
        return found

    def sides(self, label: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The candidate's and the baseline's runs of a row, by seed."""
        mine = self.runs[self.runs["label"] == label]
        new, old = (mine[mine["side"] == side].set_index("seed") for side in ("new", "old"))
        return new, old

    def lines(self, labels: Sequence[str], *, as_models: bool = False) -> Iterator[ColumnDifference]:
        """The differences of rows on every column; without values where the sides have other examples.

        `as_models`: what is compared are two models, and not two ways to train one, of which seeds are a part.
        """
        sizes = {item.column: item.sizes for item in self.slices}
        for label in labels:
            new, old = self.sides(label)
            common = paired_seeds(new, old)
            paired = len(common) > 1 or len(common) == len(new) == len(old)
            if paired:
                new, old = new.loc[common], old.loc[common]
            unknown = len(new) == len(old) == 1 and not as_models and not _are_same_models(new, old)
            reason = ONE_SEED.format(", ".join(map(str, sorted({*new.index, *old.index})))) if unknown else ""
            for column, (tasks, decides) in self.columns.items():
                item = ColumnDifference(label, column, decides)
                if not self._unaligned.intersection(tasks):
                    item = replace(item, reason=reason, examples=sizes.get(column))
                    item = differ(item, self.values(new, tasks), self.values(old, tasks), paired=paired)
                    spread = replace(item.spread, seeds=(*new.index, *old.index))
                    fresh = replace(item.fresh, seeds=(*old.index, *old.index))
                    item = replace(item, spread=spread, fresh=fresh)
                yield item

    def values(self, runs: pd.DataFrame, tasks: list[str]) -> tuple[Array, Array]:
        """Score of some runs on the mean of some tasks, [S], and its replicates, [S, B]."""
        places = self.scores.index.get_indexer(pd.Index(runs["run"]))
        values: Array = self.scores.iloc[places][tasks].mean(axis=1).to_numpy(dtype=np.float64)
        return values, np.mean([self._resampled[task][places] for task in tasks], axis=0)


def differ(
    item: ColumnDifference, one: tuple[Array, Array], other: tuple[Array, Array], *, paired: bool
) -> ColumnDifference:
    """A row on a column with the difference of two sides, the candidate's first: scores [S], replicates [S, B].

    `paired`: by seed. An item with a reason has an error that is not known.
    """
    (one_S, one_SB), (other_S, other_SB) = one, other
    by_seed = (paired and len(one_S) > 1) or bool(item.reason)
    spread = _spread(one, other, by_seed=by_seed)
    if by_seed:
        difference = stats.estimate(one_S - other_S, one_SB - other_SB)
    else:
        difference = stats.estimate_apart(one_S, one_SB, other_S, other_SB)
        if spread.freedom:
            pooled = spread.variance * spread.scale
            difference = replace(difference, seed_variance=pooled, seed_freedom=float(spread.freedom))
    return replace(
        item,
        values=(float(other_S.mean()), float(one_S.mean())),
        difference=difference,
        same_code=stats.estimate_apart(other_S, other_SB, other_S, other_SB),
        fresh=_spread(other, other, by_seed=False),
        runs=min(len(one_S), len(other_S)),
        paired=paired,
        spread=spread,
    )


def _spread(one: tuple[Array, Array], other: tuple[Array, Array], *, by_seed: bool) -> Spread:
    (one_S, one_SB), (other_S, other_SB) = one, other
    replicates_B = one_SB.mean(axis=0) - other_SB.mean(axis=0)
    if by_seed:
        difference_S = one_S - other_S
        return Spread(difference_S - difference_S.mean(), len(one_S) - 1, 1 / len(one_S), replicates_B)
    residuals = np.concatenate([one_S - one_S.mean(), other_S - other_S.mean()])
    return Spread(residuals, len(residuals) - 2, 1 / len(one_S) + 1 / len(other_S), replicates_B)


def paired_seeds(new: pd.DataFrame, old: pd.DataFrame) -> list[int]:
    """The seeds that both sides have, of which they read the same batches."""
    common = sorted({*new.index} & {*old.index})
    same = old.loc[common, "batches"].notna() & (new.loc[common, "batches"] == old.loc[common, "batches"])
    return [int(seed) for seed in same.index[same]]


def _are_same_models(new: pd.DataFrame, old: pd.DataFrame) -> bool:
    """Whether each side is one run, and both gave the same weights."""
    (one,), (other,) = new["weights"], old["weights"]
    return one is not None and one == other


def _columns(kinds: dict[str, str]) -> dict[str, tuple[list[str], bool]]:
    """Name -> tasks, and whether it decides. What has the same tasks is one column, under its most specific name."""
    named = [(task, [task], False) for task in kinds]
    for kind in dict.fromkeys(kinds.values()):
        named.append((f"{kind} average", [task for task in kinds if kinds[task] == kind], True))
    by_tasks: dict[tuple[str, ...], tuple[str, bool]] = {}
    for name, tasks, decides in [*named, (OVERALL, list(kinds), True)]:
        first, before = by_tasks.get(tuple(tasks), (name, False))
        by_tasks[tuple(tasks)] = (first, before or decides)
    return {name: (list(tasks), decides) for tasks, (name, decides) in by_tasks.items()}
