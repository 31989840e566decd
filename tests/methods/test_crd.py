"""Contrastive representation distillation: values by hand, bank bookkeeping, the frozen normaliser, validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from distilbench_methods.banks import Banks
from distilbench_methods.base import Dims, Method, Signals
from distilbench_methods.codir_code import CoDIRCode
from distilbench_methods.crd import CRD
from distilbench_methods.functional import cosine_distance, unit

Precision = tuple[torch.dtype, float]
CROSS = [(1, 0), (0, 1), (-1, 0), (0, -1)]
BOTH = [CRD(num_negatives=5), CoDIRCode(num_negatives=5)]


def example(method: CRD, dtype: torch.dtype, student: Tensor | None = None) -> tuple[Signals, nn.ModuleDict]:
    """The example by hand: identity projections, the cross in both banks, one sentence with two negatives."""
    aux = nn.ModuleDict({side: nn.Linear(2, 2).to(dtype) for side in ("student", "teacher")})
    aux["banks"] = banks = Banks(4, 2).to(dtype)
    for side in ("student", "teacher"):
        nn.init.eye_(cast(nn.Linear, aux[side]).weight)
        nn.init.zeros_(cast(nn.Linear, aux[side]).bias)
        banks[side].copy_(torch.tensor(CROSS))
    if method.final_weight:
        aux["final"] = nn.Identity()
    signals = Signals(
        index_B=torch.tensor([0]),
        mask_BT=torch.ones(1, 1),
        student_BS=torch.tensor([(3, 0)], dtype=dtype) if student is None else student,
        teacher_final_BD=torch.tensor([(1.2, 1.6)], dtype=dtype),
        negative_index_BK=torch.tensor([[1, 2]]),
    )
    return signals, aux


def test_the_whole_loss_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    method = CRD(num_negatives=2, temperature=0.5, shared_width=2, final_weight=3.0)
    terms = method.loss(*example(method, dtype), 0.0)
    assert list(terms) == ["contrastive", "final"]
    assert float(terms["contrastive"].detach()) == pytest.approx(0.8 * 2.4327592299, abs=2 * tolerance)
    assert float(terms["final"].detach()) == pytest.approx(3 * 0.4, abs=3 * tolerance)


def test_bank_rows_after_a_step_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    method = CRD(num_negatives=2, temperature=0.5, shared_width=2)
    signals, aux = example(method, dtype)
    with torch.no_grad():
        method.after_step(signals, aux, 0.0)
    banks = cast(Banks, aux["banks"])
    assert banks["student"][0].tolist() == pytest.approx((1, 0), abs=tolerance)
    assert banks["teacher"][0].tolist() == pytest.approx((0.8944271910, 0.4472135955), abs=tolerance)
    assert float(banks["student_log_z"].exp()) == pytest.approx(11.3658551762, abs=20 * tolerance)
    assert float(banks["teacher_log_z"].exp()) == pytest.approx(11.4324580787, abs=20 * tolerance)


def test_gradient_of_the_whole_loss_once_the_normaliser_is_kept() -> None:
    method = CRD(num_negatives=2, temperature=0.5, shared_width=2)
    _, aux = example(method, torch.float64)
    with torch.no_grad():
        method.after_step(example(method, torch.float64)[0], aux, 0.0)
    start = torch.tensor([(0.7, -0.4)], dtype=torch.float64, requires_grad=True)
    heads = {name: value.detach().clone().requires_grad_() for name, value in aux.named_parameters()}

    class Total(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.aux = aux

        def forward(self, student: Tensor) -> Tensor:
            terms = method.loss(example(method, torch.float64, student)[0], self.aux, 0.0)
            return torch.stack(list(terms.values())).sum()

    def total(student: Tensor, *values: Tensor) -> Tensor:
        named = {f"aux.{name}": value for name, value in zip(heads, values, strict=True)}
        return cast(Tensor, torch.func.functional_call(Total(), named, (student,)))

    assert torch.autograd.gradcheck(total, (start, *heads.values()), rtol=1e-5, atol=1e-8)


def test_it_is_twice_the_code_form_of_codir_on_one_layer(
    dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    one_layer = dims(student=(6, 1, 2), teacher=(8, 1, 2), final=8)
    crd = CRD(contrastive_weight=1, final_weight=0, num_negatives=7)
    code = CoDIRCode(final_weight=0, num_negatives=7)
    aux, other = crd.build_aux(one_layer).double(), code.build_aux(one_layer).double()
    other.load_state_dict(aux.state_dict())
    signals = fake(code, one_layer)
    layers = (signals.student_layers_BLS[:, 0], signals.teacher_layers_BLH[:, 0])
    same = replace(signals, student_BS=layers[0], teacher_final_BD=layers[1])
    for _ in range(2):
        value = code.loss(signals, other, 0.0)["contrastive"]
        torch.testing.assert_close(crd.loss(same, aux, 0.0)["contrastive"], 2 * value)
        with torch.no_grad():
            crd.after_step(same, aux, 0.0)
            code.after_step(signals, other, 0.0)
    torch.testing.assert_close(dict(aux.named_buffers()), dict(other.named_buffers()))


def test_positive_is_the_banks_row(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = CRD(num_negatives=3, final_weight=0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    banks = cast(Banks, aux["banks"])
    for side in ("student", "teacher"):
        banks[f"{side}_log_z"].fill_(3.0)
    expected = method.loss(signals, aux, 0.0)["contrastive"]
    used = {*signals.index_B.tolist(), *signals.negative_index_BK.flatten().tolist()}
    unused = torch.tensor([row for row in range(len(banks["teacher"])) if row not in used])
    banks["teacher"][unused] = 7.0
    assert torch.equal(method.loss(signals, aux, 0.0)["contrastive"], expected)
    own = signals.index_B[0]
    for side in ("student", "teacher"):
        before = banks[side][own].clone()
        banks[side][own] = -before
        assert not torch.isclose(method.loss(signals, aux, 0.0)["contrastive"], expected)
        banks[side][own] = before


@pytest.mark.parametrize("method", BOTH, ids=["crd", "codir-code"])
def test_the_first_normaliser_stays(method: Method, dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    aux = method.build_aux(dims()).double()
    banks = cast(Banks, aux["banks"])
    first, second = fake(method, dims()), fake(method, dims(), seed=1)
    fresh = method.loss(second, aux, 0.0)["contrastive"]
    for side in ("student", "teacher"):
        assert banks[f"{side}_log_z"].isinf()
    with torch.no_grad():
        method.after_step(first, aux, 0.0)
    kept = {side: banks[f"{side}_log_z"].clone() for side in ("student", "teacher")}
    assert all(value.isfinite() for value in kept.values())
    assert not torch.isclose(method.loss(second, aux, 0.0)["contrastive"], fresh)
    with torch.no_grad():
        method.after_step(second, aux, 0.0)
    assert all(torch.equal(banks[f"{side}_log_z"], value) for side, value in kept.items())


@pytest.mark.parametrize("method", BOTH, ids=["crd", "codir-code"])
def test_step_moves_the_rows_of_the_batch_and_no_other(
    method: Method, dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    aux, signals = method.build_aux(dims()).double(), fake(method, dims())
    banks = cast(Banks, aux["banks"])
    before = {side: banks[side].clone() for side in ("student", "teacher")}
    torch.stack(list(method.loss(signals, aux, 0.0).values())).sum().backward()
    assert all(buffer.grad is None for buffer in aux.buffers())
    assert signals.teacher_final_BD.grad is None
    with torch.no_grad():
        method.after_step(signals, aux, 0.0)
    for side, rows in before.items():
        moved = (banks[side] != rows).any(-1)
        assert set(moved.nonzero().flatten().tolist()) == set(signals.index_B.tolist())
        lengths = banks[side][signals.index_B].norm(dim=-1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_rows_are_averages_of_old_and_fresh(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = CRD(num_negatives=5, bank_momentum=0.25)
    aux, signals = method.build_aux(dims()).double(), fake(method, dims())
    banks, seen = cast(Banks, aux["banks"]), signals.index_B
    before = banks["student"][seen].clone()
    with torch.no_grad():
        method.after_step(signals, aux, 0.0)
    fresh = unit(aux["student"](signals.student_BS))
    torch.testing.assert_close(banks["student"][seen], unit(0.25 * before + 0.75 * fresh))


def test_terms_switched_off_leave_nothing_behind(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    plain = CRD(contrastive_weight=0, final_weight=2)
    signals, aux = fake(plain, dims()), plain.build_aux(dims()).double()
    assert plain.needs(dims()).negatives == plain.negatives_per_step(8) == 0
    assert list(aux) == ["final"]
    expected = 2 * cosine_distance(aux["final"](signals.student_BS), signals.teacher_final_BD).mean()
    torch.testing.assert_close(plain.loss(signals, aux, 0.0), {"final": expected})
    assert plain.coupled == ""
    alone = CRD(final_weight=0)
    assert list(alone.build_aux(dims())) == ["student", "teacher", "banks"]
    assert alone.needs(dims()).negatives == alone.negatives_per_step(8) == 512


def test_more_negatives_than_sentences(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = CRD(num_negatives=40)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    assert signals.negative_index_BK.shape[1] > dims().num_sentences
    assert method.loss(signals, aux, 0.0)["contrastive"].isfinite()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"num_negatives": 0}, "num_negatives"),
        ({"temperature": 0.0}, "temperature"),
        ({"shared_width": -1}, "shared_width"),
        ({"bank_momentum": 1.0}, "would never change"),
        ({"bank_momentum": -0.1}, "bank_momentum"),
        ({"final_weight": -1.0}, "final_weight"),
        ({"contrastive_weight": 0.0, "final_weight": 0.0}, "both 0"),
    ],
)
def test_invalid_values_are_refused(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        CRD(**settings)  # type: ignore[arg-type]
