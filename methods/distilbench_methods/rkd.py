"""Keep the geometry of a batch: relative distances between its sentences, and angles between triples of them.

Source: Park et al. 2019 (CVPR), relational knowledge distillation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilbench_methods.base import Dims, Method, Needs, Signals, check_not_negative, matmul_flops
from distilbench_methods.functional import in_full_precision, unit
from distilbench_methods.kernels import squared_distances
from distilbench_methods.space import Space, Span, space

SMALLEST_SQUARE = 1e-12
"""Squared distances below this count as none: the square root has no gradient at 0."""
ROUNDING = 64
"""So many roundings of two vectors' squared lengths also count as none; 7 were the most seen, width 8 to 4096."""


def relative_distances(x_BE: Tensor) -> Tensor:
    """|x_i - x_j| divided by the mean over the pairs that differ, [B, B]; 0 where two sentences coincide."""
    square_BB = squared_distances(x_BE)
    # Rounding leaves the diagonal and repeated sentences a little above 0, which would count as distances in the mean.
    own_BB = torch.eye(len(x_BE), dtype=torch.bool, device=x_BE.device)
    length_B = (x_BE - x_BE.mean(0)).square().sum(-1)
    noise_BB = ROUNDING * torch.finfo(x_BE.dtype).eps * (length_B[:, None] + length_B)
    apart_BB = (square_BB > noise_BB.clamp_min(SMALLEST_SQUARE)) & ~own_BB
    distance_BB = torch.where(apart_BB, square_BB.clamp_min(SMALLEST_SQUARE).sqrt(), 0.0)
    mean = distance_BB.sum() / apart_BB.sum().clamp_min(1)
    return distance_BB / mean.clamp_min(SMALLEST_SQUARE)


@in_full_precision
def distance_loss(student_BS: Tensor, teacher_BD: Tensor) -> Tensor:
    """1/B^2 sum_ij smooth_l1(psi^s_ij - psi^t_ij), psi the relative distances; a scalar: Park et al. 2019, eq. 5, 7.

    Translation, rotation and scale of either space change nothing. Two sentences have one distance, which is its own
    mean: the loss is then 0.
    """
    return F.smooth_l1_loss(relative_distances(student_BS), relative_distances(teacher_BD))


def angles(x_BE: Tensor) -> Tensor:
    """Cosine of the angle at i between j and k, [B, B, B], first index i; 0 where j or k coincides with i."""
    direction_BBE = unit(x_BE - x_BE[:, None])
    return direction_BBE @ direction_BBE.mT


@in_full_precision
def angle_loss(student_BS: Tensor, teacher_BD: Tensor) -> Tensor:
    """1/B^3 sum_ijk smooth_l1(angle^s_ijk - angle^t_ijk), a scalar: Park et al. 2019, eq. 6, 8.

    Two sentences make no triangle: the loss is then 0.
    """
    return F.smooth_l1_loss(angles(student_BS), angles(teacher_BD))


@dataclass(frozen=True, kw_only=True)
class RKD(Method):
    """Relational knowledge distillation."""

    name: ClassVar[str] = "rkd"
    source: ClassVar[str] = (
        "Park et al. 2019 (CVPR), the distance and angle losses with the weights of a widely used reference "
        "implementation (25 and 50). Nothing ties the student's space to the teacher's: only relations are kept, so "
        "students cannot be mixed with the teacher's index."
    )
    unverified: ClassVar[str] = "The paper's text was not at hand; formulas follow the reference implementation."
    search_space: ClassVar[Space] = space(
        distance_weight=Span(2.5, 250.0, log=True),
        angle_weight=Span(5.0, 500.0, log=True),
    )

    distance_weight: float = 25.0
    """Weight of the term on pairwise distances."""
    angle_weight: float = 50.0
    """Weight of the term on angles, which costs B^3 S operations."""

    def __post_init__(self) -> None:
        check_not_negative(distance_weight=self.distance_weight, angle_weight=self.angle_weight)
        if self.distance_weight == self.angle_weight == 0:
            raise ValueError("distance_weight and angle_weight are both 0: nothing would be trained")

    @property
    def coupled(self) -> str:
        return "relations between the sentences of the batch are compared"

    def needs(self, dims: Dims) -> Needs:
        return Needs(teacher_final=True)

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        if len(signals.student_BS) < 2:
            raise ValueError("rkd compares sentences: a batch needs two or more, got one; use a larger batch size")
        terms = {}
        if self.distance_weight:
            terms["distance"] = self.distance_weight * distance_loss(signals.student_BS, signals.teacher_final_BD)
        if self.angle_weight:
            terms["angle"] = self.angle_weight * angle_loss(signals.student_BS, signals.teacher_final_BD)
        return terms

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        student, teacher = dims.student_final, dims.teacher_final
        one_matrix = matmul_flops(batch_size, student, batch_size)
        one_matrix += matmul_flops(batch_size, teacher, batch_size, gradients=0)
        return (self.distance_weight > 0) * one_matrix + (self.angle_weight > 0) * batch_size * one_matrix
