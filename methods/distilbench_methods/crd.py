"""Contrast student and teacher vectors of a sentence with those of others, drawn from two memory banks.

Source: Tian, Krishnan and Isola 2020 (ICLR), contrastive representation distillation, arXiv:1910.10699.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from distilbench_methods.banks import NoiseContrast, summarise
from distilbench_methods.base import Dims, Needs, Signals
from distilbench_methods.space import Space, Span, space


@dataclass(frozen=True, kw_only=True)
class CRD(NoiseContrast):
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
    search_space: ClassVar[Space] = space(
        contrastive_weight=Span(0.1, 10.0, log=True),
        final_weight=Span(0.1, 10.0, log=True),
        num_negatives=Span(64, 1024, log=True),
        temperature=Span(0.02, 0.5, log=True),
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

    def needs(self, dims: Dims) -> Needs:
        return Needs(teacher_final=True, negatives=self.num_negatives if self.contrastive_weight else 0)

    def widths(self, dims: Dims) -> tuple[int, int]:
        return dims.student_final, dims.teacher_final

    def views(self, signals: Signals, aux: nn.ModuleDict) -> tuple[Tensor, Tensor]:
        student_BM = summarise(signals.student_BS[:, None], aux["student"])
        return student_BM, summarise(signals.teacher_final_BD[:, None], aux["teacher"])

    def contrast(self, signals: Signals, aux: nn.ModuleDict) -> Tensor:
        return self.sides(signals, aux).sum()
