"""Dropout whose random numbers cost little on a CPU, where torch draws them one at a time in double precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 2**16
BYTES_PER_DRAW, BYTES_PER_LEVEL = 8, 2
HALVES = (torch.bfloat16, torch.float16)


def cheap_dropout(x: Tensor, p: float) -> Tensor:
    """Zero each entry with probability p (rounded to a multiple of 2^-16) and scale the others by 1 / (1 - p).

    Four entries share one 64-bit draw of torch's global generator.
    """
    per_draw = BYTES_PER_DRAW // BYTES_PER_LEVEL
    draws = torch.empty(-(-x.numel() // per_draw), dtype=torch.int64).random_(-(2**63), None)
    levels = draws.view(torch.int16)[: x.numel()].view(x.shape)
    dropped = round(p * LEVELS)
    # One product forward and one backward, where choosing entries and scaling them would take two each.
    return x * _factors(levels, dropped - LEVELS // 2, LEVELS / (LEVELS - dropped), x.dtype)


def _factors(levels: Tensor, least: int, scale: float, dtype: torch.dtype) -> Tensor:
    """The scale from some level on, and zero below it; int16 `levels` may be overwritten."""
    if dtype not in HALVES:
        return torch.where(levels >= least, torch.tensor(scale, dtype=dtype), torch.zeros((), dtype=dtype))
    # One or zero times the bits of the scale, since torch chooses numbers of sixteen bits one by one.
    bits = int(torch.tensor(scale, dtype=dtype).view(torch.int16))
    return levels.ge_(least).mul_(bits).view(dtype)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout as in torch, by whichever way is faster on the tensor's device."""
    if not training or p == 0:
        return x
    return cheap_dropout(x, p) if x.device.type == "cpu" else nn.functional.dropout(x, p)


class Dropout(nn.Dropout):
    """Takes the place of `torch.nn.Dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)
