"""Contrast stacked layers as the released code of CoDIR does: noise-contrastive estimation over two memory banks.

Source: the code released with Sun et al. 2020, arXiv:2009.14167, adapted to sentence encoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast, get_args

import torch
from torch import Tensor, nn

from methods.banks import Banks, contrast_flops, summarise
from methods.base import (
    Dims,
    LayerPooling,
    Method,
    Needs,
    Signals,
    check_not_negative,
    check_one_of,
    check_positive,
)
from methods.codir import LayerMap, mapped_layers
from methods.functional import cosine_distance, projection, projection_flops


@dataclass(frozen=True, kw_only=True)
class CoDIRCode(Method):
    """Contrastive distillation on intermediate representations, the form of the released code."""

    name: ClassVar[str] = "codir-code"
    source: ClassVar[str] = (
        "The code released with Sun et al. 2020, arXiv:2009.14167: first-token states of all student layers and of "
        "every second teacher layer, both projections trained, a memory bank for each model with positives from the "
        "banks, the noise-contrastive loss of CRD halved, the normaliser of the first batch kept for good. Without "
        "class labels any other sentence may be a negative, and a cosine term to the teacher's final vector replaces "
        "task loss and logit distillation. The code's teacher keeps its dropout on, which is not taken over. Bank "
        "rows move by projections taken after the optimiser's step."
    )
    unverified: ClassVar[str] = (
        "The code's effective weight is its coefficient divided by the batch size, and that coefficient was swept; 1 "
        "is our choice, as is the weight of the final term."
    )

    contrastive_weight: float = 1.0
    """Weight of the contrastive term over the stacked layers, the mean of both directions."""
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
    layer_map: LayerMap = "code"
    """Teacher layers that are stacked: `code`, every second from the first on; `last`; or `all`."""
    layer_pooling: LayerPooling = "cls"
    """How layers are pooled: the first token's state (`cls`), or the `mean` over tokens."""

    def __post_init__(self) -> None:
        check_not_negative(
            contrastive_weight=self.contrastive_weight,
            final_weight=self.final_weight,
            bank_momentum=self.bank_momentum,
        )
        check_positive(num_negatives=self.num_negatives, temperature=self.temperature, shared_width=self.shared_width)
        check_one_of(get_args(LayerMap), layer_map=self.layer_map)
        check_one_of(get_args(LayerPooling), layer_pooling=self.layer_pooling)
        if self.bank_momentum >= 1:
            raise ValueError(f"bank_momentum must be below 1, got {self.bank_momentum}: the bank would never change")
        if self.contrastive_weight == self.final_weight == 0:
            raise ValueError("contrastive_weight and final_weight are both 0: nothing would be trained")

    @property
    def coupled(self) -> str:
        return "the first batch's mean score normalises all others" if self.contrastive_weight else ""

    def negatives_per_step(self, batch_size: int) -> int:
        return self.num_negatives if self.contrastive_weight else 0

    def needs(self, dims: Dims) -> Needs:
        if not self.contrastive_weight:
            return Needs(teacher_final=True)
        return Needs(
            teacher_final=self.final_weight > 0,
            teacher_layers=self._teacher_layers(dims),
            student_layers=tuple(range(1, dims.student.layers + 1)),
            negatives=self.num_negatives,
            layer_pooling=self.layer_pooling,
        )

    def _teacher_layers(self, dims: Dims) -> tuple[int, ...]:
        return mapped_layers(dims.student.layers, dims.teacher.layers, self.layer_map)

    def _widths(self, dims: Dims) -> tuple[int, int]:
        teacher = len(self._teacher_layers(dims)) * dims.teacher.width
        return dims.student.layers * dims.student.width, teacher

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        aux = nn.ModuleDict()
        if self.contrastive_weight:
            for side, width in zip(("student", "teacher"), self._widths(dims), strict=True):
                aux[side] = nn.Linear(width, self.shared_width)
            aux["banks"] = Banks(dims.num_sentences, self.shared_width)
        if self.final_weight:
            aux["final"] = projection(dims.student_final, dims.teacher_final)
        return aux

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = {}
        if self.contrastive_weight:
            sides = cast(Banks, aux["banks"]).sides(*self._vectors(signals, aux), signals, self.temperature)
            terms["contrastive"] = self.contrastive_weight * torch.stack(sides).mean()
        if self.final_weight:
            distance_B = cosine_distance(aux["final"](signals.student_BS), signals.teacher_final_BD)
            terms["final"] = self.final_weight * distance_B.mean()
        return terms

    def _vectors(self, signals: Signals, aux: nn.ModuleDict) -> tuple[Tensor, Tensor]:
        student_BM = summarise(signals.student_layers_BLS, aux["student"])
        return student_BM, summarise(signals.teacher_layers_BLH, aux["teacher"])

    def after_step(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> None:
        if self.contrastive_weight:
            banks = cast(Banks, aux["banks"])
            banks.update(*self._vectors(signals, aux), signals, self.temperature, self.bank_momentum)

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        final = projection_flops(batch_size, dims.student_final, dims.teacher_final) if self.final_weight else 0.0
        if not self.contrastive_weight:
            return final
        return final + contrast_flops(batch_size, *self._widths(dims), self.shared_width, self.num_negatives)
