"""Contrast all layers at once: the student's stacked layers must find the teacher's among those of other sentences.

Source: Sun et al. 2020, arXiv:2009.14167, adapted to sentence encoders.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast, get_args

from torch import Tensor, nn

from distilbench_methods.banks import BankMethod, bank_info_nce, move, new_bank, summarise
from distilbench_methods.base import (
    Dims,
    Needs,
    Signals,
    State,
    UnsuitableError,
    check_one_of,
    evenly_spaced,
    matmul_flops,
)
from distilbench_methods.functional import cosine_distance
from distilbench_methods.pooling import LayerPooling
from distilbench_methods.space import Space, Span, space

LayerMap = Literal["all", "last", "code"]


def mapped_layers(student: int, teacher: int, layer_map: LayerMap) -> tuple[int, ...]:
    """Teacher layers that are stacked against all of the student's.

    `all` of them; `last`: round(l L_t / L_s) for each student layer l, the last included; `code`: every second from the
    first on, never the last of an even number.
    """
    if layer_map == "last":
        return evenly_spaced(student, teacher)
    return tuple(range(1, teacher + 1, 2 if layer_map == "code" else 1))


@dataclass(frozen=True, kw_only=True)
class LayerContrast(BankMethod):
    """Frame of both forms: what is contrasted is the stack of all student layers, and of teacher layers."""

    layer_map: LayerMap
    layer_pooling: LayerPooling

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of(get_args(LayerMap), layer_map=self.layer_map)
        check_one_of(get_args(LayerPooling), layer_pooling=self.layer_pooling)

    def needs(self, dims: Dims) -> Needs:
        if not self.contrastive_weight:
            return Needs(teacher_final=True)
        return Needs(
            teacher_final=self.final_weight > 0,
            teacher_layers=self.teacher_layers(dims),
            student_layers=tuple(range(1, dims.student.layers + 1)),
            negatives=self.num_negatives,
            layer_pooling=self.layer_pooling,
        )

    def teacher_layers(self, dims: Dims) -> tuple[int, ...]:
        student, teacher = dims.student.layers, dims.teacher_model.layers
        if self.layer_map == "last" and student > teacher:
            raise UnsuitableError(
                f"{self.name}: layer_map last gives each student layer a teacher layer of its own, but the student has "
                f"{student} layers and the teacher {teacher}; set layer_map to all"
            )
        return mapped_layers(student, teacher, self.layer_map)

    def widths(self, dims: Dims) -> tuple[int, int]:
        return dims.student.layers * dims.student.width, len(self.teacher_layers(dims)) * dims.teacher_model.width

    def views(self, signals: Signals, aux: nn.ModuleDict) -> tuple[Tensor, Tensor]:
        student_BM = summarise(signals.student_layers_BLS, aux["student"])
        return student_BM, summarise(signals.teacher_layers_BLH, aux["teacher"])


@dataclass(frozen=True, kw_only=True)
class CoDIR(LayerContrast):
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
    search_space: ClassVar[Space] = space(
        contrastive_weight=Span(0.1, 10.0, log=True),
        num_negatives=Span(32, 512, log=True),
        temperature=Span(0.02, 0.5, log=True),
        bank_momentum=Span(0.0, 0.9),
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
    layer_map: LayerMap = "all"
    """Teacher layers that are stacked: `all`; `last`, one for each student layer, the last included; `code`, every
    second from the first on, as in the released code."""
    layer_pooling: LayerPooling = "mean"
    """How layers are pooled: `mean` over tokens, or the first token's state (`cls`)."""
    false_negative_similarity: float | None = None
    """Leave out negatives whose teacher vector has a higher cosine than this with the anchor's; unset: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.false_negative_similarity is not None and not -1 <= self.false_negative_similarity <= 1:
            raise ValueError(
                f"false_negative_similarity is a cosine, from -1 to 1; got {self.false_negative_similarity}"
            )

    def needs(self, dims: Dims) -> Needs:
        needs = super().needs(dims)
        if self.contrastive_weight and self.false_negative_similarity is not None:
            return replace(needs, teacher_final=True, teacher_negatives=True)
        return needs

    def new_banks(self, num_sentences: int) -> State:
        sides = ("teacher", "student") if self.symmetric else ("teacher",)
        return State(**{side: new_bank(num_sentences, self.shared_width) for side in sides})

    def contrast(self, signals: Signals, aux: nn.ModuleDict) -> Tensor:
        banks, index_BK = cast(State, aux["banks"]), signals.negative_index_BK
        student_BM, teacher_BM = self.views(signals, aux)
        dropped_BK = self._false_negatives(signals)
        one_way = bank_info_nce(student_BM, teacher_BM, banks["teacher"], index_BK, self.temperature, dropped_BK)
        if not self.symmetric:
            return one_way
        other_way = bank_info_nce(teacher_BM, student_BM, banks["student"], index_BK, self.temperature, dropped_BK)
        return (one_way + other_way) / 2

    def _false_negatives(self, signals: Signals) -> Tensor | None:
        if self.false_negative_similarity is None:
            return None
        distance_BK = cosine_distance(signals.teacher_final_BD[:, None], signals.teacher_negatives_BKD)
        return 1 - distance_BK > self.false_negative_similarity

    def remember(self, signals: Signals, aux: nn.ModuleDict) -> None:
        banks = cast(State, aux["banks"])
        teacher_BM = summarise(signals.teacher_layers_BLH, aux["teacher"])
        move(banks["teacher"], signals.index_B, teacher_BM, self.bank_momentum)
        if self.symmetric:
            student_BM = summarise(signals.student_layers_BLS, aux["student"])
            move(banks["student"], signals.index_B, student_BM, self.bank_momentum)

    def contrast_flops(self, dims: Dims, batch_size: int) -> float:
        student, teacher = self.widths(dims)
        scores = matmul_flops(batch_size, self.shared_width, self.num_negatives, gradients=1)
        one_way = matmul_flops(batch_size, student, self.shared_width) + scores
        one_way += matmul_flops(batch_size, teacher, self.shared_width, gradients=1)
        # The fresh projections of after_step.
        one_way += matmul_flops(batch_size, teacher, self.shared_width, gradients=0)
        other_way = scores + matmul_flops(batch_size, student, self.shared_width, gradients=0)
        return one_way + other_way if self.symmetric else one_way
