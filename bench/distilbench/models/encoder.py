"""Teacher and student are the same thing: a transformer, THE pooling function, and what ships behind it.

Training, export and evaluation all pool through `pool`, so a score cannot come from another vector than the one that
was trained. Shapes: B sentences, T tokens, S width, L requested layers, A heads.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from distilbench.core.errors import UserError
from distilbench.models.dropout import dropout as drop
from distilbench.study.sections.models import PoolingMode
from distilbench_methods.base import ModelDims
from distilbench_methods.pooling import LayerPooling

MAPS = "distilbench_maps"
PROBE_TOKENS, PROBE_TOLERANCE = 8, 1e-3
COUNTED_TOKENS = (8, 16, 32)
Similarity = Literal["cosine", "dot"]


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
        captured.append(_Inside(torch.stack(side_by_side, dim=1), scores))
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = scores.softmax(dim=-1)
    output = drop(probabilities, dropout, module.training) @ value
    return output.transpose(1, 2).contiguous(), probabilities


ALL_ATTENTION_FUNCTIONS.register(MAPS, _attention_with_maps)
ALL_MASK_ATTENTION_FUNCTIONS.register(MAPS, eager_mask)


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
        """Whether the architecture gives the same states when it takes its attention from here.

        An architecture may hand its attention more than is known here, such as sinks or a bias of positions.
        """
        if not getattr(self.backbone, "_supports_attention_backend", False):
            return False
        ids_BT = torch.arange(2 * PROBE_TOKENS, device=self.device).view(2, -1) % self.vocabulary
        mask_BT = torch.ones_like(ids_BT)
        mask_BT[1, PROBE_TOKENS // 2 :] = 0
        training, states = self.backbone.training, []
        self.backbone.eval()
        try:
            for attention in (self._own_attention, MAPS):
                self.backbone.set_attn_implementation(attention)
                with torch.no_grad():
                    states.append(self.backbone(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state.float())
        except (RuntimeError, TypeError, ValueError, AttributeError):
            return False
        finally:
            self.backbone.set_attn_implementation(self._own_attention)
            self.backbone.train(training)
        own, ours = (torch.where(mask_BT.unsqueeze(-1) == 1, state, 0.0) for state in states)
        return bool(torch.allclose(own, ours, atol=PROBE_TOLERANCE, rtol=PROBE_TOLERANCE))

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
        by_pass, by_token, by_pair = self._flops
        return by_pass + batch_size * (by_token * num_tokens + by_pair * num_tokens**2)

    @cached_property
    def _flops(self) -> tuple[float, float, float]:
        """FLOPs of a pass, and of a text for each token and each pair of tokens, as torch counts those of small passes.

        Taken first while the blocks are as they were made: of compiled ones torch counts nothing.
        """
        if not self.backbone.config.num_hidden_layers:
            return 0.0, 0.0, 0.0
        training, attention = self.backbone.training, str(self.backbone.config._attn_implementation)
        self.backbone.eval()
        # Of fused attention on a CPU, torch's counter knows nothing.
        self.backbone.set_attn_implementation("eager")
        try:
            counts = [self._counted(tokens) for tokens in COUNTED_TOKENS]
        finally:
            self.backbone.set_attn_implementation(attention)
            self.backbone.train(training)
        by_pass, by_token, by_pair = np.polynomial.polynomial.polyfit(COUNTED_TOKENS, counts, 2).round().tolist()
        return by_pass, by_token, by_pair

    def _counted(self, tokens: int) -> float:
        ids_BT = torch.zeros(1, tokens, dtype=torch.long, device=self.device)
        # Of a model without weights, encoders cannot look at a mask's values, and decoders not do without one.
        mask_BT = torch.ones_like(ids_BT)
        try:
            return self._counted_with(ids_BT, mask_BT)
        except RuntimeError:
            if self.device.type != "meta":
                raise
            return self._counted_with(ids_BT, None)

    def _counted_with(self, ids_BT: Tensor, mask_BT: Tensor | None) -> float:
        # Without gradients, the counter stumbles over parameters that a block hands on, as DeBERTa's do.
        with FlopCounterMode(display=False) as counter, torch.enable_grad():
            self.backbone(input_ids=ids_BT, attention_mask=mask_BT)
        return float(counter.get_total_flops())


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
