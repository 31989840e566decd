"""Regress the teacher's vector: squared error, distance or cosine between the student's vector and its target.

Source: Reimers and Gurevych 2020, arXiv:2004.09813; metrics and projection as in the sentence-transformers library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilbench_methods.base import (
    Dims,
    Method,
    Needs,
    Signals,
    State,
    UnsuitableError,
    check_one_of,
    check_positive,
    matmul_flops,
)
from distilbench_methods.functional import (
    cosine_distance,
    principal_components,
    principal_components_flops,
    projection,
    projection_flops,
    unit,
)
from distilbench_methods.space import Choice, Space, space

Metric = Literal["mse", "l2", "squared", "cosine"]
Projection = Literal["student", "teacher-pca", "shipped"]


def mean_squared_error(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """1/(B D) sum_i |s_i - t_i|^2, a scalar: the mean over sentences and over dimensions."""
    return F.mse_loss(student_BD, teacher_BD)


def mean_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """1/B sum_i |s_i - t_i|, a scalar; where they coincide the gradient is 0."""
    distance_B: Tensor = torch.linalg.vector_norm(student_BD - teacher_BD, dim=-1)
    return distance_B.mean()


def mean_squared_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """1/B sum_i |s_i - t_i|^2, a scalar: D times `mean_squared_error`."""
    return (student_BD - teacher_BD).square().sum(-1).mean()


def mean_cosine_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """1/B sum_i (1 - cos(s_i, t_i)), a scalar. On unit vectors the squared error is this times 2/D."""
    return cosine_distance(student_BD, teacher_BD).mean()


METRICS: dict[Metric, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mean_squared_error,
    "l2": mean_distance,
    "squared": mean_squared_distance,
    "cosine": mean_cosine_distance,
}


@dataclass(frozen=True, kw_only=True)
class MSE(Method):
    """Vector regression, the plainest distillation."""

    name: ClassVar[str] = "mse"
    source: ClassVar[str] = (
        "Reimers and Gurevych 2020, arXiv:2004.09813: the squared error to the teacher's vector, on one text column. "
        "The other metrics, the trainable projection (with bias, dropped at export) that stands in where the widths "
        "differ, and its alternative, principal components of the teacher's vectors (fitted to centred vectors, "
        "applied to vectors that are not), follow the sentence-transformers library. The variant `leaf`, Vujanic and "
        "Rueckstiess 2025, arXiv:2509.12539, takes the squared distance of unit vectors behind a linear layer that "
        "ships."
    )
    unverified: ClassVar[str] = (
        "The paper's own objective, a sum of such terms over a text and its translation, is quoted from memory; the "
        "formulas here were checked against the library's code. LEAF is known from summaries: one has the distance "
        "(`metric: l2`) and no unit length (`normalize: false`); its texts and hyperparameters are not reproduced."
    )
    search_space: ClassVar[Space] = space(
        metric=Choice("mse", "l2", "cosine"),
        normalize=Choice(True, False),
    )

    metric: Metric = "mse"
    """What is minimised: `mse` the mean squared error, `l2` the mean Euclidean distance, `squared` the mean of its
    square, `cosine` 1 - cosine."""
    projection: Projection = "student"
    """How widths are brought together: `student` a linear map of the student's vector, dropped at export (none where
    the widths agree); `teacher-pca` principal components of the teacher's; `shipped` a linear layer that ships."""
    fit_rows: int = 20_000
    """Teacher vectors to which principal components are fitted, fewer where the text has fewer."""
    normalize: bool = True
    """Bring the vector that ships to unit length, before a projection that is dropped, as sentence-transformers does
    for a student whose modules end, like its teacher's, in Normalize. Switch it off for a teacher whose lengths carry
    meaning."""

    def __post_init__(self) -> None:
        check_one_of(get_args(Metric), metric=self.metric)
        check_one_of(get_args(Projection), projection=self.projection)
        check_positive(fit_rows=self.fit_rows)

    def needs(self, dims: Dims) -> Needs:
        if self.projection != "teacher-pca":
            return Needs(teacher_final=True)
        if dims.student_final > dims.teacher_final:
            raise UnsuitableError(
                f"mse: the student's vectors have {dims.student_final} dimensions, the teacher's {dims.teacher_final}, "
                "and principal components cannot widen them; set projection to student"
            )
        return Needs(teacher_final=True, fit_rows=self.fit_rows)

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        if self.projection == "teacher-pca":
            return nn.ModuleDict({"pca": State(components=torch.eye(dims.student_final, dims.teacher_final))})
        if self.projection == "shipped":
            return nn.ModuleDict({"head": nn.Linear(dims.student_final, dims.teacher_final)})
        return nn.ModuleDict({"projection": projection(dims.student_final, dims.teacher_final)})

    def fit(self, aux: nn.ModuleDict, teacher_RD: Tensor) -> None:
        components_SD = cast(State, aux["pca"])["components"]
        components_SD.copy_(principal_components(teacher_RD, len(components_SD)))

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        student, teacher = signals.student_BS, signals.teacher_final_BD
        if self.projection == "shipped":
            student = aux["head"](student)
        if self.normalize:
            student = unit(student)
        if self.projection == "student":
            student = aux["projection"](student)
        elif self.projection == "teacher-pca":
            teacher = teacher @ cast(State, aux["pca"])["components"].T
        return {"final": METRICS[self.metric](student, teacher)}

    def exported_head(self, aux: nn.ModuleDict) -> nn.Module | None:
        return aux["head"] if self.projection == "shipped" else None

    def fit_flops(self, dims: Dims, num_rows: int) -> float:
        return principal_components_flops(num_rows, dims.teacher_final)

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        student, teacher = dims.student_final, dims.teacher_final
        if self.projection == "teacher-pca":
            return matmul_flops(batch_size, teacher, student, gradients=0)
        if self.projection == "shipped":
            return matmul_flops(batch_size, student, teacher)
        return projection_flops(batch_size, student, teacher)
