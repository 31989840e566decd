"""Regress the teacher's vector in few dimensions, with the small head that makes them shipped with the student.

Source: Zhao et al. 2022 (Findings of ACL), homomorphic projective distillation, arXiv:2203.07687.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilbench_methods.base import Dims, Method, Needs, Signals, State, UnsuitableError, check_positive, matmul_flops
from distilbench_methods.functional import in_full_precision, principal_components, principal_components_flops, unit
from distilbench_methods.space import Choice, Space, space


@in_full_precision
def projected_target(teacher_BD: Tensor, component_KD: Tensor) -> Tensor:
    """C t / |t|, [B, K]: unit vectors on principal components, not centred; squared lengths are at most 1."""
    return unit(teacher_BD) @ component_KD.T


@in_full_precision
def projected_error(student_BK: Tensor, target_BK: Tensor) -> Tensor:
    """1/(B K) sum_i |s_i - C t_i / |t_i||^2, a scalar, s = tanh(W z + b)."""
    return F.mse_loss(student_BK, target_BK)


@dataclass(frozen=True, kw_only=True)
class HPD(Method):
    """Homomorphic projective distillation."""

    name: ClassVar[str] = "hpd"
    source: ClassVar[str] = (
        "Zhao et al. 2022 (Findings of ACL), as in the released code: a dense layer with tanh on the mean-pooled "
        "vector, which ships, regressed on the teacher's unit vector projected on its principal components. The "
        "components are fitted to centred vectors and applied to vectors that are not."
    )
    unverified: ClassVar[str] = (
        "Code and paper disagree on how many vectors the components are fitted to (40 000 or 100 000): the code's "
        "number is the default. The paper's text was not at hand."
    )
    search_space: ClassVar[Space] = space(
        width=Choice(64, 128),
    )

    width: int = 128
    """Width of the vector that ships."""
    fit_rows: int = 40_000
    """Teacher vectors to which the principal components are fitted, fewer where the text has fewer."""

    def __post_init__(self) -> None:
        check_positive(width=self.width, fit_rows=self.fit_rows)

    def needs(self, dims: Dims) -> Needs:
        if self.width > dims.teacher_final:
            raise UnsuitableError(
                f"hpd reduces the teacher's vectors, but width {self.width} is more than their {dims.teacher_final} "
                "dimensions; choose a smaller width"
            )
        return Needs(teacher_final=True, fit_rows=self.fit_rows)

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        head = nn.Sequential(nn.Linear(dims.student_final, self.width), nn.Tanh())
        return nn.ModuleDict({"head": head, "pca": State(components=torch.eye(self.width, dims.teacher_final))})

    def fit(self, aux: nn.ModuleDict, teacher_RD: Tensor) -> None:
        cast(State, aux["pca"])["components"].copy_(principal_components(unit(teacher_RD), self.width))

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        target_BK = projected_target(signals.teacher_final_BD, cast(State, aux["pca"])["components"])
        return {"final": projected_error(aux["head"](signals.student_BS), target_BK)}

    def exported_head(self, aux: nn.ModuleDict) -> nn.Module | None:
        return aux["head"]

    def fit_flops(self, dims: Dims, num_rows: int) -> float:
        return principal_components_flops(num_rows, dims.teacher_final)

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        target = matmul_flops(batch_size, dims.teacher_final, self.width, gradients=0)
        return target + matmul_flops(batch_size, dims.student_final, self.width)
