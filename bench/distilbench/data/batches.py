"""Which rows pass a model together: the order of a training's batches, and batches for passes without gradient.

The order is a pure function of the seed, the same for every method of that seed, and open at any position. Sentences
are shuffled, cut into pools of some batches, sorted by length inside each pool and cut into batches, whose order is
shuffled again: little padding, while every batch still mixes the whole text, and no two epochs have the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCHES_PER_POOL = 32
LEAST_POOLS = 4
"""Of an epoch, however small the text: in one pool of all sentences, the same ones would always meet."""
LEAST_ROWS = 2
"""Of a training's batch: many losses compare a row with the others."""


def batches_per_pool(count: int, batch_size: int) -> int:
    """Batches among which so many sentences are sorted by length."""
    return max(1, min(BATCHES_PER_POOL, count // (LEAST_POOLS * batch_size)))


class BatchOrder:
    """Batches of row numbers. An epoch visits every sentence once but for a remainder smaller than a batch."""

    def __init__(
        self, lengths_N: NDArray[np.integer[Any]], batch_size: int, seed: int, batch_tokens: int | None = None
    ) -> None:
        """Batches of `batch_size` rows; with `batch_tokens`, of as many as fit in them when padded, up to that size.

        However long they are, two rows make a batch, and three where one would be left over.
        """
        if batch_size > len(lengths_N):
            raise ValueError(f"{len(lengths_N)} sentences cannot fill a batch of {batch_size}")
        self.batch_size, self._batch_tokens = batch_size, batch_tokens
        # A text may have hundreds of millions of sentences: a few bytes for each of them have to do.
        self._lengths_N = lengths_N.astype(np.min_scalar_type(lengths_N.max()), copy=False)
        self._seed = seed
        self._ends: list[int] = []
        """The steps before which the first epochs end."""
        self._epoch = lru_cache(maxsize=2)(self._order_epoch)

    def __getitem__(self, step: int) -> NDArray[np.int64]:
        """Rows of the batch at this step, [B]."""
        epoch, position = self._place(step)
        everything, starts, order = self._epoch(epoch)
        number = order[position]
        rows: NDArray[np.int64] = everything[starts[number] : starts[number + 1]].astype(np.int64)
        return rows

    def batches_in_epoch(self, step: int) -> int:
        """Batches of the epoch that a step belongs to."""
        if self._batch_tokens is None:
            return len(self._lengths_N) // self.batch_size
        epoch, _ = self._place(step)
        return len(self._epoch(epoch)[2])

    def _place(self, step: int) -> tuple[int, int]:
        """The epoch of a step, and the step's number in it."""
        if self._batch_tokens is None:
            return divmod(step, len(self._lengths_N) // self.batch_size)
        # How many batches an epoch has depends on which sentences meet in its pools.
        while not self._ends or self._ends[-1] <= step:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self._epoch(len(self._ends))[2]))
        epoch = int(np.searchsorted(self._ends, step, side="right"))
        return epoch, step - (self._ends[epoch - 1] if epoch else 0)

    def _order_epoch(self, epoch: int) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
        """All rows in the order of their batches, where each of these starts and the last ends, and their order."""
        rng = np.random.default_rng((self._seed, epoch))
        count = len(self._lengths_N)
        everything = np.arange(count, dtype=np.min_scalar_type(count))
        rng.shuffle(everything)
        if self._batch_tokens is None:
            everything = everything[: count - count % self.batch_size]
        pool = batches_per_pool(count, self.batch_size) * self.batch_size
        starts = [0]
        for start in range(0, len(everything), pool):
            part = everything[start : start + pool]
            part = part[np.argsort(self._lengths_N[part], kind="stable")]
            everything[start : start + pool] = part
            starts.extend(start + self._ends_of_batches(self._lengths_N[part].astype(np.int64)))
        if starts[-1] - starts[-2] < LEAST_ROWS:
            starts.pop()
        return everything, np.array(starts), rng.permutation(len(starts) - 1)

    def _ends_of_batches(self, lengths_R: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the batches of a pool, in the order of its lengths, end."""
        if self._batch_tokens is None:
            return np.arange(self.batch_size, len(lengths_R) + 1, self.batch_size)
        return np.cumsum(list(_sizes(lengths_R, self._batch_tokens, LEAST_ROWS, self.batch_size)))


def length_batches(rows: NDArray[np.int64], lengths_R: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Rows, of which `lengths_R` are the lengths, sorted by them, in batches of at most `tokens` padded tokens (or one
    row)."""
    order = np.argsort(lengths_R, kind="stable")
    ordered, start = rows[order], 0
    for size in _sizes(lengths_R[order], tokens, 1, len(rows)):
        yield ordered[start : start + size]
        start += size


def _sizes(lengths_R: NDArray[np.int64], tokens: int, least: int, most: int) -> Iterator[int]:
    """How many rows, in rising order of length, fit in each batch of so many tokens when padded to the longest."""
    start = 0
    while start < len(lengths_R):
        # A text may have no token at all.
        size = max(least, min(most, tokens // max(1, int(lengths_R[start]))))
        while size > least and size * int(lengths_R[min(start + size, len(lengths_R)) - 1]) > tokens:
            size -= 1
        size = min(size, len(lengths_R) - start)
        if 0 < (left := len(lengths_R) - start - size) < least:
            # A last batch that were too small gets rows of this one, or goes into it.
            size = size - (least - left) if size + left >= 2 * least else min(size + left, most)
        yield size
        start += size
