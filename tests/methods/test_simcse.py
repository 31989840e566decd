"""Unsupervised SimCSE: values by hand and the head that stays behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from methods.base import Dims, Signals
from methods.functional import info_nce
from methods.simcse import SimCSE


def identity_head(width: int) -> nn.ModuleDict:
    """A head of `width` that gives the unit matrix, up to length, for the unit matrix."""
    linear = nn.Linear(width, width).double()
    with torch.no_grad():
        linear.weight.copy_(torch.eye(width))
        linear.bias.zero_()
    return nn.ModuleDict({"head": nn.Sequential(linear, nn.Tanh()).requires_grad_(False)})


def views(first: Tensor, second: Tensor) -> Signals:
    return Signals(
        index_B=torch.arange(len(first)),
        mask_BT=torch.ones(len(first), 1),
        student_BS=first,
        second_view_BS=second,
    )


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.3132616875), (0.5, 0.1269280110)])
def test_by_hand(temperature: float, expected: float) -> None:
    unit_matrix = torch.eye(2, dtype=torch.float64)
    terms = SimCSE(temperature=temperature).loss(views(unit_matrix, unit_matrix), identity_head(2), 0.0)
    assert float(terms["contrastive"]) == pytest.approx(expected, abs=1e-9)


def test_orthogonal_sentences_at_the_default_temperature() -> None:
    unit_matrix = torch.eye(8, dtype=torch.float64)
    found = SimCSE().loss(views(unit_matrix, unit_matrix), identity_head(8), 0.0)["contrastive"]
    assert float(found) == pytest.approx(math.log1p(7 * math.exp(-20)), rel=1e-6)


def test_equal_sentences_cost_log_of_the_batch_size() -> None:
    same = torch.ones(5, 3, dtype=torch.float64)
    assert float(SimCSE().loss(views(same, same), identity_head(3), 0.0)["contrastive"]) == pytest.approx(math.log(5))


def test_equal_views_agree_perfectly(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    signals, aux = fake(SimCSE(), dims()), SimCSE().build_aux(dims()).double()
    same = replace(signals, second_view_BS=signals.student_BS)
    hidden = torch.tanh(aux["head"][0](signals.student_BS))  # type: ignore[index]
    cosine = nn.functional.cosine_similarity(hidden[:, None], hidden[None], dim=-1)
    torch.testing.assert_close(cosine.diagonal(), torch.ones(5, dtype=torch.float64))
    expected = (torch.logsumexp(cosine / 0.05, dim=1) - cosine.diagonal() / 0.05).mean()
    torch.testing.assert_close(SimCSE().loss(same, aux, 0.0)["contrastive"], expected)


def test_first_view_is_the_anchor(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    signals, aux = fake(SimCSE(), dims()), SimCSE().build_aux(dims()).double()
    first, second = aux["head"](signals.student_BS), aux["head"](signals.second_view_BS)
    found = SimCSE().loss(signals, aux, 0.0)["contrastive"]
    torch.testing.assert_close(found, info_nce(first, second, 0.05))
    assert not torch.isclose(found, info_nce(second, first, 0.05))


def test_head_stays_behind(dims: Callable[..., Dims]) -> None:
    aux = SimCSE().build_aux(dims())
    assert [tuple(parameter.shape) for parameter in aux.parameters()] == [(6, 6), (6,)]
    assert SimCSE().exported_head(aux) is None


def test_asks_for_two_views_and_no_teacher(dims: Callable[..., Dims]) -> None:
    needs = SimCSE().needs(dims())
    assert needs.student_views == 2
    assert not needs.teacher_final


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature must be (positive|finite)"):
        SimCSE(temperature=temperature)
