"""Rank as the teacher does while two dropout views agree: contrast, consistent rankings, list-wise distillation.

Source: Liu et al. 2023 (ACL), RankCSE, arXiv:2305.16726.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

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
from distilbench_methods.functional import cosine_similarities, cross_similarities, in_full_precision, info_nce
from distilbench_methods.simdist import similarity_cross_entropy
from distilbench_methods.space import Space, Span, space

Form = Literal["listnet", "listmle"]
Lists = Literal["across", "within"]


@in_full_precision
def list_mle(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """Negative log-likelihood of the teacher's order under Plackett-Luce, a scalar: mean over rows.

    sum_k [ log sum_{l >= k} exp(s_(l) / tau) - s_(k) / tau ], s_(k) the student's score of the teacher's k-th choice.
    Ties of the teacher keep the order of the batch.
    """
    order_BC = teacher_BC.argsort(dim=-1, descending=True, stable=True)
    score_BC = student_BC.gather(-1, order_BC) / temperature
    remaining_BC = score_BC.flip(-1).logcumsumexp(-1).flip(-1)
    return (remaining_BC - score_BC).sum(-1).mean()


@in_full_precision
def ranking_consistency(one_BC: Tensor, other_BC: Tensor, temperature: float) -> Tensor:
    """Jensen-Shannon divergence between two views' softened similarity rows, a scalar in [0, log 2]: mean over rows."""
    log_p_BC, log_q_BC = (view_BC.div(temperature).log_softmax(-1) for view_BC in (one_BC, other_BC))
    p_BC, q_BC = log_p_BC.exp(), log_q_BC.exp()
    log_m_BC = log_p_BC.logaddexp(log_q_BC) - math.log(2)
    return ((p_BC * (log_p_BC - log_m_BC)).sum(-1) + (q_BC * (log_q_BC - log_m_BC)).sum(-1)).mean() / 2


@dataclass(frozen=True, kw_only=True)
class RankCSE(Method):
    """Contrastive learning with ranking consistency and ranking distillation."""

    name: ClassVar[str] = "rankcse"
    source: ClassVar[str] = (
        "Liu et al. 2023 (ACL), arXiv:2305.16726: InfoNCE between two dropout views, the Jensen-Shannon divergence "
        "between their similarity rows (each view's to the other), and ListNet or ListMLE of the first view's rows "
        "against the teacher's. One teacher in place of the paper's two; a sentence is left out of all its own lists, "
        "in the community code out of ListNet's alone; ties are not shuffled; no head stands on the pooled vector."
    )
    unverified: ClassVar[str] = (
        "The paper's equations and the authors' code were not at hand: forms, temperatures and the weights of 1 follow "
        "a community re-implementation, whose clamping and unused teacher temperature were not taken over."
    )
    search_space: ClassVar[Space] = space(
        consistency_weight=Span(0.1, 10.0, log=True),
        rank_weight=Span(0.1, 10.0, log=True),
        temperature=Span(0.01, 0.5, log=True),
        teacher_temperature=Span(0.005, 0.1, log=True),
    )

    contrastive_weight: float = 1.0
    """Weight of InfoNCE between the two views."""
    consistency_weight: float = 1.0
    """Weight of the agreement between the two views' rankings."""
    rank_weight: float = 1.0
    """Weight of the teacher's ranking."""
    form: Form = "listnet"
    """How rankings are distilled."""
    lists: Lists = "across"
    """`across`: each sentence of the first view ranks those of the second; `within`: those of its own view, which is
    another loss than the re-implementation's and needs no second view of its own."""
    temperature: float = 0.05
    """Divides the student's cosines in all terms."""
    teacher_temperature: float = 0.025
    """Divides the teacher's cosines; ListMLE looks at their order only."""

    def __post_init__(self) -> None:
        weights = {
            "contrastive_weight": self.contrastive_weight,
            "consistency_weight": self.consistency_weight,
            "rank_weight": self.rank_weight,
        }
        check_not_negative(**weights)
        check_positive(temperature=self.temperature, teacher_temperature=self.teacher_temperature)
        check_one_of(get_args(Form), form=self.form)
        check_one_of(get_args(Lists), lists=self.lists)
        if not any(weights.values()):
            raise ValueError(f"{', '.join(weights)} are all 0: nothing would be trained")

    @property
    def coupled(self) -> str:
        return "each sentence is compared with the others of the batch"

    @property
    def _two_views(self) -> bool:
        ranked = self.rank_weight > 0 and self.lists == "across"
        return ranked or self.contrastive_weight > 0 or self.consistency_weight > 0

    def negatives_per_step(self, batch_size: int) -> int:
        return batch_size - 1 if self.contrastive_weight else 0

    def needs(self, dims: Dims) -> Needs:
        return Needs(teacher_final=self.rank_weight > 0, student_views=2 if self._two_views else 1)

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = {}
        if self.contrastive_weight:
            value = info_nce(signals.student_BS, signals.second_view_BS, self.temperature)
            terms["contrastive"] = self.contrastive_weight * value
        if self.consistency_weight:
            # A view against the other: the same sentence is left out, as in the teacher's lists.
            one_BC = cross_similarities(signals.student_BS, signals.second_view_BS)
            other_BC = cross_similarities(signals.second_view_BS, signals.student_BS)
            value = ranking_consistency(one_BC, other_BC, self.temperature)
            terms["consistency"] = self.consistency_weight * value
        if self.rank_weight:
            terms["rank"] = self.rank_weight * self._rank(signals)
        return terms

    def _rank(self, signals: Signals) -> Tensor:
        ranked_BS = signals.second_view_BS if self.lists == "across" else signals.student_BS
        student_BC = cross_similarities(signals.student_BS, ranked_BS)
        teacher_BC = cosine_similarities(signals.teacher_final_BD)
        if self.form == "listmle":
            return list_mle(student_BC, teacher_BC, self.temperature)
        return similarity_cross_entropy(student_BC, teacher_BC, self.temperature, self.teacher_temperature)

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        student = matmul_flops(batch_size, dims.student_final, batch_size)
        teacher = matmul_flops(batch_size, dims.teacher_final, batch_size, gradients=0)
        count = (self.contrastive_weight > 0) + 2 * (self.consistency_weight > 0) + (self.rank_weight > 0)
        return count * student + (self.rank_weight > 0) * teacher
