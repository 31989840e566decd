"""Shared mathematics: values by hand, restatements, invariances, degenerate input."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from distilbench_methods.functional import (
    cosine_distance,
    in_full_precision,
    info_nce,
    projection,
    projection_flops,
    unit,
)

Precision = tuple[torch.dtype, float]


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


@pytest.mark.parametrize(
    ("anchors", "candidates", "temperature", "expected"),
    [
        ([[1, 0], [0, 1]], [[1, 0], [0, 1]], 1.0, 0.3132616875),
        ([[1, 0], [0, 1]], [[1, 0], [0, 1]], 0.5, 0.1269280110),
        ([[1, 0], [1, 1]], [[1, 0], [0, 2]], 1.0, 0.5032044340),
        ([[1, 0], [1, 1]], [[1, 0], [0, 2]], 0.05, 0.3465735913),
        ([[1, 0], [1, 1]], [[1, 0], [0, 2], [-1, 0]], 1.0, 0.6077361313),
        ([[1, 2], [1, 2], [1, 2]], [[1, 2], [1, 2], [1, 2]], 0.05, math.log(3)),
        ([[3, 1]], [[1, 0]], 0.05, 0.0),
    ],
)
def test_info_nce_by_hand(
    anchors: list[list[float]], candidates: list[list[float]], temperature: float, expected: float, precision: Precision
) -> None:
    dtype, tolerance = precision
    found = info_nce(torch.tensor(anchors, dtype=dtype), torch.tensor(candidates, dtype=dtype), temperature)
    assert found.dtype == dtype
    assert float(found) == pytest.approx(expected, abs=tolerance)


def test_info_nce_as_written() -> None:
    anchor, candidate, temperature = draw(4, 3), draw(6, 3, seed=1), 0.2
    expected = 0.0
    for i in range(4):
        score = [math.exp(float(nn.functional.cosine_similarity(anchor[i], c, dim=0)) / temperature) for c in candidate]
        expected -= math.log(score[i] / sum(score)) / 4
    assert float(info_nce(anchor, candidate, temperature)) == pytest.approx(expected, abs=1e-12)


def test_info_nce_has_a_floor_set_by_the_temperature() -> None:
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert float(info_nce(opposite, opposite, 1.0)) == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-12)


def test_info_nce_ignores_lengths_and_joint_order() -> None:
    anchor, candidate = draw(4, 3), draw(6, 3, seed=1)
    expected = info_nce(anchor, candidate, 0.1)
    lengths = torch.tensor([[0.001], [7.0], [300.0], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(info_nce(anchor * lengths, candidate * 5, 0.1), expected)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = torch.cat([candidate[order], candidate[[5, 4]]])
    torch.testing.assert_close(info_nce(anchor[order], shuffled, 0.1), expected)


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_info_nce_gradient(temperature: float) -> None:
    inputs = (draw(3, 4, grad=True), draw(5, 4, seed=1, grad=True))
    assert torch.autograd.gradcheck(lambda a, c: info_nce(a, c, temperature), inputs)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [([1, 0], [1, 1], 0.2928932188), ([2, 0], [-3, 0], 2.0), ([1, 2], [2, 4], 0.0), ([0, 0], [1, 1], 1.0)],
)
def test_cosine_distance_by_hand(one: list[float], other: list[float], expected: float, precision: Precision) -> None:
    dtype, tolerance = precision
    found = cosine_distance(torch.tensor([one], dtype=dtype), torch.tensor([other], dtype=dtype))
    assert found.shape == (1,)
    assert float(found) == pytest.approx(expected, abs=tolerance)


def test_cosine_distance_keeps_leading_dimensions() -> None:
    one, other = draw(2, 3, 5), draw(2, 3, 5, seed=1)
    expected = 1 - nn.functional.cosine_similarity(one, other, dim=-1)
    torch.testing.assert_close(cosine_distance(one, other), expected)
    torch.testing.assert_close(cosine_distance(4 * one, 0.1 * other), expected)


def test_cosine_distance_is_half_the_squared_distance_of_directions() -> None:
    one, other = draw(4, 3), draw(4, 3, seed=1)
    torch.testing.assert_close((unit(one) - unit(other)).square().sum(-1), 2 * cosine_distance(one, other))


def test_cosine_distance_gradient() -> None:
    assert torch.autograd.gradcheck(cosine_distance, (draw(3, 4, grad=True), draw(3, 4, seed=1, grad=True)))


def test_zero_vector_has_a_bounded_gradient() -> None:
    zero = torch.zeros(1, 3, requires_grad=True)
    cosine_distance(zero, torch.ones(1, 3)).sum().backward()
    assert zero.grad is not None
    assert torch.isfinite(zero.grad).all()


def test_half_precision_is_widened_and_autocast_suspended() -> None:
    @in_full_precision
    def product(x: Tensor, index: Tensor) -> Tensor:
        assert index.dtype == torch.int64
        return x @ x.T

    index = torch.tensor([0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product(torch.ones(2, 2), index).dtype == torch.float32
        assert product(torch.ones(2, 2, dtype=torch.float64), index).dtype == torch.float64
    assert product(torch.ones(2, 2, dtype=torch.bfloat16), index).dtype == torch.float32
    assert product(torch.ones(2, 2, dtype=torch.float16), index).dtype == torch.float32


def test_projection_exists_only_between_different_widths() -> None:
    same, different = projection(4, 4), projection(4, 6)
    assert not list(same.parameters())
    assert torch.equal(same(torch.ones(2, 4)), torch.ones(2, 4))
    assert isinstance(different, nn.Linear)
    assert different(torch.ones(2, 4)).shape == (2, 6)
    assert different.bias is not None
    assert projection_flops(5, 4, 4) == 0
    assert projection_flops(5, 4, 6) == 6 * 5 * 4 * 6
