"""Batch order: a pure function of the seed, the same for every method of that seed, and open at any position.

Sentences are shuffled, cut into pools of some batches, sorted by length inside each pool and cut into batches, whose
order is shuffled again: little padding, while every batch still mixes the whole text.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BATCHES_PER_POOL = 32


class BatchOrder:
    """Batches of row numbers. An epoch visits every sentence once but for a remainder smaller than a batch."""

    def __init__(self, lengths_N: NDArray[np.int64], batch_size: int, seed: int) -> None:
        if batch_size > len(lengths_N):
            raise ValueError(f"{len(lengths_N)} sentences cannot fill a batch of {batch_size}")
        self.batch_size = batch_size
        self.batches_per_epoch = len(lengths_N) // batch_size
        self._lengths_N = lengths_N
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._order_epoch)

    def __getitem__(self, step: int) -> NDArray[np.int64]:
        """Rows of the batch at this step, [B]."""
        epoch, position = divmod(step, self.batches_per_epoch)
        rows: NDArray[np.int64] = self._epoch(epoch)[position]
        return rows

    def _order_epoch(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng((self._seed, epoch))
        rows = rng.permutation(len(self._lengths_N))[: self.batches_per_epoch * self.batch_size]
        pool = BATCHES_PER_POOL * self.batch_size
        for start in range(0, len(rows), pool):
            part = rows[start : start + pool]
            rows[start : start + pool] = part[np.argsort(self._lengths_N[part], kind="stable")]
        batches = rows.reshape(-1, self.batch_size)
        return batches[rng.permutation(len(batches))]
