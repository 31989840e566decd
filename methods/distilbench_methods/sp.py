"""Keep which sentences of a batch resemble which: row-normalised similarity matrices of student and teacher.

Source: Tung and Mori 2019 (ICCV), similarity-preserving knowledge distillation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from distilbench_methods.base import Dims, Method, Needs, Signals, check_positive, matmul_flops
from distilbench_methods.functional import in_full_precision, unit
from distilbench_methods.space import Choice, Space, Span, space


@in_full_precision
def similarity_loss(student_BS: Tensor, teacher_BD: Tensor, normalize: bool) -> Tensor:
    """|G^t - G^s|_F^2 / B^2 with G = row-normalised F F^T, a scalar: Tung and Mori 2019, eq. 4.

    `normalize` brings the vectors to unit length first. A rotation of either space changes nothing.
    """
    if normalize:
        student_BS, teacher_BD = unit(student_BS), unit(teacher_BD)
    return F.mse_loss(unit(student_BS @ student_BS.T), unit(teacher_BD @ teacher_BD.T))


@dataclass(frozen=True, kw_only=True)
class SP(Method):
    """Similarity-preserving distillation."""

    name: ClassVar[str] = "sp"
    source: ClassVar[str] = (
        "Tung and Mori 2019 (ICCV), eq. 4, with the weight 3000 of a widely used reference implementation, which is "
        "for images. Unit vectors are ours: un-normalised ones mix the lengths of vectors into their similarities. "
        "Nothing ties the student's space to the teacher's, so students cannot be mixed with the teacher's index."
    )
    unverified: ClassVar[str] = (
        "The paper's text was not at hand; the formula follows the reference implementation. No weight for text is "
        "known."
    )
    search_space: ClassVar[Space] = space(
        similarity_weight=Span(300.0, 30_000.0, log=True),
        normalize=Choice(True, False),
    )

    similarity_weight: float = 3000.0
    """Weight of the term; the only one, so that it matters through gradient clipping alone."""
    normalize: bool = True
    """Bring vectors to unit length first."""

    def __post_init__(self) -> None:
        check_positive(similarity_weight=self.similarity_weight)

    @property
    def coupled(self) -> str:
        return "similarities between the sentences of the batch are compared"

    def needs(self, dims: Dims) -> Needs:
        return Needs(teacher_final=True)

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        if len(signals.student_BS) < 2:
            raise ValueError("sp compares sentences: a batch needs two or more, got one; use a larger batch size")
        value = similarity_loss(signals.student_BS, signals.teacher_final_BD, self.normalize)
        return {"similarity": self.similarity_weight * value}

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        teacher = matmul_flops(batch_size, dims.teacher_final, batch_size, gradients=0)
        return matmul_flops(batch_size, dims.student_final, batch_size) + teacher
