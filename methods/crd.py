"""Contrast student and teacher vectors of a sentence with those of others, drawn from two memory banks.

Source: Tian, Krishnan and Isola 2020 (ICLR), contrastive representation distillation, arXiv:1910.10699.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from methods.banks import Banks, contrast_flops, summarise
from methods.base import Dims, Method, Needs, Signals, check_not_negative, check_positive
from methods.functional import cosine_distance, projection, projection_flops


@dataclass(frozen=True, kw_only=True)
class CRD(Method):
    """Contrastive representation distillation with memory banks."""

    name: ClassVar[str] = "crd"
    source: ClassVar[str] = (
        "Tian, Krishnan and Isola 2020 (ICLR), arXiv:1910.10699, eq. 17 to 19, as in the reference implementation: "
        "projections of both final vectors, a memory bank for each, positives from the banks, the normaliser of the "
        "first batch kept for good. The authors draw 16 384 negatives, from other classes where there are labels; "
        "here any other sentence may be drawn. A cosine term to the teacher's vector replaces the task loss. Bank "
        "rows move by projections taken after the optimiser's step."
    )
    unverified: ClassVar[str] = (
        "Read in a reference implementation; the paper's text was not at hand. The number of negatives is cut to what "
        "a CPU can train with, and the weight of the final term is ours."
    )

    contrastive_weight: float = 0.8
    """Weight of the contrastive term, both directions together."""
    final_weight: float = 1.0
    """Weight of the cosine term to the teacher's vector; 0 leaves the contrastive term alone."""
    num_negatives: int = 512
    """Bank rows drawn for each sentence and step."""
    temperature: float = 0.07
    """Divides the cosines of the contrastive term."""
    shared_width: int = 128
    """Width of the space in which both models are compared."""
    bank_momentum: float = 0.5
    """Share of a bank row that stays when its sentence is seen again; 0 replaces the row."""

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

    @property
    def coupled(self) -> str:
        return "the first batch's mean score normalises all others" if self.contrastive_weight else ""

    def negatives_per_step(self, batch_size: int) -> int:
        return self.num_negatives if self.contrastive_weight else 0

    def needs(self, dims: Dims) -> Needs:
        return Needs(teacher_final=True, negatives=self.num_negatives if self.contrastive_weight else 0)

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        aux = nn.ModuleDict()
        if self.contrastive_weight:
            aux["student"] = nn.Linear(dims.student_final, self.shared_width)
            aux["teacher"] = nn.Linear(dims.teacher_final, self.shared_width)
            aux["banks"] = Banks(dims.num_sentences, self.shared_width)
        if self.final_weight:
            aux["final"] = projection(dims.student_final, dims.teacher_final)
        return aux

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = {}
        if self.contrastive_weight:
            sides = cast(Banks, aux["banks"]).sides(*self._vectors(signals, aux), signals, self.temperature)
            terms["contrastive"] = self.contrastive_weight * torch.stack(sides).sum()
        if self.final_weight:
            distance_B = cosine_distance(aux["final"](signals.student_BS), signals.teacher_final_BD)
            terms["final"] = self.final_weight * distance_B.mean()
        return terms

    def _vectors(self, signals: Signals, aux: nn.ModuleDict) -> tuple[Tensor, Tensor]:
        student_BM = summarise(signals.student_BS[:, None], aux["student"])
        return student_BM, summarise(signals.teacher_final_BD[:, None], aux["teacher"])

    def after_step(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> None:
        if self.contrastive_weight:
            banks = cast(Banks, aux["banks"])
            banks.update(*self._vectors(signals, aux), signals, self.temperature, self.bank_momentum)

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        final = projection_flops(batch_size, dims.student_final, dims.teacher_final) if self.final_weight else 0.0
        if not self.contrastive_weight:
            return final
        widths = (dims.student_final, dims.teacher_final)
        return final + contrast_flops(batch_size, *widths, self.shared_width, self.num_negatives)
