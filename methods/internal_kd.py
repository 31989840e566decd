"""Imitate the teacher layer by layer: its attention probabilities and its pooled hidden states, all layers at once.

Source: Aguilar et al. 2020, arXiv:1910.03723, the procedure without stages, adapted to sentence encoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from methods.base import (
    Dims,
    Method,
    Needs,
    Signals,
    UnsuitableError,
    check_not_negative,
    check_one_of,
    evenly_spaced,
)
from methods.functional import cosine_distance, in_full_precision, projection, projection_flops

HeadReduction = Literal["mean", "sum"]

SMALLEST_PROBABILITY = 1e-12
"""Keeps the logarithm finite where the student gives no attention to what the teacher looks at."""


@in_full_precision
def attention_divergence(
    student_BATT: Tensor, teacher_BATT: Tensor, mask_BT: Tensor, head_reduction: HeadReduction = "mean"
) -> Tensor:
    """KL(teacher || student) of attention rows, a scalar: mean over real query rows, then over sentences.

    mean_i red_a (1/T_i) sum_{r real} sum_c P^t_{iarc} log( P^t_{iarc} / P^s_{iarc} ), red the mean or sum over heads.
    Padded keys have probability 0 on both sides and add nothing.
    """
    log_student_BATT = student_BATT.clamp_min(SMALLEST_PROBABILITY).log()
    row_BAT = (torch.xlogy(teacher_BATT, teacher_BATT) - teacher_BATT * log_student_BATT).sum(-1)
    row_BT = row_BAT.mean(1) if head_reduction == "mean" else row_BAT.sum(1)
    mask_BT = mask_BT.to(row_BT.dtype)
    return ((row_BT * mask_BT).sum(1) / mask_BT.sum(1)).mean()


def hidden_distance(student_BLH: Tensor, teacher_BLH: Tensor) -> Tensor:
    """sum_l mean_i (1 - cos(s_il, t_il)), a scalar."""
    return cosine_distance(student_BLH, teacher_BLH).mean(0).sum()


@dataclass(frozen=True, kw_only=True)
class InternalKD(Method):
    """Distillation of internal representations, all layers at once."""

    name: ClassVar[str] = "internal-kd"
    source: ClassVar[str] = (
        "Aguilar et al. 2020, arXiv:1910.03723, all layers at once: the sum over student layers of a KL divergence "
        "between attention probabilities and a cosine distance between hidden states, each layer against the "
        "evenly spaced one of the teacher. The authors compare the first token's state and distil class "
        "probabilities; here the mean-pooled state and a cosine term to the teacher's final vector take their place. "
        "Where widths differ, one trainable linear map per layer, and one for the final vector, is added and "
        "dropped at export."
    )
    unverified: ClassVar[str] = (
        "The paper has no released code and only its abstract and introduction were at hand: equations, layer mapping "
        "and unit weights are from memory. The mean over heads and the weight of the final term are our choices."
    )

    attention_weight: float = 1.0
    """Weight of the attention term; 0 switches it off, which frees the choice of heads and tokeniser."""
    hidden_weight: float = 1.0
    """Weight of the hidden-state term."""
    final_weight: float = 1.0
    """Weight of the cosine term that ties the shipped vector to the teacher's."""
    head_reduction: HeadReduction = "mean"
    """How the divergences of a layer's heads are put together."""

    def __post_init__(self) -> None:
        check_not_negative(
            attention_weight=self.attention_weight, hidden_weight=self.hidden_weight, final_weight=self.final_weight
        )
        check_one_of(get_args(HeadReduction), head_reduction=self.head_reduction)
        if self.attention_weight == self.hidden_weight == self.final_weight == 0:
            raise ValueError("attention_weight, hidden_weight and final_weight are all 0: nothing would be trained")

    def needs(self, dims: Dims) -> Needs:
        self._check_fit(dims)
        student_layers = tuple(range(1, dims.student.layers + 1))
        teacher_layers = evenly_spaced(dims.student.layers, dims.teacher.layers)
        return Needs(
            teacher_final=self.final_weight > 0,
            teacher_layers=teacher_layers if self.hidden_weight else (),
            student_layers=student_layers if self.hidden_weight else (),
            teacher_attention=teacher_layers if self.attention_weight else (),
            student_attention=student_layers if self.attention_weight else (),
        )

    def _check_fit(self, dims: Dims) -> None:
        student, teacher = dims.student, dims.teacher
        if student.layers > teacher.layers:
            raise UnsuitableError(
                f"internal-kd matches each student layer to one of the teacher's, but the student has {student.layers} "
                f"layers and the teacher {teacher.layers}; choose a student that is no deeper"
            )
        if self.attention_weight and student.heads != teacher.heads:
            raise UnsuitableError(
                f"internal-kd compares attention head by head, but the student has {student.heads} heads and the "
                f"teacher {teacher.heads}; set attention_weight to 0 or choose a student with {teacher.heads} heads"
            )
        if self.attention_weight and not dims.shared_tokens:
            raise UnsuitableError(
                "internal-kd compares attention token by token, but student and teacher cut sentences into different "
                "tokens; set attention_weight to 0 or choose a student with the teacher's tokeniser"
            )

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        aux = nn.ModuleDict()
        if self.hidden_weight:
            heads = [projection(dims.student.width, dims.teacher.width) for _ in range(dims.student.layers)]
            aux["hidden"] = nn.ModuleList(heads)
        if self.final_weight:
            aux["final"] = projection(dims.student.width, dims.teacher_final)
        return aux

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = {}
        if self.attention_weight:
            pairs = zip(signals.student_attention, signals.teacher_attention, strict=True)
            layers = [attention_divergence(*pair, signals.mask_BT, self.head_reduction) for pair in pairs]
            terms["attention"] = self.attention_weight * torch.stack(layers).sum()
        if self.hidden_weight:
            states = zip(aux["hidden"].children(), signals.student_layers_BLS.unbind(1), strict=True)
            student_BLH = torch.stack([head(state_BS) for head, state_BS in states], dim=1)
            terms["hidden"] = self.hidden_weight * hidden_distance(student_BLH, signals.teacher_layers_BLH)
        if self.final_weight:
            distance_B = cosine_distance(aux["final"](signals.student_BS), signals.teacher_final_BD)
            terms["final"] = self.final_weight * distance_B.mean()
        return terms

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        width, layers = dims.student.width, dims.student.layers
        hidden = layers * projection_flops(batch_size, width, dims.teacher.width) if self.hidden_weight else 0.0
        final = projection_flops(batch_size, width, dims.teacher_final) if self.final_weight else 0.0
        return hidden + final
