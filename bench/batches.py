"""Batch order: a pure function of the seed, the same for every method of that seed, and open at any position.

Sentences are shuffled, cut into pools of some batches, sorted by length inside each pool and cut into batches, whose
order is shuffled again: little padding, while every batch still mixes the whole text.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCHES_PER_POOL = 32


class BatchOrder:
    """Batches of row numbers. An epoch visits every sentence once but for a remainder smaller than a batch."""

    def __init__(self, lengths_N: NDArray[np.integer[Any]], batch_size: int, seed: int) -> None:
        if batch_size > len(lengths_N):
            raise ValueError(f"{len(lengths_N)} sentences cannot fill a batch of {batch_size}")
        self.batch_size = batch_size
        self.batches_per_epoch = len(lengths_N) // batch_size
        # A text may have hundreds of millions of sentences: a few bytes for each of them have to do.
        self._lengths_N = lengths_N.astype(np.min_scalar_type(lengths_N.max()), copy=False)
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._order_epoch)

    def __getitem__(self, step: int) -> NDArray[np.int64]:
        """Rows of the batch at this step, [B]."""
        epoch, position = divmod(step, self.batches_per_epoch)
        batches, order = self._epoch(epoch)
        rows: NDArray[np.int64] = batches[order[position]].astype(np.int64)
        return rows

    def _order_epoch(self, epoch: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Rows of all batches of an epoch, [batches, B], and the order of the batches."""
        rng = np.random.default_rng((self._seed, epoch))
        count = len(self._lengths_N)
        everything = np.arange(count, dtype=np.min_scalar_type(count))
        rng.shuffle(everything)
        rows = everything[: self.batches_per_epoch * self.batch_size]
        pool = BATCHES_PER_POOL * self.batch_size
        for start in range(0, len(rows), pool):
            part = rows[start : start + pool]
            rows[start : start + pool] = part[np.argsort(self._lengths_N[part], kind="stable")]
        return rows.reshape(-1, self.batch_size), rng.permutation(self.batches_per_epoch)
