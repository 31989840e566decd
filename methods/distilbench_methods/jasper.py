"""Match the teacher's vectors, their similarities and the order of those, through a linear head that ships.

Source: Zhang et al. 2024, arXiv:2412.19048 (Jasper and Stella).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilbench_methods.base import (
    Dims,
    Method,
    Needs,
    Signals,
    UnsuitableError,
    check_not_negative,
    check_positive,
    matmul_flops,
)
from distilbench_methods.functional import cosine_distance, in_full_precision, unit
from distilbench_methods.space import Space, Span, space

KNUTH = 2_654_435_761
"""Multiplicative hashing: neighbouring numbers land far apart on a ring of 2^32."""


@in_full_precision
def similarity_error(student_BE: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean over all B^2 entries of (cos(s_i, s_j) - cos(t_i, t_j))^2, a scalar."""
    student_BE, teacher_BD = unit(student_BE), unit(teacher_BD)
    return F.mse_loss(student_BE @ student_BE.T, teacher_BD @ teacher_BD.T)


def pair_similarities(x_BE: Tensor) -> Tensor:
    """cos(x_i, x_j) of the pairs i < j, [B (B - 1) / 2]."""
    unit_BE = unit(x_BE)
    row_P, column_P = torch.triu_indices(len(x_BE), len(x_BE), offset=1, device=x_BE.device)
    return (unit_BE @ unit_BE.T)[row_P, column_P]


@in_full_precision
def ranking_hinge(student_BE: Tensor, teacher_BD: Tensor, margin: float) -> Tensor:
    """Mean over unordered pairs (p, q) of sentence pairs of relu(y (S_q - S_p) + margin), a scalar.

    S_p is the student's similarity of pair p; y = +1 where the teacher has S_q < S_p, else -1. Not 0 for S = T: gaps
    below the margin cost. B^4 / 8 comparisons.
    """
    student_P, teacher_P = pair_similarities(student_BE), pair_similarities(teacher_BD)
    first_C, second_C = torch.triu_indices(len(student_P), len(student_P), offset=1, device=student_P.device)
    order_C = torch.where(teacher_P[second_C] < teacher_P[first_C], 1.0, -1.0)
    return F.relu(order_C * (student_P[second_C] - student_P[first_C]) + margin).mean()


def spread_rows(index_B: Tensor, count: int) -> Tensor:
    """`count` places of a batch, others for every batch, but the same sentences whatever the order of the batch."""
    keys_B = (index_B + index_B.sum()) * KNUTH % 2**32
    return keys_B.argsort()[:count]


@dataclass(frozen=True, kw_only=True)
class Jasper(Method):
    """The three losses of Jasper's distillation stages."""

    name: ClassVar[str] = "jasper"
    source: ClassVar[str] = (
        "Zhang et al. 2024, arXiv:2412.19048, as in the released code: cosine to the teacher's vector, squared error "
        "of similarities, and a hinge on the order of similarities, the latter two averaged over the head's output cut "
        "to several widths. The linear head ships, so that the student lives in the teacher's space. The last term "
        "compares all pairs of pairs, B^4 / 8 of them: of a larger batch, `ranking_sentences` sentences "
        "enter it."
    )
    unverified: ClassVar[str] = (
        "Read in the released code; of the paper only the abstract was at hand. Its stages (dimension reduction, "
        "vision) are left out."
    )
    search_space: ClassVar[Space] = space(
        cosine_weight=Span(1.0, 100.0, log=True),
        similarity_weight=Span(20.0, 2000.0, log=True),
        ranking_weight=Span(2.0, 200.0, log=True),
        margin=Span(0.005, 0.1, log=True),
    )

    cosine_weight: float = 10.0
    """Weight of the cosine term."""
    similarity_weight: float = 200.0
    """Weight of the squared error of similarities."""
    ranking_weight: float = 20.0
    """Weight of the hinge on the order of similarities."""
    margin: float = 0.015
    """By how much the student's similarities must differ in the teacher's order."""
    widths: tuple[int, ...] = ()
    """Further widths to which the head's output is cut for the terms on similarities, the full one aside."""
    ranking_sentences: int = 32
    """Sentences of a batch that enter the ranking term at most."""

    def __post_init__(self) -> None:
        weights = {
            "cosine_weight": self.cosine_weight,
            "similarity_weight": self.similarity_weight,
            "ranking_weight": self.ranking_weight,
        }
        check_not_negative(**weights, margin=self.margin)
        for width in self.widths:
            check_positive(widths=width)
        if self.ranking_sentences < 3:
            raise ValueError(f"ranking_sentences must be 3 or more, got {self.ranking_sentences}: two make one pair")
        if not any(weights.values()):
            raise ValueError(f"{', '.join(weights)} are all 0: nothing would be trained")

    @property
    def coupled(self) -> str:
        return "similarities between the sentences of the batch are compared" if self._compares else ""

    @property
    def _compares(self) -> bool:
        return self.similarity_weight > 0 or self.ranking_weight > 0

    def needs(self, dims: Dims) -> Needs:
        for width in self.widths:
            if width >= dims.teacher_final:
                raise UnsuitableError(
                    f"jasper: widths holds {width}, but the head has {dims.teacher_final} outputs; choose smaller ones"
                )
        return Needs(teacher_final=True)

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        return nn.ModuleDict({"head": nn.Linear(dims.student_final, dims.teacher_final)})

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        student_BD, teacher_BD = aux["head"](signals.student_BS), signals.teacher_final_BD
        terms = {}
        if self.cosine_weight:
            terms["cosine"] = self.cosine_weight * cosine_distance(student_BD, teacher_BD).mean()
        if self.similarity_weight:
            errors = [similarity_error(part, teacher_BD) for part in self._cut(student_BD)]
            terms["similarity"] = self.similarity_weight * torch.stack(errors).mean()
        if self.ranking_weight:
            terms["ranking"] = self.ranking_weight * self._ranking(student_BD, signals)
        return terms

    def _cut(self, student_BD: Tensor) -> list[Tensor]:
        return [student_BD, *(student_BD[:, :width] for width in self.widths)]

    def _ranking(self, student_BD: Tensor, signals: Signals) -> Tensor:
        if len(student_BD) < 3:
            raise ValueError(
                f"jasper's ranking term compares pairs: a batch needs 3 sentences or more, got {len(student_BD)}; "
                "use a larger batch size or set ranking_weight to 0"
            )
        chosen_C = spread_rows(signals.index_B, self.ranking_sentences)
        teacher_CD = signals.teacher_final_BD[chosen_C]
        hinges = [ranking_hinge(part, teacher_CD, self.margin) for part in self._cut(student_BD[chosen_C])]
        return torch.stack(hinges).mean()

    def exported_head(self, aux: nn.ModuleDict) -> nn.Module | None:
        return aux["head"]

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        target = dims.teacher_final
        flops = matmul_flops(batch_size, dims.student_final, target)
        ranked = min(batch_size, self.ranking_sentences)
        for weight, size in ((self.similarity_weight, batch_size), (self.ranking_weight, ranked)):
            for width in (target, *self.widths) if weight else ():
                flops += matmul_flops(size, width, size) + matmul_flops(size, target, size, gradients=0)
        return flops
