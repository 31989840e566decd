"""Vectors that no score should be made from: not finite, all alike, or the same for many different texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

MOST_SHARED = 0.01
"""Share of the texts that may have the vector of another one."""
DECIMALS = 5
"""Of unit vectors: what agrees up to here is one vector."""


class CollapseError(Exception):
    """The vectors, or the score made from them, say nothing about the texts."""


def check_vectors(vectors_NE: NDArray[np.float32], tokens_N: Iterable[Sequence[int]]) -> None:
    """Raise `CollapseError` for vectors that have collapsed; `tokens_N` are the token ids of each text.

    Texts of the same tokens, however often and in whatever order, count once: they may have one vector by right, as a
    static model's do.
    """
    if not np.isfinite(vectors_NE).all():
        bad = int((~np.isfinite(vectors_NE)).any(axis=1).sum())
        raise CollapseError(f"{bad} of {len(vectors_NE)} vectors are not finite")
    sets: dict[frozenset[int], int] = {}
    for place, tokens in enumerate(tokens_N):
        sets.setdefault(frozenset(tokens), place)
    if len(sets) < 2:
        return
    lengths_N1 = np.linalg.norm(vectors_NE, axis=1, keepdims=True)
    units_NE = vectors_NE / np.where(lengths_N1 > 0, lengths_N1, 1.0)
    # The sum turns -0 into 0, which has other bytes.
    rounded = np.ascontiguousarray(np.round(units_NE[list(sets.values())], DECIMALS) + 0.0)
    distinct = len({row.tobytes() for row in rounded})
    if distinct == 1:
        raise CollapseError(f"the vectors have collapsed: {len(sets)} different texts have one and the same")
    if len(sets) - distinct > MOST_SHARED * len(sets):
        raise CollapseError(
            f"the vectors have collapsed: {len(sets) - distinct} of {len(sets)} different texts have that of another"
        )
