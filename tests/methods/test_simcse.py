"""Unsupervised SimCSE: values by hand and the head that stays behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from distilbench_methods.base import Dims, Signals
from distilbench_methods.functional import info_nce
from distilbench_methods.simcse import SimCSE, masked_language_loss


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


def test_masked_language_loss_by_hand() -> None:
    state = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    table = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    bias = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    found = masked_language_loss(state, table, bias, torch.tensor([0, 2]))
    first = math.log(math.e + 1 + math.e) - 1
    second = math.log(1 + math.exp(2) + math.e) - 1
    assert float(found) == pytest.approx((first + second) / 2, abs=1e-12)
    assert torch.autograd.gradcheck(
        lambda x, rows, shift: masked_language_loss(x, rows, shift, torch.tensor([0, 2])),
        tuple(part.clone().requires_grad_() for part in (state, table, bias)),
    )


def test_the_masked_term_trains_the_tied_table(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = SimCSE(mlm_weight=0.5)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    method.loss(signals, aux, 0.0)["mlm"].backward()
    assert signals.embedding_VS.grad is not None
    assert signals.embedding_VS.grad.any()
    assert not SimCSE().needs(dims()).masked_tokens


def test_where_the_head_goes(dims: Callable[..., Dims]) -> None:
    for head, ships in (("dropped", False), ("shipped", True), ("none", False)):
        method = SimCSE(head=head)  # type: ignore[arg-type]
        aux = method.build_aux(dims())
        assert (method.exported_head(aux) is not None) == ships
        assert bool(list(aux.parameters())) == (head != "none")
    with pytest.raises(ValueError, match="dropped, shipped, none"):
        SimCSE(head="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mlm_weight"):
        SimCSE(mlm_weight=-1)
