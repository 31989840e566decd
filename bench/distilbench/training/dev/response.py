"""Watching students while they train: on pairs of sentences, at some shares of the budget, not charged.

The score is Spearman's correlation of the student's cosines with the pairs' own scores, or with the teacher's cosines
where the pairs have none; with it comes the student's place on the information plane. Nothing of it reaches the
training: not its random state, not its gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from distilbench.core.cache import Arrays
from distilbench.core.seeds import preserved_rng
from distilbench.data.batches import length_batches
from distilbench.data.corpus import Corpus
from distilbench.data.labelled import LabelledText
from distilbench.models.embed import tokens_per_pass
from distilbench.models.encoder import Encoder
from distilbench.models.parts.pooling import pool
from distilbench.study.budget import Budget, Ledger, phase, spent
from distilbench.training.dev.information_plane import MOST, Plane


def shares(points: int) -> tuple[float, ...]:
    """Shares of a budget, each twice the one before, up to all of it."""
    return tuple(2.0 ** (point + 1 - points) for point in range(points))


@dataclass(frozen=True)
class DevSet:
    """P pairs of sentences, how similar they are, and the plane that students are placed on."""

    corpus: Corpus
    pairs_P2: NDArray[np.int64]
    gold_P: NDArray[np.float64]
    plane: Plane

    @classmethod
    def of(cls, text: LabelledText, views: Arrays) -> DevSet:
        """Each row's anchor with each of its candidates, as the teacher sees them: `views_of` the text."""
        pairs_P2 = _pairs(text)
        gold_P = views["cosines"] if text.scores is None else text.scores.reshape(-1).astype(np.float64)
        return cls(text.corpus, pairs_P2, gold_P, Plane(views["final"], views["input"]))

    def look(self, student: Encoder, head: nn.Module | None = None) -> tuple[float, dict[str, float]]:
        """Spearman's correlation, NaN where the student's vectors are all equal; and its place on the plane.

        `head` is what would ship now.
        """
        rows = np.unique(self.pairs_P2)
        vectors_NS = _unit_vectors(self.corpus, rows, student, _final(student, head))
        similarity_P = _cosines(vectors_NS, np.searchsorted(rows, self.pairs_P2))
        if np.ptp(similarity_P) == 0 or not np.isfinite(similarity_P).all():
            return float("nan"), {}
        placed = self.plane.place(vectors_NS[np.searchsorted(rows, _some(self.pairs_P2))])
        return float(spearmanr(similarity_P, self.gold_P).statistic), placed


def views_of(text: LabelledText, teacher: Encoder) -> dict[str, NDArray[np.float64]]:
    """What a dev set takes from the teacher.

    Unit vectors of its plane's sentences, `final` and of the embedding block, `input`; and, where the text has no
    scores, the pairs' `cosines`.
    """
    pairs_P2 = _pairs(text)
    some, found = _some(pairs_P2), {}
    rows = np.unique(pairs_P2) if text.scores is None else some
    final_ND = _unit_vectors(text.corpus, rows, teacher, _final(teacher, None))
    if text.scores is None:
        found["cosines"] = _cosines(final_ND, np.searchsorted(rows, pairs_P2))
    found["final"] = final_ND[np.searchsorted(rows, some)]
    return found | {"input": _unit_vectors(text.corpus, some, teacher, _input(teacher))}


def _pairs(text: LabelledText) -> NDArray[np.int64]:
    anchors = np.repeat(text.rows_RC[:, :1], text.columns - 1, axis=1)
    return np.stack([anchors, text.rows_RC[:, 1:]], axis=-1).reshape(-1, 2)


def _some(pairs_P2: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sentences for the plane, spread over all of the pairs'."""
    rows = np.unique(pairs_P2)
    return rows[np.linspace(0, len(rows) - 1, min(MOST, len(rows))).astype(np.int64)]


def _final(model: Encoder, head: nn.Module | None) -> Callable[[Tensor, Tensor], Tensor]:
    def vectors(ids: Tensor, mask: Tensor) -> Tensor:
        final: Tensor = model(ids, mask).final
        return final if head is None else cast(Tensor, head(final))

    return vectors


def _input(model: Encoder) -> Callable[[Tensor, Tensor], Tensor]:
    def vectors(ids: Tensor, mask: Tensor) -> Tensor:
        embedded = model(ids, mask, hidden=(0,)).hidden
        assert embedded is not None
        return pool(embedded[0], mask, "mean")

    return vectors


@torch.no_grad()
def _unit_vectors(
    corpus: Corpus, rows: NDArray[np.int64], model: Encoder, vectors_of: Callable[[Tensor, Tensor], Tensor]
) -> NDArray[np.float64]:
    """Vectors of unit length for sentences in ascending order of their numbers."""
    found: Tensor | None = None
    was_training = model.training
    model.eval()
    with preserved_rng():
        for part in length_batches(rows, corpus.lengths_of(rows), tokens_per_pass(model.device)):
            ids, mask = (tensor.to(model.device) for tensor in corpus.batch(part))
            unit = F.normalize(vectors_of(ids, mask).double().cpu(), dim=-1)
            found = torch.empty(len(rows), unit.shape[1], dtype=torch.float64) if found is None else found
            found[torch.from_numpy(np.searchsorted(rows, part))] = unit
    model.train(was_training)
    assert found is not None
    return found.numpy()


def _cosines(unit_NS: NDArray[np.float64], pairs_P2: NDArray[np.int64]) -> NDArray[np.float64]:
    first, second = pairs_P2.T
    return np.asarray((unit_NS[first] * unit_NS[second]).sum(axis=1))


@dataclass
class Response:
    """How one run's dev score answers to its budget."""

    dev: DevSet | None = None
    budget: Budget | None = None
    """All of the run's budget, that of every stage together."""
    points: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def due(self, ledger: Ledger) -> bool:
        """Whether a share has been reached whose score is not there yet."""
        if self.dev is None or self.budget is None or len(self.rows) >= self.points:
            return False
        return self.budget.progress(ledger) >= shares(self.points)[len(self.rows)]

    def add(self, student: Encoder, head: nn.Module | None, ledger: Ledger) -> float:
        """Score the student as it is now, for every share that has been reached; returns the score."""
        assert self.dev is not None
        with phase(ledger, "evaluation"):
            score, placed = self.dev.look(student, head)
        amounts = {name: spent(ledger, name) for name in ("steps", "sentences", "tokens", "flops", "seconds")}
        while self.due(ledger):
            share = shares(self.points)[len(self.rows)]
            self.rows.append({"share": share, **amounts, "score": score if np.isfinite(score) else None, **placed})
        return score
