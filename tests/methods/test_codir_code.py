"""The code form of CoDIR: values by hand, layers that it reads, validation. Its bookkeeping is tested with CRD's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from distilbench_methods.banks import Banks, summarise
from distilbench_methods.base import Dims, Signals, UnsuitableError
from distilbench_methods.codir import CoDIR, LayerMap, mapped_layers
from distilbench_methods.codir_code import CoDIRCode

Precision = tuple[torch.dtype, float]
CROSS = [(1, 0), (0, 1), (-1, 0), (0, -1)]


def test_the_whole_loss_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    aux = nn.ModuleDict({"student": nn.Linear(4, 2), "teacher": nn.Linear(2, 2), "banks": Banks(4, 2)}).to(dtype)
    # The projections sum the layers: two of the student's, one of the teacher's.
    for side, copies in (("student", 2), ("teacher", 1)):
        with torch.no_grad():
            cast(nn.Linear, aux[side]).weight.copy_(torch.eye(2).repeat(1, copies))
        nn.init.zeros_(cast(nn.Linear, aux[side]).bias)
        cast(Banks, aux["banks"])[side].copy_(torch.tensor(CROSS))
    signals = Signals(
        index_B=torch.tensor([0]),
        mask_BT=torch.ones(1, 1),
        student_BS=torch.zeros(1, 2, dtype=dtype),
        student_layers_BLS=torch.tensor([[(1, 2), (1, -2)]], dtype=dtype),
        teacher_layers_BLH=torch.tensor([[(3, 4)]], dtype=dtype),
        negative_index_BK=torch.tensor([[1, 2]]),
    )
    method = CoDIRCode(num_negatives=2, temperature=0.5, shared_width=2, final_weight=0.0, contrastive_weight=2.0)
    terms = method.loss(signals, aux, 0.0)
    assert list(terms) == ["contrastive"]
    assert float(terms["contrastive"].detach()) == pytest.approx(2 * 1.2163796150, abs=2 * tolerance)


@pytest.mark.parametrize(
    ("layer_map", "layers"),
    [("code", (1, 3, 5, 7, 9, 11)), ("last", (2, 4, 6, 8, 10, 12)), ("all", tuple(range(1, 13)))],
)
def test_layers_of_a_teacher_of_twelve(layer_map: LayerMap, layers: tuple[int, ...]) -> None:
    assert mapped_layers(6, 12, layer_map) == layers


def test_odd_and_small_teachers() -> None:
    assert mapped_layers(2, 5, "code") == (1, 3, 5)
    assert mapped_layers(4, 1, "code") == mapped_layers(4, 1, "all") == (1,)
    assert mapped_layers(2, 6, "last") == (3, 6)


def test_asks_for_first_tokens_and_never_for_the_teachers_last_layer(dims: Callable[..., Dims]) -> None:
    needs = CoDIRCode().needs(dims(teacher=(10, 12, 2)))
    assert needs.teacher_layers == (1, 3, 5, 7, 9, 11)
    assert needs.student_layers == (1, 2)
    assert needs.layer_pooling == "cls"
    assert needs.negatives == CoDIRCode().negatives_per_step(4) == 100
    assert CoDIRCode(layer_pooling="mean").needs(dims()).layer_pooling == "mean"


def test_every_stacked_layer_counts(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = CoDIRCode(num_negatives=4, final_weight=0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    expected = method.loss(signals, aux, 0.0)["contrastive"]
    for stacked in (signals.student_layers_BLS.detach(), signals.teacher_layers_BLH):
        assert stacked.shape[1] == 2
        for layer in range(2):
            stacked[:, layer] += 1
            assert not torch.isclose(method.loss(signals, aux, 0.0)["contrastive"], expected)
            stacked[:, layer] -= 1


def test_both_projections_learn(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = CoDIRCode(num_negatives=4, final_weight=0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    method.loss(signals, aux, 0.0)["contrastive"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in aux.parameters())
    assert signals.student_BS.grad is None


def test_order_of_sentences_and_lengths_of_layers_do_not_matter(
    dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    method = CoDIRCode(num_negatives=4, final_weight=0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    expected = method.loss(signals, aux, 0.0)["contrastive"]

    def changed(change: Callable[[Tensor], Tensor]) -> Tensor:
        given = {name: value for name, value in signals.__dict__.items() if isinstance(value, Tensor)}
        other = replace(signals, **{name: change(value) for name, value in given.items()})  # type: ignore[arg-type]
        return method.loss(other, aux, 0.0)["contrastive"]

    torch.testing.assert_close(changed(lambda value: value.flip(0)), expected)
    for side in ("student", "teacher"):
        nn.init.zeros_(cast(nn.Linear, aux[side]).bias)
    expected = method.loss(signals, aux, 0.0)["contrastive"]
    torch.testing.assert_close(changed(lambda value: 3 * value if value.is_floating_point() else value), expected)


def test_a_deeper_student_needs_another_map(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    deep = dims(student=(6, 5, 2))
    for kind in (CoDIR, CoDIRCode):
        with pytest.raises(UnsuitableError, match=f"{kind.name}: layer_map last .* 5 layers and the teacher 4; set"):
            kind(layer_map="last").needs(deep)
        assert len(kind(layer_map="last").needs(dims(student=(6, 4, 2))).teacher_layers) == 4
        method = kind(layer_map="all", num_negatives=3)
        signals, aux = fake(method, deep), method.build_aux(deep).double()
        student, teacher = method.views(signals, aux)
        assert torch.equal(student, summarise(signals.student_layers_BLS, aux["student"]))
        assert student.shape == teacher.shape == (5, 128)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"layer_map": "x"}, "layer_map must be one of all, last, code"),
        ({"layer_pooling": "x"}, "layer_pooling must be one of mean, cls"),
        ({"num_negatives": 0}, "num_negatives"),
        ({"bank_momentum": 1.0}, "would never change"),
        ({"contrastive_weight": 0.0, "final_weight": 0.0}, "both 0"),
    ],
)
def test_invalid_values_are_refused(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        CoDIRCode(**settings)  # type: ignore[arg-type]
