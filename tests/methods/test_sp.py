"""SP with and without unit vectors, and on vectors that have no direction."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distilbench_methods.base import Dims, Signals
from distilbench_methods.sp import SP, similarity_loss


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def test_as_written() -> None:
    student, teacher = draw(5, 3), draw(5, 4, seed=1)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(5):
        rows = [torch.stack([x[i] @ x[j] for j in range(5)]) for x in (student, teacher)]
        total = total + (rows[0] / rows[0].norm() - rows[1] / rows[1].norm()).square().sum()
    torch.testing.assert_close(similarity_loss(student, teacher, normalize=False), total / 25)


def test_lengths_matter_only_where_vectors_are_taken_as_they_are() -> None:
    student, teacher, lengths = draw(5, 3), draw(5, 4, seed=1), draw(5, 1, seed=2).abs() + 0.5
    torch.testing.assert_close(
        similarity_loss(lengths * student, teacher, True), similarity_loss(student, teacher, True)
    )
    raw = similarity_loss(student, teacher, False)
    assert not torch.isclose(similarity_loss(lengths * student, teacher, False), raw)
    torch.testing.assert_close(similarity_loss(3 * student, teacher, False), raw)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_rotated_teacher_costs_nothing(normalize: bool) -> None:
    teacher, turn = draw(5, 4), torch.linalg.qr(draw(4, 4, seed=1))[0]
    assert float(similarity_loss(teacher @ turn, teacher, normalize)) == pytest.approx(0, abs=1e-12)


def test_the_gradient_of_vectors_taken_as_they_are() -> None:
    teacher = draw(4, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: similarity_loss(x, teacher, False), (draw(4, 3, grad=True),))


@pytest.mark.parametrize("normalize", [True, False])
def test_a_zero_vector_resembles_nothing(normalize: bool) -> None:
    student = draw(4, 3)
    student[1] = 0
    student.requires_grad_()
    teacher = student.detach().clone()
    value = similarity_loss(student, teacher, normalize)
    (gradient,) = torch.autograd.grad(similarity_loss(student, draw(4, 3, seed=1), normalize), student)
    assert float(value.detach()) == 0
    assert torch.isfinite(gradient).all()


def test_weight_and_unit_vectors_are_the_defaults(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    signals = fake(SP(), dims())
    (value,) = SP().loss(signals, SP().build_aux(dims()), 0.0).values()
    torch.testing.assert_close(value, 3000 * similarity_loss(signals.student_BS, signals.teacher_final_BD, True))
