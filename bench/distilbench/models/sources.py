"""What gives vectors of texts: a model folder, files of vectors, or several of these joined.

Shapes: B texts, W numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distilbench.core.hashes import key_of
from distilbench.data.vectors import TextVectors
from distilbench.models.model_folder import StoredModel

TINY = 1e-12
"""Least length that is divided by, as in torch's `normalize`."""


@dataclass(frozen=True)
class StoredVectors:
    """Vectors in files, and how many numbers of each are used."""

    name: str
    vectors: TextVectors
    truncate: int | None = None

    @property
    def width(self) -> int:
        """Numbers of each vector."""
        return min(self.vectors.width, self.truncate or self.vectors.width)

    def hashes(self) -> dict[str, str]:
        """What decides the vectors."""
        return {"weights": self.vectors.sha256, "used": key_of(columns=self.vectors.columns, width=self.width)}

    def rows(self, rows_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Some of the vectors, by their places in the files, [B, W]."""
        return np.ascontiguousarray(self.vectors.values_NW[rows_B, : self.width])


@dataclass(frozen=True)
class Joined:
    """Several of them side by side; see `join`."""

    name: str
    members: tuple[StoredModel | StoredVectors, ...]
    weights: tuple[float, ...]

    def hashes(self) -> dict[str, str]:
        """What decides the vectors."""
        return {"weights": key_of(members=[member.hashes() for member in self.members], weights=self.weights)}


Source = StoredModel | StoredVectors | Joined


def join(vectors: Sequence[NDArray[np.float32]], weights: Sequence[float]) -> NDArray[np.float32]:
    """Each source's vectors, [B, W] each, at unit length times its weight, one after the other, [B, sum of W].

    The whole has unit length again: its cosines are the means of the members', weighted by the squares of the weights.
    """
    scale = float(np.linalg.norm(weights))
    # A vector of zeros stays one.
    unit = [found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), TINY) for found in vectors]
    weighted = [part * (weight / scale) for part, weight in zip(unit, weights, strict=True)]
    return np.concatenate(weighted, axis=1).astype(np.float32, copy=False)
