"""What a student that is trained has in place of layers of torch."""

from __future__ import annotations

from torch import nn

from distilbench.models.parts.dropout import Dropout
from distilbench.models.parts.norm import LayerNorm


def replace_layers(module: nn.Module) -> None:
    """Put `Dropout` and `LayerNorm` of this package in place of torch's everywhere below a module."""
    for name, child in module.named_children():
        if type(child) is nn.Dropout:
            setattr(module, name, Dropout(child.p))
        elif type(child) is nn.LayerNorm:
            setattr(module, name, LayerNorm.with_weights_of(child))
        else:
            replace_layers(child)
