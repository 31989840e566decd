"""Contrast all layers at once: the student's stacked layers must find the teacher's among those of other sentences.

Source: Sun et al. 2020, arXiv:2009.14167, adapted to sentence encoders.

Shape suffix beyond those of `methods.base`: M width of the shared space in which both models are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Dims, Method, Needs, Signals, State, check_not_negative, check_positive, matmul_flops
from methods.functional import cosine_distance, in_full_precision, projection, projection_flops, unit


def summarise(layers_BLE: Tensor, head: nn.Module) -> Tensor:
    """Unit vectors of the stacked layers in the shared space: norm(W concat_l(mean_l) + b), [B, M]."""
    return unit(head(layers_BLE.flatten(1)))


@in_full_precision
def bank_info_nce(
    anchor_BM: Tensor, positive_BM: Tensor, bank_NM: Tensor, negative_index_BK: Tensor, temperature: float
) -> Tensor:
    """InfoNCE with each anchor's own negatives, rows of a bank; a scalar, log(K + 1) where all scores are equal.

    -(1/B) sum_i log( exp(a_i.p_i / tau) / (exp(a_i.p_i / tau) + sum_k exp(a_i.bank[index_ik] / tau)) )
    """
    positive_B1 = (anchor_BM * positive_BM).sum(-1, keepdim=True)
    negative_BK = (F.embedding(negative_index_BK, bank_NM) @ anchor_BM[:, :, None]).squeeze(-1)
    logits_BC = torch.cat([positive_B1, negative_BK], dim=1) / temperature
    return (logits_BC.logsumexp(1) - logits_BC[:, 0]).mean()


def moved_rows(row_BM: Tensor, fresh_BM: Tensor, momentum: float) -> Tensor:
    """Bank rows after seeing their sentence again: norm(momentum row + (1 - momentum) fresh), [B, M]."""
    return unit(momentum * row_BM + (1 - momentum) * fresh_BM)


def new_bank(num_sentences: int, width: int) -> Tensor:
    """Uniform entries in +-sqrt(3 / M), [N, M]: rows of length about 1."""
    bound = (3 / width) ** 0.5
    return torch.empty(num_sentences, width).uniform_(-bound, bound)


@dataclass(frozen=True, kw_only=True)
class CoDIR(Method):
    """Contrastive distillation on intermediate representations, the form of the paper."""

    name: ClassVar[str] = "codir"
    source: ClassVar[str] = (
        "Sun et al. 2020, arXiv:2009.14167, the form of the paper: mean-pooled layers 1 to last of each model, "
        "concatenated, projected to a shared space and compared by InfoNCE. Negatives come from a bank of teacher "
        "projections, any other sentence of the text, since there are no class labels; the positive is computed "
        "afresh. Task loss and logit distillation have no counterpart without classes: a cosine term to the "
        "teacher's final vector replaces them. The released code differs (first-token vectors, odd teacher layers, "
        "noise-contrastive estimation in place of InfoNCE, the positive from the bank). Bank rows move by projections "
        "taken after the optimiser's step."
    )
    unverified: ClassVar[str] = (
        "The paper's weights of the terms were not found, so both are 1; nor were its number of negatives, width and "
        "temperature for distillation on plain text: those are the released code's. Pooling and layers follow "
        "second-hand summaries; bias, normalisation and which side supplies the negatives are from memory."
    )

    contrastive_weight: float = 1.0
    """Weight of the contrastive term over all layers."""
    final_weight: float = 1.0
    """Weight of the cosine term that ties the shipped vector to the teacher's; 0 leaves the contrastive term alone."""
    num_negatives: int = 100
    """Bank rows drawn for each sentence and step."""
    temperature: float = 0.07
    """Divides the cosines of the contrastive term."""
    shared_width: int = 128
    """Width of the space in which the layers of both models are compared."""
    bank_momentum: float = 0.5
    """Share of a bank row that stays when its sentence is seen again; 0 replaces the row."""
    symmetric: bool = False
    """Average with the reverse direction (teacher anchors, a bank of student projections)."""

    def __post_init__(self) -> None:
        check_not_negative(
            contrastive_weight=self.contrastive_weight,
            final_weight=self.final_weight,
            bank_momentum=self.bank_momentum,
        )
        check_positive(num_negatives=self.num_negatives, temperature=self.temperature, shared_width=self.shared_width)
        if self.bank_momentum >= 1:
            raise ValueError(f"bank_momentum must be below 1, got {self.bank_momentum}: the bank would never change")
        if self.contrastive_weight == self.final_weight == 0:
            raise ValueError("contrastive_weight and final_weight are both 0: nothing would be trained")

    def needs(self, dims: Dims) -> Needs:
        final = self.final_weight > 0
        if not self.contrastive_weight:
            return Needs(teacher_final=final)
        return Needs(
            teacher_final=final,
            teacher_layers=tuple(range(1, dims.teacher.layers + 1)),
            student_layers=tuple(range(1, dims.student.layers + 1)),
            negatives=self.num_negatives,
        )

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        aux = nn.ModuleDict()
        if self.contrastive_weight:
            aux["student"] = nn.Linear(dims.student.layers * dims.student.width, self.shared_width)
            aux["teacher"] = nn.Linear(dims.teacher.layers * dims.teacher.width, self.shared_width)
            sides = ("teacher", "student") if self.symmetric else ("teacher",)
            aux["banks"] = State(**{side: new_bank(dims.num_sentences, self.shared_width) for side in sides})
        if self.final_weight:
            aux["final"] = projection(dims.student.width, dims.teacher_final)
        return aux

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = {}
        if self.contrastive_weight:
            terms["contrastive"] = self.contrastive_weight * self._contrast(signals, aux)
        if self.final_weight:
            distance_B = cosine_distance(aux["final"](signals.student_BS), signals.teacher_final_BD)
            terms["final"] = self.final_weight * distance_B.mean()
        return terms

    def _contrast(self, signals: Signals, aux: nn.ModuleDict) -> Tensor:
        banks, index_BK = cast(State, aux["banks"]), signals.negative_index_BK
        student_BM = summarise(signals.student_layers_BLS, aux["student"])
        teacher_BM = summarise(signals.teacher_layers_BLH, aux["teacher"])
        one_way = bank_info_nce(student_BM, teacher_BM, banks["teacher"], index_BK, self.temperature)
        if not self.symmetric:
            return one_way
        other_way = bank_info_nce(teacher_BM, student_BM, banks["student"], index_BK, self.temperature)
        return (one_way + other_way) / 2

    def after_step(self, signals: Signals, aux: nn.ModuleDict) -> None:
        if not self.contrastive_weight:
            return
        banks = cast(State, aux["banks"])
        self._move(banks["teacher"], signals.index_B, summarise(signals.teacher_layers_BLH, aux["teacher"]))
        if self.symmetric:
            self._move(
                banks["student"], signals.index_B, summarise(signals.student_layers_BLS.detach(), aux["student"])
            )

    def _move(self, bank_NM: Tensor, index_B: Tensor, fresh_BM: Tensor) -> None:
        moved_BM = moved_rows(bank_NM[index_B], fresh_BM, self.bank_momentum)
        bank_NM.index_copy_(0, index_B, moved_BM.to(bank_NM.dtype))

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        final = projection_flops(batch_size, dims.student.width, dims.teacher_final) if self.final_weight else 0.0
        if not self.contrastive_weight:
            return final
        student = (batch_size, dims.student.layers * dims.student.width, self.shared_width)
        teacher = (batch_size, dims.teacher.layers * dims.teacher.width, self.shared_width)
        scores = matmul_flops(batch_size, self.shared_width, self.num_negatives, gradients=1)
        # The loss, then the fresh projections of after_step.
        one_way = matmul_flops(*student) + matmul_flops(*teacher, gradients=1) + scores
        one_way += matmul_flops(*teacher, gradients=0)
        other_way = scores + matmul_flops(*student, gradients=0) if self.symmetric else 0.0
        return final + one_way + other_way
