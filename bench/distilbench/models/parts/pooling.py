"""How token states become one vector: training, export and evaluation all pool through `pool`.

Shapes: B sentences, T tokens, S width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distilbench.study.sections.models import PoolingMode

Pooling = PoolingMode | tuple[PoolingMode, ...]
SMALLEST_COUNT = 1e-9
"""What stands for the number of tokens of a text that has none: its vector is zero."""


def pool(hidden_BTS: Tensor, mask_BT: Tensor, how: Pooling) -> Tensor:
    """One vector per sentence, [B, S], from real tokens, special ones included; of several modes, side by side."""
    if isinstance(how, str):
        return _pool(hidden_BTS, mask_BT, how)
    return torch.cat([_pool(hidden_BTS, mask_BT, mode) for mode in how], dim=-1)


def _pool(hidden_BTS: Tensor, mask_BT: Tensor, mode: PoolingMode) -> Tensor:
    if mode in ("cls", "lasttoken"):
        # Padding may stand on either side.
        last_B = mask_BT.shape[1] - 1 - mask_BT.flip(1).int().argmax(dim=1)
        place_B = mask_BT.int().argmax(dim=1) if mode == "cls" else last_B
        return hidden_BTS[torch.arange(len(hidden_BTS), device=hidden_BTS.device), place_B]
    if mode == "max":
        return hidden_BTS.masked_fill(mask_BT.unsqueeze(-1) == 0, float("-inf")).amax(dim=1)
    weights = mask_BT.unsqueeze(-1).to(hidden_BTS.dtype)
    if mode == "weightedmean":
        weights = weights * weights.cumsum(dim=1)
    count = weights.sum(dim=1).clamp(min=SMALLEST_COUNT)
    return (hidden_BTS * weights).sum(dim=1) / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)
