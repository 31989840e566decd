"""Match the teacher by contrast while forgetting the input: InfoNCE to the teacher's vectors plus an HSIC penalty.

Source: Zhang et al. 2023, arXiv:2311.05472 (information bottleneck), the distillation stage of the released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from methods.base import Dims, Method, Needs, Signals, UnsuitableError, check_not_negative, check_positive, matmul_flops
from methods.functional import in_full_precision, info_nce

Bandwidth = float | Literal["median"]

SMALLEST_MEDIAN = 1e-12
"""Keeps the median heuristic finite where most sentences of a batch coincide."""


def squared_distances(x_BE: Tensor) -> Tensor:
    """|x_i - x_j|^2 by the Gram expansion, [B, B], never below 0."""
    # Distances ignore a shift, but the expansion cancels badly when all vectors share a large mean.
    x_BE = x_BE - x_BE.mean(0)
    square_B = (x_BE * x_BE).sum(-1)
    return (square_B[:, None] + square_B - 2 * (x_BE @ x_BE.T)).clamp_min(0)


def off_diagonal(x_BB: Tensor) -> Tensor:
    """All entries but the diagonal, [B (B - 1)], without a mask: selecting by one would wait for the device."""
    size = len(x_BB)
    return x_BB.flatten()[1:].view(size - 1, size + 1)[:, :-1].flatten()


@in_full_precision
def rbf_kernel(x_BE: Tensor, gamma: Bandwidth) -> Tensor:
    """exp(-gamma |x_i - x_j|^2), [B, B].

    `gamma="median"` is 1/(2 m) with m the (lower) median of the off-diagonal squared distances, taken as a constant.
    """
    distance_BB = squared_distances(x_BE)
    if gamma == "median":
        median = off_diagonal(distance_BB.detach()).median().clamp_min(SMALLEST_MEDIAN)
        return torch.exp(-distance_BB / (2 * median))
    return torch.exp(-gamma * distance_BB)


def kernel_dependence(k_BB: Tensor, l_BB: Tensor) -> Tensor:
    """tr(K H L H) / (B - 1)^2 with H = I - 11^T/B, a scalar, in O(B^2): tr(K H L H) = sum((H K H) * L).

    The biased estimator of the Hilbert-Schmidt independence criterion: Gretton et al. 2005, eq. 9.
    """
    centred_BB = k_BB - k_BB.mean(0) - k_BB.mean(1, keepdim=True) + k_BB.mean()
    return (centred_BB * l_BB).sum() / (len(k_BB) - 1) ** 2


def hsic(x_BE: Tensor, z_BS: Tensor, gamma: Bandwidth) -> Tensor:
    """Dependence of two views of the same sentences under RBF kernels, a scalar; about 0 when they are independent."""
    if len(x_BE) < 2:
        raise ValueError("HSIC compares sentences: a batch needs two or more, got one; use a larger batch size")
    return kernel_dependence(rbf_kernel(x_BE, gamma), rbf_kernel(z_BS, gamma))


@dataclass(frozen=True, kw_only=True)
class IBKD(Method):
    """Information-bottleneck distillation, first stage."""

    name: ClassVar[str] = "ibkd"
    source: ClassVar[str] = (
        "Zhang et al. 2023, arXiv:2311.05472, the unsupervised distillation stage of the released code: InfoNCE with "
        "the student as anchor, through a decoder that is dropped at export, plus the HSIC between the pooled "
        "embedding block and the shipped vector. Defaults are the values of the released script. The release calls "
        "an undefined function for the penalty; its only RBF penalty is meant here. The optional extra teacher rows "
        "of the release (none by default) are left out."
    )
    unverified: ClassVar[str] = (
        "Only the paper's abstract was at hand: its weight, temperature, kernel, bandwidth, negatives and choice of "
        "input are not confirmed, nor whether its targets were raw or reduced to 128 dimensions."
    )

    hsic_weight: float = 0.2
    """Weight of the penalty on what the shipped vector keeps of its input; 0 leaves the contrastive term alone."""
    temperature: float = 1.0
    """Divides the cosines of the contrastive term."""
    gamma: Bandwidth = 1.0
    """Bandwidth of both kernels, exp(-gamma distance^2), or `median`: 1/(2 median distance^2) of each batch.

    A fixed bandwidth saturates on vectors of large norm: off-diagonal kernel means near 0 or 1 in the curve say so.
    """
    input_layer: int = 0
    """Pooled student layer that stands for the input: 0 is the embedding block."""
    detach_input: bool = False
    """Keep the penalty's gradient out of the input side."""

    def __post_init__(self) -> None:
        check_not_negative(hsic_weight=self.hsic_weight, input_layer=self.input_layer)
        check_positive(temperature=self.temperature)
        if self.gamma != "median":
            check_positive(gamma=self.gamma)

    def needs(self, dims: Dims) -> Needs:
        if self.input_layer > dims.student.layers:
            raise UnsuitableError(
                f"ibkd: input_layer is {self.input_layer}, but the student has {dims.student.layers} layers; "
                f"choose one from 0 to {dims.student.layers}"
            )
        return Needs(teacher_final=True, student_layers=(self.input_layer,) if self.hsic_weight else ())

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        return nn.ModuleDict({"decoder": nn.Linear(dims.student.width, dims.teacher_final)})

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        student_BD = aux["decoder"](signals.student_BS)
        terms = {"contrastive": info_nce(student_BD, signals.teacher_final_BD, self.temperature)}
        if self.hsic_weight:
            input_BS = signals.student_layers_BLS[:, 0]
            input_BS = input_BS.detach() if self.detach_input else input_BS
            terms["hsic"] = self.hsic_weight * hsic(input_BS, signals.student_BS, self.gamma)
        return terms

    def diagnostics(self, signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor]:
        if not self.hsic_weight:
            return {}
        input_BB = rbf_kernel(signals.student_layers_BLS[:, 0], self.gamma)
        output_BB = rbf_kernel(signals.student_BS, self.gamma)
        return {
            "input_kernel": off_diagonal(input_BB).mean(),
            "output_kernel": off_diagonal(output_BB).mean(),
            "hsic": kernel_dependence(input_BB, output_BB),
        }

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        width, target = dims.student.width, dims.teacher_final
        decoder = matmul_flops(batch_size, width, target)
        similarities = matmul_flops(batch_size, target, batch_size, gradients=1)
        if not self.hsic_weight:
            return decoder + similarities
        input_kernel = matmul_flops(batch_size, width, batch_size, gradients=0 if self.detach_input else 2)
        return decoder + similarities + input_kernel + matmul_flops(batch_size, width, batch_size)
