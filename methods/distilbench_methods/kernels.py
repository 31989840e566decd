"""Kernels, and the dependence that they measure: what both stages of IBKD and relational methods share."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from distilbench_methods.base import check_positive
from distilbench_methods.functional import in_full_precision, unit, without_diagonal

Bandwidth = float | Literal["median"]
Kernel = Literal["rbf", "imq", "linear", "cosine"]
KERNELS = get_args(Kernel)

SMALLEST_MEDIAN = 1e-12
"""Keeps the median heuristic finite where most sentences of a batch coincide."""
SMALLEST_GRADIENT = 1e-12
"""Keeps a ratio of gradients finite where the contrast has nothing to say, as with zero vectors."""


def check_bandwidth(gamma: Bandwidth) -> None:
    """Raise `ValueError` unless `gamma` is a positive, finite number or "median"."""
    if isinstance(gamma, str):
        if gamma != "median":
            raise ValueError(f"gamma must be a positive number or median, got {gamma!r}")
    else:
        check_positive(gamma=gamma)


def squared_distances(x_BE: Tensor) -> Tensor:
    """|x_i - x_j|^2 by the Gram expansion, [B, B], never below 0."""
    # Distances ignore a shift, but the expansion cancels badly when all vectors share a large mean.
    x_BE = x_BE - x_BE.mean(0)
    square_B = (x_BE * x_BE).sum(-1)
    return (square_B[:, None] + square_B - 2 * (x_BE @ x_BE.T)).clamp_min(0)


@in_full_precision
def kernel_matrix(x_BE: Tensor, gamma: Bandwidth = 1.0, kernel: Kernel = "rbf") -> Tensor:
    """Kernel of all pairs, [B, B], with d the distance |x_i - x_j|.

    `rbf` exp(-gamma d^2); `imq` (inverse multiquadric) 1 / sqrt(d^2 + gamma); `linear` the inner product of the rows
    less their mean, `cosine` that of the rows at unit length, both without gamma. `gamma="median"` is 1/(2 m) for `rbf`
    and 2 m for `imq`, with m the (lower) median of the off-diagonal squared distances, taken as a constant.
    """
    if kernel == "cosine":
        direction_BE = unit(x_BE)
        return direction_BE @ direction_BE.T
    if kernel == "linear":
        # HSIC centres the kernel anyway; centring the rows first keeps the digits that a large common mean would eat.
        x_BE = x_BE - x_BE.mean(0)
        return x_BE @ x_BE.T
    square_BB = squared_distances(x_BE)
    if kernel == "imq":
        return (square_BB + (2 * _median(square_BB) if gamma == "median" else gamma)).rsqrt()
    return torch.exp(-(square_BB / (2 * _median(square_BB)) if gamma == "median" else square_BB * gamma))


def _median(square_BB: Tensor) -> Tensor:
    return without_diagonal(square_BB.detach()).flatten().median().clamp_min(SMALLEST_MEDIAN)


def kernel_dependence(k_BB: Tensor, l_BB: Tensor) -> Tensor:
    """tr(K H L H) / (B - 1)^2 with H = I - 11^T/B, a scalar, in O(B^2): tr(K H L H) = sum((H K H) * L).

    The biased estimator of the Hilbert-Schmidt independence criterion: Gretton et al. 2005, eq. 9.
    """
    centred_BB = k_BB - k_BB.mean(0) - k_BB.mean(1, keepdim=True) + k_BB.mean()
    return (centred_BB * l_BB).sum() / (len(k_BB) - 1) ** 2


def hsic(
    x_BE: Tensor, z_BS: Tensor, gamma: Bandwidth, kernel: Kernel = "rbf", normalize_inputs: bool = False
) -> Tensor:
    """Dependence of two views of the same sentences under a kernel, a scalar; about 0 when they are independent."""
    if len(x_BE) < 2:
        raise ValueError("HSIC compares sentences: a batch needs two or more, got one; use a larger batch size")
    if normalize_inputs:
        x_BE, z_BS = unit(x_BE), unit(z_BS)
    return kernel_dependence(kernel_matrix(x_BE, gamma, kernel), kernel_matrix(z_BS, gamma, kernel))


def gradient_ratio(penalty: Tensor, contrast: Tensor, shipped_BS: Tensor) -> Tensor:
    """Length of the penalty's gradient over that of the contrast's, both at the shipped vectors, a scalar.

    Near 0 the penalty does nothing, as where its kernels saturate. Both losses need a graph back to `shipped_BS`.
    """
    (of_penalty,) = torch.autograd.grad(penalty, shipped_BS)
    (of_contrast,) = torch.autograd.grad(contrast, shipped_BS)
    ratio: Tensor = of_penalty.float().norm() / of_contrast.float().norm().clamp_min(SMALLEST_GRADIENT)
    return ratio
