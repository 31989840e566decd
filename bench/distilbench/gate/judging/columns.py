"""Both sides' runs, resampled together, and how far apart they are on each column: tasks, averages and slices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from distilbench.analysis import stats
from distilbench.analysis.bootstrap import Array
from distilbench.analysis.examples import aligned, metric, replicates
from distilbench.analysis.frame import OVERALL
from distilbench.gate.baseline import Scores
from distilbench.gate.slices import members, slices

SEED = 20240
ONE_SEED = (
    "each side is one training (seed {}), and what another seed would change is not known; train both with two seeds "
    "more, or bless a baseline of several seeds"
)
NOTHING = stats.Estimate(math.nan, 0, math.nan, math.nan)


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
    runs: int = 0
    """Of the side that has fewer."""
    paired: bool = False
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
        self._resampled = replicates(known, resamples, np.random.default_rng(SEED))

    def sides(self, label: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The candidate's and the baseline's runs of a row, by seed."""
        mine = self.runs[self.runs["label"] == label]
        new, old = (mine[mine["side"] == side].set_index("seed") for side in ("new", "old"))
        return new, old

    def lines(self, label: str, *, as_models: bool = False) -> Iterator[ColumnDifference]:
        """The difference of a row on every column; without values where the sides have other examples.

        `as_models`: what is compared are two models, and not two ways to train one, of which seeds are a part.
        """
        new, old = self.sides(label)
        common = paired_seeds(new, old)
        paired = len(common) > 1 or len(common) == len(new) == len(old)
        if paired:
            new, old = new.loc[common], old.loc[common]
        alone = len(new) == len(old) == 1
        unknown = alone and not as_models and not _are_same_models(new, old)
        reason = ONE_SEED.format(", ".join(map(str, sorted({*new.index, *old.index})))) if unknown else ""
        sizes = {item.column: item.sizes for item in self.slices}
        for column, (tasks, decides) in self.columns.items():
            if self._unaligned.intersection(tasks):
                yield ColumnDifference(label, column, decides)
                continue
            item = differ(
                ColumnDifference(label, column, decides, reason=reason, examples=sizes.get(column)),
                self.values(new, tasks),
                self.values(old, tasks),
                paired=paired,
            )
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
    return replace(
        item,
        values=(float(other_S.mean()), float(one_S.mean())),
        difference=stats.estimate(one_S - other_S, one_SB - other_SB)
        if by_seed
        else stats.estimate_apart(one_S, one_SB, other_S, other_SB),
        same_code=stats.estimate_apart(other_S, other_SB, other_S, other_SB),
        runs=min(len(one_S), len(other_S)),
        paired=paired,
    )


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
