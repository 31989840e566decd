"""The optimiser and the schedule that all methods share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from distilbench.study.sections.training import TrainSpec


def learning_rate(progress: float, spec: TrainSpec) -> float:
    """Linear rise over the first `warmup` share of the budget, then linear fall to zero at its end."""
    if progress < spec.warmup:
        return spec.learning_rate * progress / spec.warmup
    return spec.learning_rate * max(0.0, 1.0 - progress) / (1.0 - spec.warmup)


def make_optimizer(parameters: list[nn.Parameter], spec: TrainSpec) -> torch.optim.Optimizer:
    """AdamW over the student and the method's heads."""
    return torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Have the next step made with this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = value


def drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Have the next step leave some parameters as they are."""
    for parameter in parameters:
        parameter.grad = None
