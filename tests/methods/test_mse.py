"""Vector regression: values by hand, gradients, what each metric ignores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from distilbench_methods.base import Dims, Signals
from distilbench_methods.functional import unit
from distilbench_methods.mse import METRICS, MSE, Metric, mean_cosine_distance, mean_distance, mean_squared_error

Precision = tuple[torch.dtype, float]


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


@pytest.mark.parametrize(
    ("metric", "expected"), [("mse", 2.5), ("l2", 2.2360679775), ("squared", 5.0), ("cosine", 1.0)]
)
def test_by_hand(metric: Metric, expected: float, precision: Precision) -> None:
    dtype, tolerance = precision
    student, teacher = torch.tensor([[1.0, 2.0]], dtype=dtype), torch.zeros(1, 2, dtype=dtype)
    assert float(METRICS[metric](student, teacher)) == pytest.approx(expected, abs=tolerance)


def test_squared_error_means_over_sentences_and_dimensions() -> None:
    student, teacher = draw(4, 3, grad=True), draw(4, 3, seed=1)
    value = mean_squared_error(student, teacher)
    torch.testing.assert_close(value, (student - teacher).square().sum() / 12)
    (gradient,) = torch.autograd.grad(value, student)
    torch.testing.assert_close(gradient, 2 * (student - teacher).detach() / 12)


def test_distance_means_over_sentences() -> None:
    student, teacher = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert float(mean_distance(student, teacher)) == pytest.approx(3.0, abs=1e-6)


def test_distance_to_itself_has_a_zero_gradient() -> None:
    student = draw(3, 4, grad=True)
    (gradient,) = torch.autograd.grad(mean_distance(student, student.detach()), student)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_squared_error_of_unit_vectors_is_the_cosine_distance_in_other_units() -> None:
    student, teacher = unit(draw(4, 6)), unit(draw(4, 6, seed=1))
    expected = mean_cosine_distance(student, teacher) * 2 / 6
    torch.testing.assert_close(mean_squared_error(student, teacher), expected)


def test_what_each_metric_ignores() -> None:
    student, teacher, shift = draw(4, 3), draw(4, 3, seed=1), draw(3, seed=2)
    for metric in (mean_squared_error, mean_distance):
        torch.testing.assert_close(metric(student + shift, teacher + shift), metric(student, teacher))
    expected = mean_cosine_distance(student, teacher)
    torch.testing.assert_close(mean_cosine_distance(7 * student, 0.1 * teacher), expected)


@pytest.mark.parametrize("metric", get_args(Metric))
def test_gradient_of_student_and_projection(metric: Metric) -> None:
    teacher = draw(3, 5, seed=1)
    inputs = (draw(3, 4, grad=True), draw(5, 4, seed=2, grad=True), draw(5, seed=3, grad=True))

    def value(student: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return METRICS[metric](nn.functional.linear(student, weight, bias), teacher)

    assert torch.autograd.gradcheck(value, inputs)


def test_projects_only_where_widths_differ(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    assert not list(MSE().build_aux(dims(final=6)).parameters())
    aux = MSE().build_aux(dims()).double()
    assert [tuple(parameter.shape) for parameter in aux.parameters()] == [(8, 6), (8,)]
    signals = fake(MSE(), dims())
    raw_BS = signals.student_BS
    unit_BS = raw_BS / raw_BS.norm(dim=1, keepdim=True)
    for method, student_BS in ((MSE(), unit_BS), (MSE(normalize=False), raw_BS)):
        expected = (aux["projection"](student_BS) - signals.teacher_final_BD).square().mean()
        torch.testing.assert_close(method.loss(signals, aux, 0.0)["final"], expected)
    assert MSE().exported_head(aux) is None


def test_unit_vectors_make_the_loss_blind_to_length(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    aux, signals = MSE().build_aux(dims()).double(), fake(MSE(), dims())
    longer = replace(signals, student_BS=7 * signals.student_BS)
    torch.testing.assert_close(MSE().loss(longer, aux, 0.0), MSE().loss(signals, aux, 0.0))


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="metric must be one of mse, l2, squared, cosine, got 'mae'"):
        MSE(metric="mae")  # type: ignore[arg-type]
