"""Similarity distillation as a whole: its rows, its temperatures, the term that ties the spaces."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distilbench_methods.base import Dims, Signals
from distilbench_methods.functional import cosine_distance
from distilbench_methods.simdist import SimDist


def rows(x: Tensor, temperature: float) -> list[Tensor]:
    """The distribution of each sentence over the others, one by one."""
    found = []
    for i in range(len(x)):
        cosines = [torch.cosine_similarity(x[i], x[j], dim=0) for j in range(len(x)) if j != i]
        found.append((torch.stack(cosines) / temperature).softmax(0))
    return found


@pytest.mark.parametrize("form", ["kl", "listnet"])
def test_as_written(form: str, dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = SimDist(form=form, student_temperature=0.3, teacher_temperature=0.2)  # type: ignore[arg-type]
    signals = fake(method, dims())
    student, teacher = rows(signals.student_BS, 0.3), rows(signals.teacher_final_BD, 0.2)
    expected = torch.stack([-(t * s.log()).sum() for s, t in zip(student, teacher, strict=True)]).mean()
    if form == "kl":
        expected = expected + torch.stack([(t * t.log()).sum() for t in teacher]).mean()
    terms = method.loss(signals, method.build_aux(dims()), 0.0)
    assert list(terms) == ["similarity"]
    torch.testing.assert_close(terms["similarity"], expected)


def test_temperatures_are_those_of_the_released_code() -> None:
    assert (SimDist().student_temperature, SimDist().teacher_temperature) == (0.025, 0.0125)


def test_the_diagonal_gives_no_gradient(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = SimDist(student_temperature=0.3, teacher_temperature=0.3)
    signals = fake(method, dims(final=6))
    copy = Signals(**{**signals.__dict__, "teacher_final_BD": signals.student_BS.detach()})
    value = method.loss(copy, method.build_aux(dims(final=6)), 0.0)["similarity"]
    (gradient,) = torch.autograd.grad(value, copy.student_BS)
    assert float(value.detach()) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)


def test_two_sentences_have_one_other_each(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    signals = fake(SimDist(), dims(), batch_size=2)
    assert float(SimDist().loss(signals, SimDist().build_aux(dims()), 0.0)["similarity"].detach()) == 0


def test_the_final_term_is_a_cosine_through_a_head(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    assert not SimDist().build_aux(dims())
    method = SimDist(similarity_weight=0.0, final_weight=2.0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    terms = method.loss(signals, aux, 0.0)
    assert list(terms) == ["final"]
    assert (method.coupled, method.exported_head(aux)) == ("", None)
    expected = 2 * cosine_distance(aux["final"](signals.student_BS), signals.teacher_final_BD).mean()
    torch.testing.assert_close(terms["final"], expected)
    alone = fake(method, dims(), batch_size=1)
    assert torch.isfinite(method.loss(alone, aux, 0.0)["final"])
