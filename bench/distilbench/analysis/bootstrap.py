"""Bootstrap over examples with the metric computed anew in every resample. Pure functions; the rng is passed in.

Shapes: R runs, N examples of one task, B resamples. All runs see the same resamples, so that differences between them
are paired by example.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float32]

CHUNK = 1024
"""Resamples that are worked on together: so many that threads seldom wait for each other's next step."""
DRAWN_AT_ONCE = 256
"""Resamples that are drawn together: the numbers of their examples take many times the memory of what is kept."""
BLOCKS = 80
"""Of examples that are summed up side by side: a running sum over all of them would take most of the time."""


@dataclass(frozen=True)
class TaskExamples:
    """What the runs got on the examples of one task."""

    values_RN: Array
    """Similarities of pairs, or the metric of each query."""
    gold_N: Array | None
    """Gold scores of pairs: the task's metric is then Spearman's correlation, else the mean."""
    classified: bool = False
    """Whether the gold scores are 0 and 1, and the metric is the average precision."""
    split: str = ""
    names_N: npt.NDArray[np.object_] | None = None
    """What the examples are called, where that is known."""

    def metric(self) -> Array:
        """The metric on all examples, [R]."""
        return self.counted(np.ones((self.values_RN.shape[1], 1), dtype=np.float32))[:, 0]

    def replicates(self, resamples: int, rng: np.random.Generator) -> Array:
        """The metric on resampled examples, [R, B]; not-a-number where all resampled gold scores are equal."""
        sizes = [min(DRAWN_AT_ONCE, resamples - start) for start in range(0, resamples, DRAWN_AT_ONCE)]
        draws = list(zip(sizes, rng.spawn(len(sizes)), strict=True))
        count, together = self.values_RN.shape[1], CHUNK // DRAWN_AT_ONCE

        def scored(start: int) -> Array:
            drawn = [_draw(count, *draw) for draw in draws[start : start + together]]
            return self.counted(np.concatenate(drawn, axis=1))

        with ThreadPoolExecutor(cpu_count()) as pool:
            return np.concatenate(list(pool.map(scored, range(0, len(draws), together))), axis=1)

    def counted(self, counts_NB: Counts) -> Array:
        """The metric where each example counts as often as told, N times in all, [R, B]."""
        if self.gold_N is None:
            means: Array = self.values_RN @ counts_NB.astype(np.float64) / self.values_RN.shape[1]
            return means
        measure = average_precision if self.classified else spearman
        return measure(self.values_RN, self.gold_N, counts_NB)


def _draw(count: int, resamples: int, rng: np.random.Generator) -> Counts:
    """How often each example is in each resample of `count` examples, [N, B]."""
    chosen = rng.integers(0, count, size=(resamples, count)) + np.arange(resamples)[:, None] * count
    counts_BN = np.bincount(chosen.ravel(), minlength=resamples * count).reshape(resamples, count)
    return np.ascontiguousarray(counts_BN.T, dtype=np.float32)


def spearman(values_RN: Array, gold_N: Array, counts_NB: Counts) -> Array:
    """Spearman's correlation of each run's values with the gold in each resample, [R, B].

    An example that is drawn w times counts as w tied examples. With ranks divided by N, the variance of ranks is
    (1 - sum over ties of (size / N)^3) / 12, and only the covariance is left to be summed.
    """
    gold_ranks_KB, group_N, gold_ties_B = _centred_ranks(gold_N, counts_NB)
    covariances = _Covariances(counts_NB, gold_ranks_KB, group_N)
    correlations = np.empty((len(values_RN), counts_NB.shape[1]))
    for run, values_N in enumerate(values_RN):
        covariance_B, ties_B = covariances(values_N)
        with np.errstate(invalid="ignore", divide="ignore"):
            correlations[run] = 12 * covariance_B / np.sqrt((1 - ties_B) * (1 - gold_ties_B))
    return correlations


def average_precision(values_RN: Array, gold_N: Array, counts_NB: Counts) -> Array:
    """Average precision of each run's values, of which the true examples should have more, in each resample, [R, B].

    As scikit-learn's: equal values are one step. Not-a-number where no true example is drawn.
    """
    precisions = np.empty((len(values_RN), counts_NB.shape[1]))
    for run, values_N in enumerate(values_RN):
        order_N = np.argsort(-values_N, kind="stable")
        starts_G, gold_N1 = _starts(values_N[order_N]), (gold_N[order_N] == 1)[:, None]
        for start in range(0, counts_NB.shape[1], DRAWN_AT_ONCE):
            part = slice(start, start + DRAWN_AT_ONCE)
            drawn_NB = counts_NB[order_N, part].astype(np.float64)
            true_GB = np.add.reduceat(drawn_NB * gold_N1, starts_G, axis=0)
            all_GB = np.cumsum(np.add.reduceat(drawn_NB, starts_G, axis=0), axis=0)
            found_GB = np.cumsum(true_GB, axis=0)
            with np.errstate(invalid="ignore"):
                precisions[run, part] = (true_GB * found_GB / np.maximum(all_GB, 1)).sum(axis=0) / found_GB[-1]
    return precisions


