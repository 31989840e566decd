"""Scores of centred vectors: what is left of a model's score without the offset that all of its vectors share.

Cosines depend on where the origin lies. A model whose unit vectors have a long mean (an anisotropic one) gains by
having the mean taken from them, a model without such an offset does not: where the order of models is another then,
their scores compare offsets. The mean is that of the task's own texts, of documents in retrieval.
Shapes: N texts, P pairs, S width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

TINY = 1e-12

Array = NDArray[np.float32]


def unit(vectors_NS: NDArray[Any]) -> Array:
    """A copy of some vectors at unit length; zero vectors stay."""
    copy_NS: Array = np.array(vectors_NS, dtype=np.float32)
    return _scaled(copy_NS)


def centred(unit_NS: Array, mean_S: NDArray[np.float64]) -> Array:
    """Unit vectors less a mean, at unit length again. They are changed in place: documents may be many."""
    unit_NS -= mean_S.astype(np.float32)
    return _scaled(unit_NS)


def mean_of(unit_NS: Array) -> NDArray[np.float64]:
    """The mean of unit vectors, [S]."""
    mean_S: NDArray[np.float64] = unit_NS.mean(axis=0, dtype=np.float64)
    return mean_S


def _scaled(vectors_NS: Array) -> Array:
    vectors_NS /= np.maximum(np.linalg.norm(vectors_NS, axis=1, keepdims=True), TINY)
    return vectors_NS


class _OneBatch:
    """Texts as encoders under mteb's protocol get them: a data loader of one batch."""

    def __init__(self, texts: list[str]) -> None:
        self.dataset = {"text": texts}

    def __iter__(self) -> Iterator[dict[str, list[str]]]:
        yield self.dataset


def centred_correlation(encoder: Any, metadata: Any, pairs: list[tuple[str, str]], gold: Any) -> tuple[float, float]:
    """Spearman's correlation of pairs' centred cosines with their gold scores, and the length of the mean vector.

    Each distinct text counts once in the mean. Not a number where one of the two sides does not vary.
    """
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    place = {text: number for number, text in enumerate(texts)}
    vectors_NS = encoder.encode(_OneBatch(texts), task_metadata=metadata)
    around_NS = unit(vectors_NS)
    mean_S = mean_of(around_NS)
    centred(around_NS, mean_S)
    first_P, second_P = np.array([[place[text] for text in pair] for pair in pairs]).T
    cosines_P = (around_NS[first_P] * around_NS[second_P]).sum(axis=1, dtype=np.float64)
    length = float(np.linalg.norm(mean_S))
    if not np.ptp(cosines_P) or not np.ptp(gold):
        return float("nan"), length
    return float(spearmanr(cosines_P, gold).statistic), length
