"""Rank the other sentences of the batch as the teacher does: softened cosine similarities, row by row.

Source: Xu et al. 2023 (Findings of EMNLP), DistillCSE; the list-wise form is ListNet, Cao et al. 2007.
"""

from __future__ import annotations

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
from distilbench_methods.functional import (
    cosine_distance,
    cosine_similarities,
    in_full_precision,
    projection,
    projection_flops,
)
from distilbench_methods.space import Space, Span, space

Form = Literal["kl", "listnet"]


@in_full_precision
def similarity_cross_entropy(student_BC: Tensor, teacher_BC: Tensor, tau_student: float, tau_teacher: float) -> Tensor:
    """-(1/B) sum_i sum_j p^t_ij log p^s_ij, a scalar; p = softmax of a row of similarities over its temperature."""
    teacher_p_BC = (teacher_BC / tau_teacher).softmax(-1)
    return -(teacher_p_BC * (student_BC / tau_student).log_softmax(-1)).sum(-1).mean()


@in_full_precision
def similarity_divergence(student_BC: Tensor, teacher_BC: Tensor, tau_student: float, tau_teacher: float) -> Tensor:
    """(1/B) sum_i KL(p^t_i || p^s_i), a scalar: the cross-entropy less the teacher's entropy; same gradient."""
    log_teacher_BC = (teacher_BC / tau_teacher).log_softmax(-1)
    log_student_BC = (student_BC / tau_student).log_softmax(-1)
    return (log_teacher_BC.exp() * (log_teacher_BC - log_student_BC)).sum(-1).mean()


@dataclass(frozen=True, kw_only=True)
class SimDist(Method):
    """In-batch similarity distillation."""

    name: ClassVar[str] = "simdist"
    source: ClassVar[str] = (
        "Xu et al. 2023 (Findings of EMNLP), DistillCSE, the cross-entropy between softened cosine similarities of a "
        "batch, its diagonal left out, with the temperatures of the released code; `kl` subtracts the teacher's "
        "entropy, which has no gradient. Left out: the contrastive term and the shuffling against the teacher's "
        "variance. Without the final term nothing ties the student's space to the teacher's."
    )
    unverified: ClassVar[str] = "Read in the released code; the paper's text was not at hand."
    search_space: ClassVar[Space] = space(
        final_weight=Span(0.0, 2.0),
        student_temperature=Span(0.01, 0.2, log=True),
        teacher_temperature=Span(0.005, 0.1, log=True),
    )

    similarity_weight: float = 1.0
    """Weight of the similarity term."""
    final_weight: float = 0.0
    """Weight of a cosine term to the teacher's vector, ours; 0 leaves the spaces untied, as in the original."""
    form: Form = "kl"
    """`kl` the divergence, `listnet` the cross-entropy: other values, equal gradients."""
    student_temperature: float = 0.025
    """Divides the student's cosines."""
    teacher_temperature: float = 0.0125
    """Divides the teacher's cosines: half the student's sharpens the target."""

    def __post_init__(self) -> None:
        check_not_negative(similarity_weight=self.similarity_weight, final_weight=self.final_weight)
        check_positive(student_temperature=self.student_temperature, teacher_temperature=self.teacher_temperature)
        check_one_of(get_args(Form), form=self.form)
        if self.similarity_weight == self.final_weight == 0:
            raise ValueError("similarity_weight and final_weight are both 0: nothing would be trained")

    @property
    def coupled(self) -> str:
        return "each sentence is compared with the others of the batch" if self.similarity_weight else ""

    def needs(self, dims: Dims) -> Needs:
        return Needs(teacher_final=True)

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        if not self.final_weight:
            return nn.ModuleDict()
        return nn.ModuleDict({"final": projection(dims.student_final, dims.teacher_final)})

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = {}
        if self.similarity_weight:
            value = similarity_divergence if self.form == "kl" else similarity_cross_entropy
            terms["similarity"] = self.similarity_weight * value(
                cosine_similarities(signals.student_BS),
                cosine_similarities(signals.teacher_final_BD),
                self.student_temperature,
                self.teacher_temperature,
            )
        if self.final_weight:
            distance_B = cosine_distance(aux["final"](signals.student_BS), signals.teacher_final_BD)
            terms["final"] = self.final_weight * distance_B.mean()
        return terms

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        final = projection_flops(batch_size, dims.student_final, dims.teacher_final) if self.final_weight else 0.0
        if not self.similarity_weight:
            return final
        teacher = matmul_flops(batch_size, dims.teacher_final, batch_size, gradients=0)
        return final + teacher + matmul_flops(batch_size, dims.student_final, batch_size)
