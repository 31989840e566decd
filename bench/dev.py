"""Watching students while they train: a score on pairs of sentences at some shares of the budget, not charged.

The score is Spearman's correlation of the student's cosines with the pairs' own scores, or with the teacher's cosines
where the pairs have none. Nothing of it reaches the training: not its random state, not its gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from bench.budget import Budget, Ledger
from bench.corpus import Corpus
from bench.encoder import Encoder
from bench.labelled import LabelledText
from bench.seeds import preserved_rng
from bench.store import length_batches

TOKENS_PER_PASS = 4096


def shares(points: int) -> tuple[float, ...]:
    """Shares of a budget, each twice the one before, up to all of it."""
    return tuple(2.0 ** (point + 1 - points) for point in range(points))


@dataclass(frozen=True)
class DevSet:
    """P pairs of sentences and how similar they are."""

    corpus: Corpus
    pairs_P2: NDArray[np.int64]
    gold_P: NDArray[np.float64]

    @classmethod
    def of(cls, text: LabelledText, teacher: Encoder) -> DevSet:
        """Each row's anchor with each of its candidates."""
        anchors = np.repeat(text.rows_RC[:, :1], text.columns - 1, axis=1)
        pairs_P2 = np.stack([anchors, text.rows_RC[:, 1:]], axis=-1).reshape(-1, 2)
        if text.scores is not None:
            return cls(text.corpus, pairs_P2, text.scores.reshape(-1).astype(np.float64))
        return cls(text.corpus, pairs_P2, _similarities(text.corpus, pairs_P2, teacher, None))

    def score(self, student: Encoder, head: nn.Module | None = None) -> float:
        """Spearman's correlation, NaN where the student's vectors are all equal. `head` is what would ship now."""
        similarity_P = _similarities(self.corpus, self.pairs_P2, student, head)
        if np.ptp(similarity_P) == 0 or not np.isfinite(similarity_P).all():
            return float("nan")
        return float(spearmanr(similarity_P, self.gold_P).statistic)


@torch.no_grad()
def _similarities(
    corpus: Corpus, pairs_P2: NDArray[np.int64], model: Encoder, head: nn.Module | None
) -> NDArray[np.float64]:
    rows = np.unique(pairs_P2)
    place = np.zeros(len(corpus), dtype=np.int64)
    place[rows] = np.arange(len(rows))
    vectors: torch.Tensor | None = None
    was_training = model.training
    model.eval()
    with preserved_rng():
        for part in length_batches(rows, corpus.lengths(), TOKENS_PER_PASS):
            ids, mask = (tensor.to(model.device) for tensor in corpus.batch(part))
            final = model(ids, mask).final
            unit = F.normalize((head(final) if head is not None else final).double().cpu(), dim=-1)
            vectors = torch.empty(len(rows), unit.shape[1], dtype=torch.float64) if vectors is None else vectors
            vectors[torch.from_numpy(place[part])] = unit
    model.train(was_training)
    assert vectors is not None
    first, second = (vectors[torch.from_numpy(place[side])] for side in pairs_P2.T)
    cosines: NDArray[np.float64] = (first * second).sum(dim=-1).numpy()
    return cosines


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
        with ledger.phase("evaluation"):
            score = self.dev.score(student, head)
        spent = {name: ledger.spent(name) for name in ("steps", "sentences", "tokens", "flops", "seconds")}
        while self.due(ledger):
            share = shares(self.points)[len(self.rows)]
            self.rows.append({"share": share, **spent, "score": score if np.isfinite(score) else None})
        return score
