"""RKD on batches that hold a sentence twice, and on batches too small for relations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distilbench_methods.base import Dims, Signals
from distilbench_methods.rkd import RKD, angle_loss, distance_loss

Precision = tuple[torch.dtype, float]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative(x: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.vector_norm(x[:, None] - x, dim=-1)
    return distance / distance[distance > 0].mean()


def batch(width: int, repeated: int, seed: int, length: float = 1.0) -> Tensor:
    """Sixteen vectors with a common mean, the first `repeated` of them twice."""
    x = length * (draw(16, width, seed=seed) + 1)
    x[8 : 8 + repeated] = x[:repeated]
    return x


@pytest.mark.parametrize("repeated", [0, 1, 4])
@pytest.mark.parametrize(("width", "length"), [(8, 1.0), (384, 1.0), (384, 8.0)])
def test_repeated_sentences_are_no_distance(width: int, length: float, repeated: int, precision: Precision) -> None:
    dtype, tolerance = precision
    exact, teacher = batch(width, repeated, 0, length).requires_grad_(), batch(width + 3, repeated, 1)
    expected = F.smooth_l1_loss(relative(exact), relative(teacher))
    (slope,) = torch.autograd.grad(expected, exact)
    student = exact.detach().to(dtype).requires_grad_()
    found = distance_loss(student, teacher.to(dtype))
    (gradient,) = torch.autograd.grad(found, student)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=tolerance)
    assert float((gradient - slope).norm() / slope.norm()) < tolerance


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_a_scaled_and_shifted_teacher_costs_nothing(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    teacher = draw(5, 4)
    assert float(loss(3 * teacher + draw(4, seed=1), teacher)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_two_sentences_have_nothing_to_keep(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    student = draw(2, 4).requires_grad_()
    value = loss(student, draw(2, 3, seed=1))
    (gradient,) = torch.autograd.grad(value, student)
    assert float(value.detach()) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def test_weights_are_those_of_the_reference(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    signals = fake(RKD(), dims())
    terms = RKD().loss(signals, RKD().build_aux(dims()), 0.0)
    assert list(terms) == ["distance", "angle"]
    pair = (signals.student_BS, signals.teacher_final_BD)
    torch.testing.assert_close(terms["distance"], 25 * distance_loss(*pair))
    torch.testing.assert_close(terms["angle"], 50 * angle_loss(*pair))
