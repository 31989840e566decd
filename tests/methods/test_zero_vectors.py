"""Vectors of length zero have no direction: no method may send the student a huge gradient for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from distilbench.conformance.fakes import make_dims, map_tensors
from distilbench_methods import BUILT_IN, VARIANTS, load
from distilbench_methods.base import Dims, Method, Signals
from distilbench_methods.functional import SMALLEST_NORM, unit
from distilbench_methods.mse import MSE
from distilbench_methods.sp import SP

BOUND = 1e4
"""Far above what weights in the thousands make of a unit gradient, far below a division by a tiny length."""
VECTORS = ("student_BS", "second_view_BS", "candidates_BKS", "student_layers_BLS", "candidate_layers_BKLS")
SMALL: dict[str, dict[str, Any]] = {
    "hpd": {"width": 4},
    "minilm": {"relation_heads": 2},
    "matryoshka": {"widths": (3,)},
}
CASES: list[tuple[str, dict[str, Any]]] = [(name, SMALL.get(name, {})) for name in BUILT_IN] + [*VARIANTS.values()]


@pytest.mark.parametrize("rows", [slice(None), slice(1, 2)], ids=["all", "one"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_gradient_of_zero_vectors_is_small(
    case: tuple[str, dict[str, Any]], rows: slice, fake: Callable[..., Signals]
) -> None:
    # Equal widths, so that no projection's bias hides the zero.
    name, settings = case
    dims: Dims = make_dims((8, 2, 2), (8, 4, 2), 8, num_sentences=12)
    torch.manual_seed(0)
    method: Method = load(name)(**settings)

    def spoil(field: str, tensor: Tensor) -> Tensor:
        if field not in VECTORS:
            return tensor
        spoilt = tensor.clone()
        spoilt[rows] = 0
        return spoilt

    signals = map_tensors(fake(method, dims, dtype=torch.float32), spoil)
    aux = method.build_aux(dims)
    if method.needs(dims).fit_rows:
        method.fit(aux, torch.randn(40, 8))
    torch.stack(list(method.loss(signals, aux, 0.0).values())).sum().backward()
    for field in VECTORS:
        leaf = getattr(signals, field)
        if leaf is not None and leaf.grad is not None:
            assert leaf.grad.abs().max() < BOUND, field


@pytest.mark.parametrize(
    "method", [MSE(metric="cosine"), SP()], ids=["normalised twice", "similarities of similarities"]
)
def test_zero_vectors_have_no_gradient_at_all(method: MSE | SP, fake: Callable[..., Signals]) -> None:
    dims = make_dims((8, 2, 2), (8, 4, 2), 8)
    signals = map_tensors(fake(method, dims, dtype=torch.float32), lambda name, x: x * 0 if name == "student_BS" else x)
    torch.stack(list(method.loss(signals, method.build_aux(dims), 0.0).values())).sum().backward()
    assert signals.student_BS.grad is not None
    assert not signals.student_BS.grad.any()


def test_directions_start_at_the_smallest_length() -> None:
    x = torch.tensor([[0.0, 0.0], [0.0, 0.5 * SMALLEST_NORM], [0.0, 2 * SMALLEST_NORM], [3.0, 4.0]])
    x.requires_grad_()
    found = unit(x)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    found.sum().backward()
    assert x.grad is not None
    assert not x.grad[:2].any()
    assert x.grad[2:].any(1).all()
