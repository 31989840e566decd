"""Teacher and student are the same thing: a transformer, THE pooling function, and what ships behind it.

Training, export and evaluation all pool through `pool`, so a score cannot come from another vector than the one that
was trained. Shapes: B sentences, T tokens, S width, L requested layers, A heads.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilbench.core.errors import UserError
from distilbench.models.parts.attention import MAPS, captured, gives_the_same
from distilbench.models.parts.flops import ForwardFlops, counted
from distilbench.models.parts.pooling import Pooling, pool
from distilbench_methods.base import ModelDims
from distilbench_methods.pooling import LayerPooling

Similarity = Literal["cosine", "dot"]


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


class Truncate(nn.Module):
    """Keep the first numbers of rows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.width]


class Dense(nn.Sequential):
    """A linear layer with an activation, stored as sentence-transformers' Dense module."""

    def __init__(self, linear: nn.Linear, activation: nn.Module) -> None:
        super().__init__(linear, activation)


class Encoder(nn.Module):
    """A transformer, its pooling, and the modules that ship behind it."""

    def __init__(
        self,
        backbone: Any,
        *,
        pooling: Pooling,
        head: nn.Module | None = None,
        max_length: int,
        prompts: Mapping[str, str] = MappingProxyType({}),
        default_prompt_name: str | None = None,
        similarity: Similarity = "cosine",
    ) -> None:
        """`prompts`: what stands before a text, by mteb's names for sides and tasks; `default_prompt_name` has the one
        that stands before texts of no side."""
        super().__init__()
        self.backbone = backbone
        self.pooling: Pooling = pooling
        self.head = head if head is not None else nn.Identity()
        self.max_length = max_length
        self.prompts, self.default_prompt_name = dict(prompts), default_prompt_name
        self.similarity: Similarity = similarity
        self._own_attention = str(backbone.config._attn_implementation)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @cached_property
    def can_give_maps(self) -> bool:
        """Whether the architecture gives the same states when its attention is one that can return its maps."""
        return gives_the_same(self.backbone, self._own_attention, self.device)

    @property
    def default_prompt(self) -> str:
        """What stands before texts of no side."""
        return self.prompts.get(self.default_prompt_name or "", "")

    def put_before_all(self, prompt: str) -> None:
        """Have one prompt stand before every text, whatever its side."""
        self.prompts, self.default_prompt_name = dict.fromkeys(("query", "document"), prompt), "query"

    @property
    def vocabulary(self) -> int:
        """Rows of its table of token vectors."""
        return int(self.backbone.get_input_embeddings().num_embeddings)

    @property
    def max_positions(self) -> int:
        """Tokens that the transformer can take, special ones included."""
        positions = int(getattr(self.backbone.config, "max_position_embeddings", sys.maxsize))
        # RoBERTa and its kin count positions from behind the padding index.
        offset = (
            getattr(self.backbone.embeddings, "padding_idx", None) if hasattr(self.backbone, "embeddings") else None
        )
        return positions - (offset + 1 if offset is not None else 0)

    @property
    def dims(self) -> ModelDims:
        config = self.backbone.config
        return ModelDims(width=config.hidden_size, layers=config.num_hidden_layers, heads=config.num_attention_heads)

    @property
    def pooled_width(self) -> int:
        """Width of what its head gets."""
        modes = 1 if isinstance(self.pooling, str) else len(self.pooling)
        return modes * int(self.backbone.config.hidden_size)

    def output_width(self) -> int:
        """Width of the vector that ships."""
        return output_width(self.head, self.pooled_width)

    def of_nothing(self) -> Tensor:
        """[output width]: the vector of a text without a token."""
        vector: Tensor = self.head(torch.zeros(1, self.pooled_width, device=self.device))[0]
        return vector

    def lowest(self, blocks: int) -> list[nn.Parameter]:
        """Parameters of the embeddings and of the lowest blocks."""
        name, stack = layer_stack(self.backbone)
        if len(stack) != self.dims.layers:
            raise UserError(f"the layers of a {type(self.backbone).__name__} share their weights: none can stay frozen")
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
        with captured(bool(attention_scores or qkv)) as inside:
            out = self.backbone(
                input_ids=ids_BT,
                attention_mask=mask_BT,
                output_hidden_states=bool(layers or hidden),
                output_attentions=bool(attention),
            )
        # Of a transformer in half precision, what follows it is not.
        pooled = [pool(out.hidden_states[layer].float(), mask_BT, layer_pooling) for layer in layers]
        return Encoded(
            final=self.head(pool(out.last_hidden_state.float(), mask_BT, self.pooling)),
            layers=torch.stack(pooled, dim=1) if pooled else None,
            attention=tuple(out.attentions[layer - 1] for layer in attention) or None,
            attention_scores=tuple(inside[layer - 1].scores for layer in attention_scores) or None,
            hidden=tuple(out.hidden_states[layer].float() for layer in hidden) or None,
            qkv=tuple(inside[layer - 1].qkv for layer in qkv) or None,
        )

    def forward_flops(self, batch_size: int, num_tokens: int) -> float:
        """FLOPs of the transformer's matrix products for a padded [B, T] batch, forward only.

        They are counted once, which must be before blocks are compiled.
        """
        return self._flops.of(batch_size, num_tokens)

    @cached_property
    def _flops(self) -> ForwardFlops:
        return counted(self.backbone, self.device)


def output_width(head: nn.Module, input_width: int) -> int:
    """Width of what a head makes of vectors of some width."""
    width = input_width
    for module in head.modules():
        if isinstance(module, nn.Linear):
            width = module.out_features
        elif isinstance(module, Truncate):
            width = min(width, module.width)
    return width


def feed_forward_key(config: Any) -> str:
    """The name under which an architecture's config keeps the width of its feed-forward layers."""
    for key in ("intermediate_size", "hidden_dim", "ffn_dim"):
        if hasattr(config, key):
            return key
    raise UserError(f"the width of the feed-forward layers is not found in a {type(config).__name__}")


def layer_stack(backbone: Any) -> tuple[str, nn.ModuleList]:
    """The list that holds a transformer's blocks, and its name; it is shorter where layers share a block, as ALBERT's.

    Raises `UserError` where there is none.
    """
    count = getattr(backbone.config, "num_hidden_groups", backbone.config.num_hidden_layers)
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
