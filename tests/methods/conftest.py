"""Random signals for the tests of methods, and the precisions in which values worked by hand must hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distilbench.conformance.fakes import Maker, make_dims, map_tensors, tensors_of
from distilbench_methods.base import Dims, Method, Signals


@pytest.fixture
def dims() -> Callable[..., Dims]:
    return make_dims


def make_signals(
    method: Method,
    dims: Dims,
    *,
    batch_size: int = 5,
    num_tokens: int = 4,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Signals:
    """One batch of exactly what `method` asks for; student tensors require a gradient."""
    return Maker(dims, batch_size, num_tokens, dtype, seed).signals(method.needs(dims))


@pytest.fixture
def fake() -> Callable[..., Signals]:
    return make_signals


@pytest.fixture
def tensors() -> Callable[[Signals], dict[str, Tensor]]:
    return tensors_of


@pytest.fixture
def mapped() -> Callable[[Signals, Callable[[str, Tensor], Tensor]], Signals]:
    return map_tensors


@pytest.fixture(params=[(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=["float64", "float32"])
def precision(request: pytest.FixtureRequest) -> tuple[torch.dtype, float]:
    """A floating-point type and the tolerance that values worked by hand must meet in it."""
    chosen: tuple[torch.dtype, float] = request.param
    return chosen
