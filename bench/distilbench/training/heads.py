"""How the heads of all methods start: by one rule of the study, not by a choice of each method."""

from __future__ import annotations

import torch
from torch import nn

from distilbench.core.seeds import seed_for, seeded
from distilbench.study.sections.training import HeadStart
from distilbench_methods.base import Dims, Method

BERT_INITIALIZER_RANGE = 0.02
"""Standard deviation of BERT's first weights: `initializer_range` of its configuration."""


def started(method: Method, dims: Dims, rule: HeadStart, seed: int) -> nn.ModuleDict:
    """A method's heads and state, on the CPU, their linear layers started by `rule`; equal for equal seeds."""
    with seeded(seed_for(seed, "aux")):
        aux = method.build_aux(dims)
        by = method.released_head_start if rule == "released" else rule
        if by != "torch":
            for module in aux.modules():
                if isinstance(module, nn.Linear):
                    _start_linear(module, by)
    return aux


@torch.no_grad()
def _start_linear(linear: nn.Linear, by: str) -> None:
    if by == "normal":
        nn.init.normal_(linear.weight, std=BERT_INITIALIZER_RANGE)
    elif linear.in_features == linear.out_features:
        nn.init.eye_(linear.weight)
    else:
        nn.init.orthogonal_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
