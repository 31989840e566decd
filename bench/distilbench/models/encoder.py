"""Teacher and student are the same thing: a transformer, THE pooling function, and what ships behind it.

Training, export and evaluation all pool through `pool`, so a score cannot come from another vector than the one that
was trained. Shapes: B sentences, T tokens, S width, L requested layers, A heads.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from distilbench.core.errors import UserError
from distilbench.models.dropout import dropout as drop
from distilbench_methods.base import ModelDims
from distilbench_methods.pooling import LayerPooling

MAPS = "distilbench_maps"


@dataclass(frozen=True)
class _Inside:
    """What one block's attention worked with: queries, keys, values [B, 3, T, S], and scores [B, A, T, T]."""

    qkv: Tensor
    scores: Tensor


_captured: ContextVar[list[_Inside] | None] = ContextVar("captured", default=None)
"""Where the blocks of a pass leave what is inside them, the lowest first; None where nobody asks."""


def _attention_with_maps(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Plain attention that returns its probabilities as they are before dropout."""
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if (captured := _captured.get()) is not None:
        side_by_side = [part.transpose(1, 2).flatten(2) for part in (query, key, value)]
        captured.append(_Inside(torch.stack(side_by_side, dim=1), scores))
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = scores.softmax(dim=-1)
    output = drop(probabilities, dropout, module.training) @ value
    return output.transpose(1, 2).contiguous(), probabilities


ALL_ATTENTION_FUNCTIONS.register(MAPS, _attention_with_maps)
ALL_MASK_ATTENTION_FUNCTIONS.register(MAPS, eager_mask)


def pool(hidden_BTS: Tensor, mask_BT: Tensor, how: LayerPooling) -> Tensor:
    """One vector per sentence, [B, S]: the mean over real tokens (special ones included), or the first token."""
    if how == "cls":
        return hidden_BTS[:, 0]
    weights = mask_BT.unsqueeze(-1).to(hidden_BTS.dtype)
    return (hidden_BTS * weights).sum(dim=1) / weights.sum(dim=1)


@dataclass(frozen=True)
class Encoded:
    """What one pass gave."""

    final: Tensor
    """[B, output width]: the vector that ships."""
    layers: Tensor | None
    """[B, L, S]: pooled hidden states of the requested layers."""
    attention: tuple[Tensor, ...] | None
    """[B, A, T, T] for each requested layer: probabilities before dropout."""
    attention_scores: tuple[Tensor, ...] | None
    """[B, A, T, T] for each requested layer: what the probabilities are made from, padding not yet masked."""
    hidden: tuple[Tensor, ...] | None
    """[B, T, S] for each requested layer."""
    qkv: tuple[Tensor, ...] | None
    """[B, 3, T, S] for each requested layer: queries, keys and values, heads side by side."""


class Normalize(nn.Module):
    """Scale rows to unit length."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


class Dense(nn.Sequential):
    """A linear layer with an activation, stored as sentence-transformers' Dense module."""

    def __init__(self, linear: nn.Linear, activation: nn.Module) -> None:
        super().__init__(linear, activation)


class Encoder(nn.Module):
    """A transformer, its pooling, and the modules that ship behind it."""

    def __init__(self, backbone: Any, *, pooling: LayerPooling, head: nn.Module | None = None, max_length: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling: LayerPooling = pooling
        self.head = head if head is not None else nn.Identity()
        self.max_length = max_length
        self._own_attention = str(backbone.config._attn_implementation)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def can_give_maps(self) -> bool:
        """Whether the architecture takes its attention from transformers' registry, where ours is."""
        return bool(getattr(self.backbone, "_supports_attention_backend", False))

    @property
    def max_positions(self) -> int:
        """Tokens that the transformer can take, special ones included."""
        positions = int(getattr(self.backbone.config, "max_position_embeddings", sys.maxsize))
        # RoBERTa and its kin count positions from behind the padding index.
        offset = (
            getattr(self.backbone.embeddings, "padding_idx", None) if hasattr(self.backbone, "embeddings") else None
        )
        return positions - (offset + 1 if offset else 0)

    @property
    def dims(self) -> ModelDims:
        config = self.backbone.config
        return ModelDims(width=config.hidden_size, layers=config.num_hidden_layers, heads=config.num_attention_heads)

    def output_width(self) -> int:
        """Width of the vector that ships."""
        return output_width(self.head, int(self.backbone.config.hidden_size))

    def lowest(self, blocks: int) -> list[nn.Parameter]:
        """Parameters of the embeddings and of the lowest blocks."""
        name, stack = layer_stack(self.backbone)
        within = {id(parameter) for block in stack[blocks:] for parameter in block.parameters()}
        outside = [value for key, value in self.backbone.named_parameters() if not key.startswith(f"{name}.")]
        return outside + [value for value in stack.parameters() if id(value) not in within]

    def use_attention_maps(self, wanted: bool) -> None:
        """Choose between the architecture's own attention and one that can return its maps.

        Raises `UserError` for maps of an architecture that has none to give.
        """
        if wanted and not self.can_give_maps:
            raise UserError(
                f"a {type(self.backbone).__name__} cannot give its attention maps; choose a method without them"
            )
        self.backbone.set_attn_implementation(MAPS if wanted else self._own_attention)

    def forward(
        self,
        ids_BT: Tensor,
        mask_BT: Tensor,
        *,
        layers: Sequence[int] = (),
        attention: Sequence[int] = (),
        attention_scores: Sequence[int] = (),
        hidden: Sequence[int] = (),
        qkv: Sequence[int] = (),
        layer_pooling: LayerPooling = "mean",
    ) -> Encoded:
        """Encode a padded batch. Layers count from 1; of hidden states, 0 is the embedding block.

        Attention, its scores, and queries, keys and values are there after `use_attention_maps(True)` only.
        """
        inside: list[_Inside] = []
        token = _captured.set(inside if attention_scores or qkv else None)
        try:
            out = self.backbone(
                input_ids=ids_BT,
                attention_mask=mask_BT,
                output_hidden_states=bool(layers or hidden),
                output_attentions=bool(attention),
            )
        finally:
            _captured.reset(token)
        pooled = [pool(out.hidden_states[layer], mask_BT, layer_pooling) for layer in layers]
        return Encoded(
            # Of a transformer in half precision, what follows it is not.
            final=self.head(pool(out.last_hidden_state.float(), mask_BT, self.pooling)),
            layers=torch.stack(pooled, dim=1) if pooled else None,
            attention=tuple(out.attentions[layer - 1] for layer in attention) or None,
            attention_scores=tuple(inside[layer - 1].scores for layer in attention_scores) or None,
            hidden=tuple(out.hidden_states[layer] for layer in hidden) or None,
            qkv=tuple(inside[layer - 1].qkv for layer in qkv) or None,
        )

    def forward_flops(self, batch_size: int, num_tokens: int) -> float:
        """FLOPs of the transformer's matrix products for a padded [B, T] batch, forward only."""
        config = self.backbone.config
        width, rows = config.hidden_size, batch_size * num_tokens
        projections = 4 * 2.0 * rows * width * width
        attention = 2 * 2.0 * rows * num_tokens * width
        feed_forward = 2 * 2.0 * rows * width * getattr(config, feed_forward_key(config))
        return float(config.num_hidden_layers * (projections + attention + feed_forward))


def output_width(head: nn.Module, input_width: int) -> int:
    """Width of what a head makes of vectors of some width."""
    linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
    return linear[-1].out_features if linear else input_width


def feed_forward_key(config: Any) -> str:
    """The name under which an architecture's config keeps the width of its feed-forward layers."""
    for key in ("intermediate_size", "hidden_dim", "ffn_dim"):
        if hasattr(config, key):
            return key
    raise UserError(f"the width of the feed-forward layers is not found in a {type(config).__name__}")


def layer_stack(backbone: Any) -> tuple[str, nn.ModuleList]:
    """The list that holds a transformer's blocks, and its name."""
    count = backbone.config.num_hidden_layers
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return str(name), module
    raise UserError(f"no list of {count} layers was found in a {type(backbone).__name__}; it cannot be cut")


def num_parameters(module: nn.Module) -> int:
    """Parameters of a module, shared ones counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def drop_pooler(backbone: Any) -> None:
    """Take out BERT's own pooling head, which no embedding model uses."""
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None
