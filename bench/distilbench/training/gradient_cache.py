"""Large batches in little memory: the student passes part by part, the loss sees the whole batch.

Gao et al. 2021, arXiv:2101.06983: pass every part without gradient, take the loss's gradient with respect to what the
student gave, then pass every part again, with the same dropout, and carry that gradient on into the weights. The result
is that of the whole batch; memory for activations is that of one part.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilbench.core.seeds import generator_states, set_generator_states
from distilbench.training.signals import Batch, SignalSource
from distilbench_methods.base import Signals


def backward_in_parts(
    source: SignalSource,
    step: int,
    rows_B: NDArray[np.int64],
    part_size: int,
    loss_of: Callable[[Signals], dict[str, Tensor]],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> tuple[Signals, dict[str, Tensor]]:
    """Add the gradients of the whole batch's loss to the weights; returns its signals and the loss's terms."""
    batch = source.batch(step, rows_B)
    parts = [batch.part(start, min(start + part_size, len(batch))) for start in range(0, len(batch), part_size)]
    states, given = [], []
    for part in parts:
        states.append(generator_states())
        with torch.no_grad(), autocast():
            given.append(source.student_signals(part))
    joined = {name: _join([values[name] for values in given]) for name in given[0]}
    with autocast():
        signals = source.complete(step, rows_B, batch, joined)
        terms = loss_of(signals)
    torch.stack(list(terms.values())).sum().backward()
    after = generator_states()
    for number, (part, state) in enumerate(zip(parts, states, strict=True)):
        set_generator_states(state)
        _carry_on(source, part, autocast, [_split(joined[name], given, name, number) for name in given[0]])
    set_generator_states(after)
    return signals, terms


def _carry_on(
    source: SignalSource, part: Batch, autocast: Callable[[], AbstractContextManager[Any]], gradients: list[Any]
) -> None:
    with autocast():
        again = source.student_signals(part)
    outputs = [tensor for value in again.values() for tensor in _listed(value)]
    pairs = zip(outputs, [gradient for value in gradients for gradient in _listed(value)], strict=True)
    used = [(output, gradient) for output, gradient in pairs if gradient is not None]
    torch.autograd.backward([output for output, _ in used], [gradient for _, gradient in used])


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) else [value]


def _join(values: list[Any]) -> Any:
    """One leaf for what the parts gave, or a tuple of them for a tuple."""
    if isinstance(values[0], tuple):
        return tuple(_join(list(layer)) for layer in zip(*values, strict=True))
    return torch.cat(values).requires_grad_()


def _split(joined: Any, given: list[dict[str, Any]], name: str, number: int) -> Any:
    """The gradients of one part's share of a leaf, or of a tuple of leaves; None where the loss does not use it."""
    if isinstance(joined, tuple):
        layers = ([{name: values[name][at]} for values in given] for at in range(len(joined)))
        return tuple(_split(leaf, layer, name, number) for leaf, layer in zip(joined, layers, strict=True))
    if joined.grad is None:
        return None
    return joined.grad.split([len(values[name]) for values in given])[number]
