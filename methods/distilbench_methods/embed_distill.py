"""Match the teacher's vectors of queries and of documents, and its scores of all pairs of the batch.

Source: Kim et al. 2023, arXiv:2301.12005, EmbedDistill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilbench_methods.base import (
    Dims,
    Method,
    Needs,
    Signals,
    check_not_negative,
    check_one_of,
    check_positive,
    matmul_flops,
)
from distilbench_methods.functional import in_batch_scores, in_full_precision, projection, projection_flops, unit
from distilbench_methods.mse import METRICS, Metric
from distilbench_methods.simdist import similarity_cross_entropy
from distilbench_methods.space import Choice, Space, Span, space


@in_full_precision
def one_hot_cross_entropy(scores_BBK: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding each anchor's own first candidate among all of the batch, a scalar.

    -(1/B) sum_i log( exp(s_ii0 / tau) / sum_jk exp(s_ijk / tau) ); s_ijk is of anchor i and row j's candidate k.
    """
    rows, _, count = scores_BBK.shape
    own_B = torch.arange(rows, device=scores_BBK.device) * count
    return F.cross_entropy(scores_BBK.flatten(1) / temperature, own_B)


@dataclass(frozen=True, kw_only=True)
class EmbedDistill(Method):
    """Embedding matching beside score distillation, for retrieval."""

    name: ClassVar[str] = "embed-distill"
    source: ClassVar[str] = (
        "Kim et al. 2023, arXiv:2301.12005, from one dual encoder to another: the distance to the teacher's vectors of "
        "queries (eq. 7) and of documents (eq. 8), through one projection that is dropped at export, the softmax "
        "cross-entropy between the teacher's and the student's scores of a batch's documents (eq. 11), and that of the "
        "labels (eq. 9), with weights of 1. Queries are the anchors of the labelled text, documents its candidates. "
        "One student encodes both, so that its documents are matched, where the paper's asymmetric students take the "
        "teacher's; cross-encoders as teachers and generated queries are left out. Scores are cosines."
    )
    unverified: ClassVar[str] = (
        "The paper's abstract was at hand, and its equations as a second reading and the sentence-transformers library "
        "have them. The temperature was not found; it is ours."
    )
    search_space: ClassVar[Space] = space(
        contrastive_weight=Span(0.1, 10.0, log=True),
        score_weight=Span(0.1, 10.0, log=True),
        query_weight=Span(0.1, 10.0, log=True),
        document_weight=Span(0.1, 10.0, log=True),
        temperature=Span(0.01, 0.5, log=True),
        metric=Choice("l2", "cosine"),
    )

    contrastive_weight: float = 1.0
    """Weight of the cross-entropy with the labels: an anchor's own document against all others of the batch."""
    score_weight: float = 1.0
    """Weight of the cross-entropy with the teacher's distribution over the documents of the batch."""
    query_weight: float = 1.0
    """Weight of the distance to the teacher's vectors of the anchors."""
    document_weight: float = 1.0
    """Weight of the distance to the teacher's vectors of the candidates."""
    num_candidates: int = 1
    """Candidates of each anchor, the fitting one first; the paper has no hard negatives."""
    temperature: float = 0.05
    """Divides the student's scores, and the teacher's unless they have a temperature of their own."""
    teacher_temperature: float | None = None
    """Divides the teacher's scores."""
    metric: Metric = "l2"
    """How far a vector is from the teacher's: `l2` the distance, `squared` its square, `mse` that over the width,
    `cosine` 1 - cosine. The student's vector is brought to unit length before the projection."""

    def __post_init__(self) -> None:
        of_documents = {
            "contrastive_weight": self.contrastive_weight,
            "score_weight": self.score_weight,
            "document_weight": self.document_weight,
        }
        check_not_negative(**of_documents, query_weight=self.query_weight)
        check_positive(num_candidates=self.num_candidates, temperature=self.temperature)
        check_one_of(get_args(Metric), metric=self.metric)
        if self.teacher_temperature is not None:
            check_positive(teacher_temperature=self.teacher_temperature)
        if not any(of_documents.values()):
            raise ValueError(f"{', '.join(of_documents)} are all 0: without documents it is mse, which needs no labels")

    @property
    def coupled(self) -> str:
        return "each anchor is compared with the texts of all rows" if self._compares else ""

    @property
    def _compares(self) -> bool:
        return self.contrastive_weight > 0 or self.score_weight > 0

    def negatives_per_step(self, batch_size: int) -> int:
        return batch_size * self.num_candidates - 1 if self._compares else 0

    def needs(self, dims: Dims) -> Needs:
        return Needs(
            candidates=self.num_candidates,
            teacher_final=self.query_weight > 0 or self.score_weight > 0,
            teacher_candidates=self.num_candidates if self.document_weight or self.score_weight else 0,
        )

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        if not (self.query_weight or self.document_weight):
            return nn.ModuleDict()
        return nn.ModuleDict({"projection": projection(dims.student_final, dims.teacher_final)})

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = self._score_terms(signals) if self._compares else {}
        if self.query_weight:
            distance = self._distance(signals.student_BS, signals.teacher_final_BD, aux)
            terms["query"] = self.query_weight * distance
        if self.document_weight:
            distance = self._distance(signals.candidates_BKS, signals.teacher_candidates_BKD, aux)
            terms["document"] = self.document_weight * distance
        return terms

    def _score_terms(self, signals: Signals) -> dict[str, Tensor]:
        terms = {}
        student_BBK = in_batch_scores(signals.student_BS, signals.candidates_BKS, "cosine")
        if self.contrastive_weight:
            terms["contrastive"] = self.contrastive_weight * one_hot_cross_entropy(student_BBK, self.temperature)
        if self.score_weight:
            teacher_BBK = in_batch_scores(signals.teacher_final_BD, signals.teacher_candidates_BKD, "cosine")
            tau = self.teacher_temperature or self.temperature
            value = similarity_cross_entropy(student_BBK.flatten(1), teacher_BBK.flatten(1), self.temperature, tau)
            terms["score"] = self.score_weight * value
        return terms

    def _distance(self, student: Tensor, teacher: Tensor, aux: nn.ModuleDict) -> Tensor:
        return METRICS[self.metric](aux["projection"](unit(student)), teacher)

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        student, teacher = dims.student_final, dims.teacher_final
        documents = batch_size * self.num_candidates
        flops = matmul_flops(batch_size, student, documents) if self._compares else 0.0
        if self.score_weight:
            flops += matmul_flops(batch_size, teacher, documents, gradients=0)
        matched = (self.query_weight > 0) * batch_size + (self.document_weight > 0) * documents
        return flops + projection_flops(matched, student, teacher)
