"""Dropout whose random numbers cost little on a CPU, where torch draws them one at a time in double precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 2**16
BYTES_PER_DRAW, BYTES_PER_LEVEL = 8, 2


def cheap_dropout(x: Tensor, p: float) -> Tensor:
    """Zero each entry with probability p (rounded to a multiple of 2^-16) and scale the others by 1 / (1 - p).

    Four entries share one 64-bit draw of torch's global generator.
    """
    per_draw = BYTES_PER_DRAW // BYTES_PER_LEVEL
    draws = torch.empty(-(-x.numel() // per_draw), dtype=torch.int64).random_(-(2**63), None)
    levels = draws.view(torch.int16)[: x.numel()].view(x.shape)
    dropped = round(p * LEVELS)
    keep = levels >= dropped - LEVELS // 2
    # One product forward and one backward, where choosing entries and scaling them would take two each.
    return (x * torch.where(keep, LEVELS / (LEVELS - dropped), 0.0)).to(x.dtype)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout as in torch, by whichever way is faster on the tensor's device."""
    if not training or p == 0:
        return x
    return cheap_dropout(x, p) if x.device.type == "cpu" else nn.functional.dropout(x, p)


class Dropout(nn.Dropout):
    """Takes the place of `torch.nn.Dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)


def replace_dropout(module: nn.Module) -> None:
    """Put `Dropout` in place of every `torch.nn.Dropout` below a module."""
    for name, child in module.named_children():
        if type(child) is nn.Dropout:
            setattr(module, name, Dropout(child.p))
        else:
            replace_dropout(child)
