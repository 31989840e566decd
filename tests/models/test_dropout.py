"""The cheap dropout is dropout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distilbench.models.parts.dropout import cheap_dropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rate_scale_and_mean(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(400, 501)
    dropped = cheap_dropout(x, p)
    n = x.numel()
    share = float((dropped == 0).float().mean())
    assert abs(share - p) < 4 * (p * (1 - p) / n) ** 0.5 + 2**-16
    kept = dropped[dropped != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-3, atol=0)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=4 * (p / (1 - p) / n) ** 0.5 + 1e-4)


def test_entries_are_independent_of_their_neighbours() -> None:
    torch.manual_seed(0)
    zero = (cheap_dropout(torch.ones(1_000_000), 0.5) == 0).float() - 0.5
    for shift in (1, 2, 3, 4, 8):
        correlation = 4 * float((zero[:-shift] * zero[shift:]).mean())
        assert abs(correlation) < 0.005, shift


def test_the_gradient_passes_where_the_value_does() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 7, requires_grad=True)
    out = cheap_dropout(x, 0.3)
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad != 0, out != 0)


def test_it_follows_the_seed_and_sleeps_in_evaluation() -> None:
    x = torch.randn(9, 5)
    torch.manual_seed(3)
    first = dropout(x, 0.2, training=True)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, 0.2, training=True))
    assert not torch.equal(first, dropout(x, 0.2, training=True))
    assert dropout(x, 0.2, training=False) is x
    assert dropout(x, 0.0, training=True) is x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_product_gives_what_choosing_and_scaling_give(dtype: torch.dtype) -> None:
    x = torch.randn(33, 17, dtype=dtype, requires_grad=True)
    torch.manual_seed(0)
    out = cheap_dropout(x, 0.3)
    (gradient,) = torch.autograd.grad((out * 3).sum(), x)
    chosen = torch.where(out != 0, x, 0.0)
    scale = torch.tensor(2**16 / (2**16 - round(0.3 * 2**16)), dtype=dtype)
    assert out.dtype == gradient.dtype == dtype
    assert torch.equal(out, chosen * scale)
    assert torch.equal(gradient, torch.where(out != 0, torch.full_like(x, 3.0), 0.0) * scale)


def test_every_precision_drops_the_same_entries_and_scales_as_torch_does() -> None:
    kept = {}
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        out = cheap_dropout(torch.ones(2001, dtype=dtype), 0.1)
        kept[dtype] = out != 0
        theirs = nn.functional.dropout(torch.ones(2001, dtype=dtype), 0.1).max()
        torch.testing.assert_close(out.max(), theirs, rtol=1e-5, atol=0)
    assert torch.equal(*kept.values())
