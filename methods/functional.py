"""Mathematics and heads that two or more methods share.

Shape suffixes beyond those of `methods.base`: E any shared width, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import matmul_flops

SMALLEST_NORM = 1e-6
"""Shorter vectors have no direction: they count as zero instead of blowing up the gradient."""

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
    """Rows divided by their length, [..., E]; a zero row stays zero."""
    return F.normalize(x_BE, dim=-1, eps=SMALLEST_NORM)


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


def projection(inputs: int, outputs: int) -> nn.Module:
    """Trainable linear map with bias between spaces of different width; nothing to train where they agree.

    It starts as an isometry (as far as the widths allow), because it is dropped at export: what is learnt behind it
    reaches the shipped vector only as far as it keeps angles.
    """
    if inputs == outputs:
        return nn.Identity()
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def projection_flops(rows: int, inputs: int, outputs: int) -> float:
    """FLOPs of `projection` on `rows` vectors, forward and backward."""
    return 0.0 if inputs == outputs else matmul_flops(rows, inputs, outputs)
