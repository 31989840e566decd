"""Mathematics and heads that two or more methods share.

Shape suffixes beyond those of `distilbench_methods.base`: E any shared width, C candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilbench_methods.base import matmul_flops

SMALLEST_NORM = 1e-6
"""Shorter vectors have no direction: they count as zero, without a gradient, which would blow up."""

P = ParamSpec("P")


def in_full_precision(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Run `function` outside autocast on float32 or wider; its first argument must be a tensor.

    Kernels, softmaxes at low temperatures and small distances lose their signal in half precision.
    """

    def widen(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(torch.promote_types(value.dtype, torch.float32))
        return value

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        with torch.autocast(cast(Tensor, args[0]).device.type, enabled=False):
            return function(*map(widen, args), **kwargs)

    return wrapped


@in_full_precision
def unit(x_BE: Tensor) -> Tensor:
    """Rows divided by their length, [..., E]; a row without a direction becomes zero and gets no gradient."""
    length_B1: Tensor = torch.linalg.vector_norm(x_BE, dim=-1, keepdim=True)
    short_B1 = length_B1 < SMALLEST_NORM
    # Masked before and after: where one branch is infinite, its gradient would be NaN behind a mask at the end alone.
    return (x_BE / length_B1.masked_fill(short_B1, 1)).masked_fill(short_B1, 0)


@in_full_precision
def cosine_distance(x_BE: Tensor, y_BE: Tensor) -> Tensor:
    """1 - cos(x, y) over the last dimension, [..., E] -> [...]; in [0, 2], and 1 where a vector is zero."""
    return 1 - (unit(x_BE) * unit(y_BE)).sum(-1)


@in_full_precision
def info_nce(anchor_BE: Tensor, candidate_CE: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding each anchor's own candidate by cosine, a scalar: van den Oord et al. 2018, eq. 4.

    -(1/B) sum_i log( exp(cos(a_i, c_i) / tau) / sum_j exp(cos(a_i, c_j) / tau) ), with j over all C >= B candidates:
    candidate i < B belongs to anchor i, later ones are negatives of every anchor.
    """
    logits_BC = unit(anchor_BE) @ unit(candidate_CE).T / temperature
    return F.cross_entropy(logits_BC, torch.arange(len(anchor_BE), device=anchor_BE.device))


@in_full_precision
def hard_negative_info_nce(
    anchor_BE: Tensor, positive_BE: Tensor, negative_BE: Tensor | None, temperature: float, alpha: float = 1.0
) -> Tensor:
    """Supervised InfoNCE with hard negatives, a scalar: Gao, Yao and Chen 2021, eq. 5 with the weight of section 3.

    -(1/B) sum_i log( e^{cos(h_i, h+_i) / tau} / sum_j ( e^{cos(h_i, h+_j) / tau} + alpha^{1[i = j]} e^{cos(h_i, h-_j) /
    tau} ) ). Without negatives it is InfoNCE between anchors and positives.
    """
    if negative_BE is None:
        return info_nce(anchor_BE, positive_BE, temperature)
    logits_BC = unit(anchor_BE) @ unit(torch.cat([positive_BE, negative_BE])).T / temperature
    own_BB = torch.eye(len(anchor_BE), dtype=logits_BC.dtype, device=logits_BC.device) * math.log(alpha)
    logits_BC = logits_BC + torch.cat([torch.zeros_like(own_BB), own_BB], dim=1)
    return F.cross_entropy(logits_BC, torch.arange(len(anchor_BE), device=anchor_BE.device))


def projection(inputs: int, outputs: int) -> nn.Module:
    """Trainable linear map with bias between spaces of different width; nothing to train where they agree."""
    return nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)


def projection_flops(rows: int, inputs: int, outputs: int) -> float:
    """FLOPs of `projection` on `rows` vectors, forward and backward."""
    return 0.0 if inputs == outputs else matmul_flops(rows, inputs, outputs)


def without_diagonal(x_BB: Tensor) -> Tensor:
    """Each row without its own column, [B, B - 1], by reshaping: selecting by a mask would wait for the device."""
    size = len(x_BB)
    return x_BB.flatten()[1:].view(size - 1, size + 1)[:, :-1].reshape(size, size - 1)


@in_full_precision
def cosine_similarities(x_BE: Tensor) -> Tensor:
    """cos(x_i, x_j) for j != i, [B, B - 1]. Raises `ValueError` for a batch of one, which has no pairs."""
    return cross_similarities(x_BE, x_BE)


@in_full_precision
def cross_similarities(x_BE: Tensor, y_BE: Tensor) -> Tensor:
    """cos(x_i, y_j) for j != i, [B, B - 1]. Raises `ValueError` for a batch of one, which has no pairs."""
    if len(x_BE) < 2:
        raise ValueError("similarities within a batch need two or more sentences; use a larger batch size")
    return without_diagonal(unit(x_BE) @ unit(y_BE).T)


@in_full_precision
def candidate_scores(anchor_BE: Tensor, candidate_BKE: Tensor, similarity: str) -> Tensor:
    """How well candidates fit their anchors, [B, K]: dot products, or cosines where `similarity` is "cosine"."""
    if similarity == "cosine":
        anchor_BE, candidate_BKE = unit(anchor_BE), unit(candidate_BKE)
    return (candidate_BKE @ anchor_BE[:, :, None]).squeeze(-1)


@in_full_precision
def in_batch_scores(anchor_BE: Tensor, candidate_BKE: Tensor, similarity: str) -> Tensor:
    """How well the candidates of all rows fit each anchor, [B, B, K]: entry i, j, k is of anchor i and row j's text k.

    Dot products, or cosines where `similarity` is "cosine".
    """
    if similarity == "cosine":
        anchor_BE, candidate_BKE = unit(anchor_BE), unit(candidate_BKE)
    rows, count, _ = candidate_BKE.shape
    return (anchor_BE @ candidate_BKE.flatten(0, 1).T).view(len(anchor_BE), rows, count)


def principal_components_flops(num_rows: int, width: int) -> float:
    """FLOPs of the covariance in `principal_components`; its decomposition is left out, as torch does."""
    return matmul_flops(width, num_rows, width, gradients=0)


def principal_components(x_RE: Tensor, count: int) -> Tensor:
    """The `count` leading principal directions of some vectors, orthonormal rows [count, E], each with a fixed sign.

    The vectors are centred for the fit, as scikit-learn does. Directions beyond the rank of the data are arbitrary.
    """
    centred_RE = x_RE.double() - x_RE.double().mean(0)
    _, directions_EE = torch.linalg.eigh(centred_RE.T @ centred_RE)
    leading_KE = directions_EE.flip(-1)[:, :count].T
    largest_K1 = leading_KE.gather(1, leading_KE.abs().argmax(dim=1, keepdim=True))
    signed_KE: Tensor = leading_KE * largest_K1.sign()
    return signed_KE.to(x_RE.dtype)
