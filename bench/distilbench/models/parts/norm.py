"""Layer norm that hands on what autocast multiplies in, so that blocks stay in bf16 from end to end."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Takes the place of `torch.nn.LayerNorm`."""

    @classmethod
    def with_weights_of(cls, norm: nn.LayerNorm) -> LayerNorm:
        """The same norm, with the same parameters."""
        made = cls(norm.normalized_shape, norm.eps, elementwise_affine=False)
        made.elementwise_affine, made.weight, made.bias = norm.elementwise_affine, norm.weight, norm.bias
        return made

    def forward(self, x: Tensor) -> Tensor:
        normed, kind = super().forward(x), x.device.type
        # In fp32, each product behind it would cast it anew, and the sum around the block would be in fp32 too.
        # Of the device `meta`, autocast knows nothing.
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            return normed.to(torch.get_autocast_dtype(kind))
        return normed
