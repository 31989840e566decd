"""Regress the teacher's vector: squared error, distance or cosine between the student's vector and its target.

Source: Reimers and Gurevych 2020, arXiv:2004.09813; metrics and projection as in the sentence-transformers library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Dims, Method, Needs, Signals, check_one_of
from methods.functional import cosine_distance, projection, projection_flops, unit

Metric = Literal["mse", "l2", "cosine"]


def mean_squared_error(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """1/(B D) sum_i |s_i - t_i|^2, a scalar: the mean over sentences and over dimensions."""
    return F.mse_loss(student_BD, teacher_BD)


def mean_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """1/B sum_i |s_i - t_i|, a scalar."""
    return F.pairwise_distance(student_BD, teacher_BD, eps=0.0).mean()


def mean_cosine_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """1/B sum_i (1 - cos(s_i, t_i)), a scalar. On unit vectors the squared error is this times 2/D."""
    return cosine_distance(student_BD, teacher_BD).mean()


METRICS: dict[Metric, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mean_squared_error,
    "l2": mean_distance,
    "cosine": mean_cosine_distance,
}


@dataclass(frozen=True, kw_only=True)
class MSE(Method):
    """Vector regression, the plainest distillation."""

    name: ClassVar[str] = "mse"
    source: ClassVar[str] = (
        "Reimers and Gurevych 2020, arXiv:2004.09813: the squared error to the teacher's vector, on one text column. "
        "The other metrics, and the trainable projection (with bias, dropped at export) that stands in where the "
        "widths differ, follow the losses of the sentence-transformers library."
    )
    unverified: ClassVar[str] = (
        "The paper's own objective, a sum of such terms over a text and its translation, is quoted from memory; "
        "the formulas here were checked against the library's code."
    )

    metric: Metric = "mse"
    """What is minimised: `mse` the mean squared error, `l2` the mean Euclidean distance, `cosine` 1 - cosine."""
    normalize: bool = True
    """Bring the student's vector to unit length before the projection, as sentence-transformers does for a student
    whose modules end, like its teacher's, in Normalize. Switch it off for a teacher whose lengths carry meaning."""

    def __post_init__(self) -> None:
        check_one_of(get_args(Metric), metric=self.metric)

    def needs(self, dims: Dims) -> Needs:
        return Needs(teacher_final=True)

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        return nn.ModuleDict({"projection": projection(dims.student.width, dims.teacher_final)})

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        student_BS = unit(signals.student_BS) if self.normalize else signals.student_BS
        student_BD = aux["projection"](student_BS)
        return {"final": METRICS[self.metric](student_BD, signals.teacher_final_BD)}

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        return projection_flops(batch_size, dims.student.width, dims.teacher_final)