class _Covariances:
    """Sums over the examples of each resample: of rank times weighted gold rank, and of the cubed sizes of ties.

    Ranks and sizes are divided by N. The gold ranks, one row for each of K values, are centred, so those of the values
    need not be.
    """

    def __init__(self, counts_NB: Counts, gold_KB: Counts, group_N: npt.NDArray[np.int64]) -> None:
        self.count, width = counts_NB.shape
        self.block = -(-self.count // BLOCKS)
        self.blocks = -(-self.count // self.block)
        # Small counts and few gold values are gathered several times faster than their products. A last example that
        # is never drawn fills the blocks up. Buffers are kept: fresh memory would cost more than the sums.
        self.drawn = np.zeros((self.count + 1, width), dtype=np.uint8 if counts_NB.max() < 256 else np.float32)
        self.drawn[:-1] = counts_NB
        self.gold_KB, self.group_N = gold_KB, np.append(group_N, 0)
        self.step = np.empty((self.blocks, width), dtype=self.drawn.dtype)
        self.buffers = [np.empty((self.blocks, width), dtype=np.float32) for _ in range(5)]
        shares_NB = counts_NB / np.float32(self.count)
        self.untied_B = _cubes(shares_NB)
        # The product with half of an example's own share does not depend on the order.
        self.own_B = np.einsum("nb,nb,nb->b", shares_NB, shares_NB, gold_KB[group_N]) / 2

    def __call__(self, values_N: Array) -> tuple[Sums, Sums]:
        order_N = np.argsort(values_N, kind="stable")
        covariance_B = self._covariance(order_N) - self.own_B
        starts_G = _starts(values_N[order_N])
        if len(starts_G) == self.count:
            return covariance_B, self.untied_B
        sizes_G = np.diff(starts_G, append=self.count)
        return self._with_ties(covariance_B, order_N[np.repeat(sizes_G > 1, sizes_G)], sizes_G[sizes_G > 1])

    def _covariance(self, order_N: npt.NDArray[np.int64]) -> Sums:
        """Sum of running shares, each example's own included, times gold."""
        index = np.full(self.blocks * self.block, self.count)
        index[: self.count] = order_N
        for part in self.buffers:
            part.fill(0)
        ranks, gold, products, drawn, ranked = self.buffers
        # All blocks side by side: one step is the first example of each, the next the second, and so on.
        for examples in index.reshape(-1, self.block).T:
            np.take(self.drawn, examples, axis=0, out=self.step, mode="clip")
            np.copyto(drawn, self.step)
            ranks += drawn
            np.take(self.gold_KB, self.group_N[examples], axis=0, out=ranked, mode="clip")
            drawn *= ranked
            gold += drawn
            drawn *= ranks
            products += drawn
        before = np.cumsum(ranks, axis=0) - ranks
        covariance: Sums = products.sum(axis=0) + np.einsum("gb,gb->b", before, gold)
        return covariance / np.float32(self.count) ** 2

    def _with_ties(
        self, covariance_B: Sums, tied_M: npt.NDArray[np.int64], sizes_G: npt.NDArray[np.int64]
    ) -> tuple[Sums, Sums]:
        """Put the middle rank of its tie in the place of each of M tied examples' own."""
        shares = self.drawn[tied_M] / np.float32(self.count)
        gold = self.gold_KB[self.group_N[tied_M]] * shares
        starts_G = np.cumsum(sizes_G) - sizes_G
        tie_shares, tie_gold = (np.add.reduceat(part, starts_G, axis=0) for part in (shares, gold))
        sums = np.cumsum(shares, axis=0)
        within = sums - np.repeat(sums[starts_G] - shares[starts_G], sizes_G, axis=0) - shares / 2
        correction_B = (tie_shares * tie_gold / 2).sum(axis=0) - (within * gold).sum(axis=0)
        ties_B = self.untied_B + _cubes(tie_shares) - _cubes(shares)
        return covariance_B + correction_B, ties_B


def _centred_ranks(values_N: Array, counts_NB: Counts) -> tuple[Counts, npt.NDArray[np.int64], Sums]:
    """Mid-ranks of K distinct values in each resample, less their mean, divided by N, [K, B]; which of the values each
    example has, [N]; and the sum over ties of (size / N)^3, [B]."""
    count = len(values_N)
    order_N = np.argsort(values_N, kind="stable")
    starts_K = _starts(values_N[order_N])
    sizes_KB = np.add.reduceat(counts_NB[order_N], starts_K, axis=0) / np.float32(count)
    ranks_KB = (np.cumsum(sizes_KB, axis=0) - sizes_KB / 2 - 0.5).astype(np.float32)
    group_N = np.empty(count, dtype=np.int64)
    group_N[order_N] = np.repeat(np.arange(len(starts_K)), np.diff(starts_K, append=count))
    return ranks_KB, group_N, _cubes(sizes_KB)


def _cubes(sizes: npt.NDArray[np.floating[Any]]) -> Sums:
    """Sum of cubes over the rows, [B]; a float32's power takes ten times as long as its products."""
    cubes: Sums = np.einsum("gb,gb,gb->b", sizes, sizes, sizes)
    return cubes


def _starts(sorted_N: Array) -> npt.NDArray[np.int64]:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate([[True], sorted_N[1:] != sorted_N[:-1]]))
