"""What a pass of a transformer costs, as torch counts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

COUNTED_TOKENS = (8, 16, 32)


@dataclass(frozen=True)
class ForwardFlops:
    """FLOPs of a transformer's matrix products, forward only."""

    by_pass: float = 0.0
    by_token: float = 0.0
    """Of a text, for each of its tokens."""
    by_pair: float = 0.0
    """Of a text, for each pair of its tokens."""

    def of(self, batch_size: int, num_tokens: int) -> float:
        """Of a padded [B, T] batch."""
        return self.by_pass + batch_size * (self.by_token * num_tokens + self.by_pair * num_tokens**2)


def counted(backbone: Any, device: torch.device) -> ForwardFlops:
    """From torch's counts of small passes, exact where cost is quadratic in the length, as attention's is.

    Of blocks that are compiled, torch counts nothing, unless a transformer of the same shapes was counted before.
    """
    shapes = (type(backbone), backbone.config.to_json_string(use_diff=False), device.type)
    if shapes not in _known:
        _known[shapes] = _counted(backbone, device)
    return _known[shapes]


_known: dict[tuple[type, str, str], ForwardFlops] = {}


def _counted(backbone: Any, device: torch.device) -> ForwardFlops:
    if not backbone.config.num_hidden_layers:
        return ForwardFlops()
    training, attention = backbone.training, str(backbone.config._attn_implementation)
    backbone.eval()
    # Of fused attention on a CPU, torch's counter knows nothing.
    backbone.set_attn_implementation("eager")
    try:
        counts = [_count(backbone, tokens, device) for tokens in COUNTED_TOKENS]
    finally:
        backbone.set_attn_implementation(attention)
        backbone.train(training)
    return ForwardFlops(*np.polynomial.polynomial.polyfit(COUNTED_TOKENS, counts, 2).round().tolist())


def _count(backbone: Any, tokens: int, device: torch.device) -> float:
    ids_BT = torch.zeros(1, tokens, dtype=torch.long, device=device)
    try:
        return _count_pass(backbone, ids_BT, torch.ones_like(ids_BT))
    except RuntimeError:
        # Of a model without weights, encoders cannot look at a mask's values, and decoders not do without one.
        if device.type != "meta":
            raise
        return _count_pass(backbone, ids_BT, None)


def _count_pass(backbone: Any, ids_BT: Tensor, mask_BT: Tensor | None) -> float:
    # Without gradients, the counter stumbles over parameters that a block hands on, as DeBERTa's do.
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        backbone(input_ids=ids_BT, attention_mask=mask_BT)
    return float(counter.get_total_flops())
