"""Bootstrap over examples with the metric computed anew in every resample. Pure functions; the rng is passed in.

Shapes: R runs, N examples of one task, B resamples. All runs see the same resamples, so that differences between them
are paired by example.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float32]

CHUNK = 128
"""Resamples that are worked on together: few enough for the processor's cache."""
BLOCK = 64
"""Examples whose ranks are summed up side by side: numpy's own running sum would take most of the time."""


@dataclass(frozen=True)
class TaskExamples:
    """What the runs got on the examples of one task."""

    values_RN: Array
    """Similarities of pairs, or the metric of each query."""
    gold_N: Array | None
    """Gold scores of pairs: the task's metric is then Spearman's correlation, else the mean."""

    def metric(self) -> Array:
        """The metric on all examples, [R]."""
        return self._replicate(np.ones((self.values_RN.shape[1], 1), dtype=np.float32))[:, 0]

    def replicates(self, resamples: int, rng: np.random.Generator) -> Array:
        """The metric on resampled examples, [R, B]; not-a-number where all resampled gold scores are equal."""
        chunks = [min(CHUNK, resamples - start) for start in range(0, resamples, CHUNK)]
        drawn = zip(chunks, rng.spawn(len(chunks)), strict=True)
        with ThreadPoolExecutor(cpu_count()) as pool:
            parts = list(pool.map(lambda item: self._replicate(_draw(self.values_RN.shape[1], *item)), drawn))
        return np.concatenate(parts, axis=1)

    def _replicate(self, counts_NB: Counts) -> Array:
        if self.gold_N is None:
            means: Array = self.values_RN @ counts_NB.astype(np.float64) / self.values_RN.shape[1]
            return means
        return spearman(self.values_RN, self.gold_N, counts_NB)


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
    gold_ranks_NB, gold_ties_B = _centred_ranks(gold_N, counts_NB)
    shares_NB = counts_NB / np.float32(len(gold_N))
    covariances = _Covariances(shares_NB, gold_ranks_NB * shares_NB)
    found = np.empty((len(values_RN), counts_NB.shape[1]))
    for run, values_N in enumerate(values_RN):
        covariance_B, ties_B = covariances(values_N)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[run] = 12 * covariance_B / np.sqrt((1 - ties_B) * (1 - gold_ties_B))
    return found


class _Covariances:
    """Sums over the examples of each resample: of rank times weighted gold rank, and of the cubed sizes of ties.

    Ranks and sizes are divided by N. The gold ranks are centred, so those of the values need not be.
    """

    def __init__(self, shares_NB: Counts, gold_NB: Counts) -> None:
        self.count, width = shares_NB.shape
        self.shares_NB, self.gold_NB = shares_NB, gold_NB
        padded = -(-self.count // BLOCK) * BLOCK
        # A last row of zeros fills the blocks up. Buffers are kept: fresh memory would cost more than the sums.
        zeros = np.zeros((1, width), dtype=np.float32)
        self.padded_shares, self.padded_gold = (np.concatenate([part, zeros]) for part in (shares_NB, gold_NB))
        self.shares, self.gold, self.ranks = (np.empty((padded, width), dtype=np.float32) for _ in range(3))
        self.untied_B = (shares_NB**3).sum(axis=0)
        # The product with half of an example's own share does not depend on the order.
        self.own_B = np.einsum("nb,nb->b", shares_NB, gold_NB) / 2

    def __call__(self, values_N: Array) -> tuple[Sums, Sums]:
        order_N = np.argsort(values_N, kind="stable")
        index = np.full(len(self.shares), self.count)
        index[: self.count] = order_N
        # One step of the running sum is then one sum of long rows: the first of each block, the second, and so on.
        index = index.reshape(-1, BLOCK).T.ravel()
        np.take(self.padded_shares, index, axis=0, out=self.shares, mode="clip")
        np.take(self.padded_gold, index, axis=0, out=self.gold, mode="clip")
        self._sum_up()
        covariance_B = np.einsum("nb,nb->b", self.ranks, self.gold) - self.own_B
        starts_G = _starts(values_N[order_N])
        if len(starts_G) == self.count:
            return covariance_B, self.untied_B
        sizes_G = np.diff([*starts_G, self.count])
        return self._with_ties(covariance_B, order_N[np.repeat(sizes_G > 1, sizes_G)], sizes_G[sizes_G > 1])

    def _sum_up(self) -> None:
        """Running sums of the shares, in the order of the index."""
        steps, sums = (part.reshape(BLOCK, -1) for part in (self.shares, self.ranks))
        sums[0] = steps[0]
        for step in range(1, BLOCK):
            np.add(sums[step - 1], steps[step], out=sums[step])
        blocks = sums[-1].reshape(-1, self.shares.shape[1])
        before = np.cumsum(blocks, axis=0) - blocks
        sums += before.ravel()

    def _with_ties(
        self, covariance_B: Sums, tied_M: npt.NDArray[np.int64], sizes_G: npt.NDArray[np.int64]
    ) -> tuple[Sums, Sums]:
        """Put the middle rank of its tie in the place of each of M tied examples' own."""
        shares, gold = self.shares_NB[tied_M], self.gold_NB[tied_M]
        starts_G = np.cumsum(sizes_G) - sizes_G
        tie_shares, tie_gold = (np.add.reduceat(part, starts_G, axis=0) for part in (shares, gold))
        sums = np.cumsum(shares, axis=0)
        within = sums - np.repeat(sums[starts_G] - shares[starts_G], sizes_G, axis=0) - shares / 2
        correction_B = (tie_shares * tie_gold / 2).sum(axis=0) - (within * gold).sum(axis=0)
        ties_B = self.untied_B + (tie_shares**3).sum(axis=0) - (shares**3).sum(axis=0)
        return covariance_B + correction_B, ties_B


def _centred_ranks(values_N: Array, counts_NB: Counts) -> tuple[Counts, Sums]:
    """Mid-ranks in each resample, less their mean, divided by N, [N, B]; and the sum over ties of (size / N)^3, [B]."""
    count = len(values_N)
    order_N = np.argsort(values_N, kind="stable")
    starts_G = _starts(values_N[order_N])
    sizes_GB = np.add.reduceat(counts_NB[order_N], starts_G, axis=0) / np.float32(count)
    ranks_GB = (np.cumsum(sizes_GB, axis=0) - sizes_GB / 2 - 0.5).astype(np.float32)
    group_N = np.empty(count, dtype=np.int64)
    group_N[order_N] = np.repeat(np.arange(len(starts_G)), np.diff([*starts_G, count]))
    ties_B: Sums = (sizes_GB**3).sum(axis=0)
    return ranks_GB[group_N], ties_B


def _starts(sorted_N: Array) -> npt.NDArray[np.int64]:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate([[True], sorted_N[1:] != sorted_N[:-1]]))
