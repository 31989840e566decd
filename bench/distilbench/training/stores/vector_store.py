"""Signals of a teacher of which only vectors are known: read from its files, for the sentences of one text."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilbench.data.corpus import Corpus
from distilbench.data.vectors import TextVectors
from distilbench.training.stores.teacher_store import FINAL, TeacherStore


class VectorStore:
    """What `TeacherStore` gives, of vectors that are all there from the start."""

    def __init__(self, corpus: Corpus, vectors: TextVectors, rows_N: NDArray[np.int64]) -> None:
        """`rows_N` is where the vector of each sentence lies."""
        self.corpus, self._vectors, self._rows_N = corpus, vectors, rows_N

    @property
    def final_width(self) -> int:
        """Numbers of each vector."""
        return self._vectors.width

    def is_full(self) -> bool:
        return True

    def ensure(self, rows: NDArray[np.int64]) -> int:
        """Nothing passes a teacher."""
        return 0

    def read(self, name: str, rows: NDArray[np.int64]) -> Tensor:
        """The vectors of some sentences, [B, width], float32; `name` can only be that of the final ones."""
        if name != FINAL:
            raise ValueError(f"of stored vectors there is no {name}")
        return torch.from_numpy(np.ascontiguousarray(self._vectors.values_NW[self._rows_N[rows]]))


SignalStore = TeacherStore | VectorStore
