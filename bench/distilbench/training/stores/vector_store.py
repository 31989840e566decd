"""Signals of a teacher of which only vectors are known: read from its files, or joined from several teachers'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilbench.data.corpus import Corpus
from distilbench.models.sources import StoredVectors, join
from distilbench.training.stores.teacher_store import FINAL, TeacherStore


class VectorStore:
    """What `TeacherStore` gives, of vectors that are all there from the start."""

    def __init__(self, corpus: Corpus, source: StoredVectors, rows_N: NDArray[np.int64]) -> None:
        """`rows_N` is where the vector of each sentence lies."""
        self.corpus, self._source, self._rows_N = corpus, source, rows_N

    @property
    def final_width(self) -> int:
        """Numbers of each vector."""
        return self._source.width

    def is_full(self) -> bool:
        return True

    def ensure(self, rows: NDArray[np.int64]) -> int:
        """Nothing passes a teacher."""
        return 0

    def read(self, name: str, rows: NDArray[np.int64]) -> Tensor:
        """The vectors of some sentences, [B, width], float32; `name` can only be that of the final ones."""
        _check_final(name)
        return torch.from_numpy(self._source.rows(self._rows_N[rows]))


class JoinedStore:
    """What `TeacherStore` gives, of vectors that are joined when they are read."""

    def __init__(self, corpus: Corpus, parts: Sequence[SignalStore], weights: Sequence[float]) -> None:
        self.corpus, self._parts, self._weights = corpus, parts, weights

    @property
    def final_width(self) -> int:
        """Numbers of each vector."""
        return sum(part.final_width for part in self._parts)

    def is_full(self) -> bool:
        return all(part.is_full() for part in self._parts)

    def ensure(self, rows: NDArray[np.int64]) -> int:
        """Compute what is missing for some rows, and return how many sentences passed all teachers together."""
        return sum(part.ensure(rows) for part in self._parts)

    def read(self, name: str, rows: NDArray[np.int64]) -> Tensor:
        """The joined vectors of some sentences, [B, width], float32; `name` can only be that of the final ones."""
        _check_final(name)
        return torch.from_numpy(join([part.read(name, rows).numpy() for part in self._parts], self._weights))


SignalStore = TeacherStore | VectorStore | JoinedStore


def _check_final(name: str) -> None:
    if name != FINAL:
        raise ValueError(f"of vectors alone there is no {name}")
