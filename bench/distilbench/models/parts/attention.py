"""Attention that can show what is inside it, registered with transformers beside its own kinds.

Shapes: B sentences, T tokens, S width, A heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from distilbench.models.parts.dropout import dropout as drop

MAPS = "distilbench_maps"
"""The name that it is registered by."""
PROBE_TOKENS, PROBE_TOLERANCE, PROBE_TOLERANCE_IN_BF16 = 8, 1e-3, 0.1
"""In bf16, rounding adds up over the layers; a bias or sinks that are not known here change states by more."""


@dataclass(frozen=True)
class AttentionInside:
    """What one block's attention worked with: queries, keys, values [B, 3, T, S], and scores [B, A, T, T]."""

    qkv: Tensor
    scores: Tensor


_captured: ContextVar[list[AttentionInside] | None] = ContextVar("captured", default=None)
"""Where the blocks of a pass leave what is inside them, the lowest first; None where nobody asks."""


def _attention_with_maps(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Plain attention that returns its probabilities as they are before dropout."""
    if (groups := query.shape[1] // key.shape[1]) > 1:
        # Heads that share keys and values (grouped-query attention).
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if (captured := _captured.get()) is not None:
        side_by_side = [part.transpose(1, 2).flatten(2) for part in (query, key, value)]
        captured.append(AttentionInside(torch.stack(side_by_side, dim=1), scores))
    if attention_mask is not None:
        scores = scores + attention_mask
    # In bf16, on a CPU, torch takes twice as long for it.
    probabilities = scores.softmax(dim=-1, dtype=torch.float32)
    output = drop(probabilities, dropout, module.training).to(value.dtype) @ value
    return output.transpose(1, 2).contiguous(), probabilities


ALL_ATTENTION_FUNCTIONS.register(MAPS, _attention_with_maps)
ALL_MASK_ATTENTION_FUNCTIONS.register(MAPS, eager_mask)


@contextmanager
def captured(wanted: bool) -> Iterator[list[AttentionInside]]:
    """What the blocks of the passes made meanwhile work with, the lowest block first; nothing unless it is wanted."""
    inside: list[AttentionInside] = []
    token = _captured.set(inside if wanted else None)
    try:
        yield inside
    finally:
        _captured.reset(token)


def gives_the_same(backbone: Any, own: str, device: torch.device) -> bool:
    """Whether an architecture gives the same states when its attention, named `own`, is this one.

    An architecture may hand its attention more than is known here, such as sinks or a bias of positions.
    """
    if not getattr(backbone, "_supports_attention_backend", False):
        return False
    ids_BT = torch.arange(2 * PROBE_TOKENS, device=device).view(2, -1)
    ids_BT = ids_BT % backbone.get_input_embeddings().num_embeddings
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[1, PROBE_TOKENS // 2 :] = 0
    training, states = backbone.training, []
    backbone.eval()
    try:
        for attention in (own, MAPS):
            backbone.set_attn_implementation(attention)
            with torch.no_grad():
                states.append(backbone(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state.float())
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return False
    finally:
        backbone.set_attn_implementation(own)
        backbone.train(training)
    theirs, ours = (torch.where(mask_BT.unsqueeze(-1) == 1, state, 0.0) for state in states)
    tolerance = PROBE_TOLERANCE if backbone.dtype == torch.float32 else PROBE_TOLERANCE_IN_BF16
    return bool(torch.allclose(theirs, ours, atol=tolerance, rtol=tolerance))
