"""The wrapper that trains several widths of the vector at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from distilbench_methods import load
from distilbench_methods.base import Dims, Signals, UnsuitableError
from distilbench_methods.ckd import CKD
from distilbench_methods.functional import unit
from distilbench_methods.matryoshka import Matryoshka, cut_signals

BASES: list[tuple[str, dict[str, Any]]] = [
    ("mse", {}),
    ("mse", {"projection": "teacher-pca"}),
    ("simcse", {}),
    ("ibkd", {}),
    ("ckd", {"queue_size": 4}),
    ("codir", {}),
    ("simcse-supervised", {}),
    ("rankcse", {}),
]


@pytest.mark.parametrize(("base", "settings"), BASES)
def test_the_full_width_alone_is_the_base_on_unit_vectors(
    base: str, settings: dict[str, Any], dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    wrapper, wrapped = Matryoshka(base=base, base_settings=settings, widths=()), load(base)(**settings)
    signals, aux = fake(wrapper, dims()), wrapper.build_aux(dims()).double()
    own: Any = aux["6"]
    changed: dict[str, Tensor] = {
        name: unit(getattr(signals, name))
        for name in ("student_BS", "second_view_BS", "candidates_BKS")
        if getattr(signals, name) is not None
    }
    expected = wrapped.loss(replace(signals, **changed), own, 0.5)  # type: ignore[arg-type]
    found = wrapper.loss(signals, aux, 0.5)
    assert {f"{name}_6" for name in expected} == set(found)
    for name, value in expected.items():
        torch.testing.assert_close(found[f"{name}_6"], value)


@pytest.mark.parametrize(("base", "settings"), BASES)
def test_a_narrow_term_leaves_later_entries_alone(
    base: str, settings: dict[str, Any], dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    method = Matryoshka(base=base, base_settings=settings, widths=(2,))
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    terms = [value for name, value in method.loss(signals, aux, 0.5).items() if name.endswith("_2")]
    (gradient,) = torch.autograd.grad(torch.stack(terms).sum(), signals.student_BS)
    assert gradient[:, :2].any()
    assert not gradient[:, 2:].any()


def test_targets_as_wide_as_the_student_are_cut(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = Matryoshka(widths=(3,))
    equal = dims(student=(8, 2, 2))
    assert not list(method.build_aux(equal).parameters())
    assert cut_signals(fake(method, equal), 3).teacher_final_BD.shape[-1] == 3
    assert cut_signals(fake(method, dims()), 3).teacher_final_BD.shape[-1] == 8


def test_weights_and_state_are_those_of_each_width(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = Matryoshka(base="ckd", base_settings={"queue_size": 7}, widths=(2, 4), width_weights=(0.5, 0.0))
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    terms = method.loss(signals, aux, 0.0)
    assert set(terms) == {"contrastive_2", "contrastive_6"}
    narrow: Any = aux["2"]
    expected = CKD(queue_size=7).loss(cut_signals(signals, 2), narrow, 0.0)["contrastive"]
    torch.testing.assert_close(terms["contrastive_2"], 0.5 * expected)
    with torch.no_grad():
        method.after_step(signals, aux, 0.0)
    written = [int(value) for name, value in aux.state_dict().items() if name.endswith("written")]
    assert written == [5, 5, 5]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"base": "nothing"}, "base 'nothing' is not a method"),
        ({"base": "matryoshka"}, "another method"),
        ({"base_settings": {"temprature": 1}}, "has no hyperparameter 'temprature'"),
        ({"base": "ibkd", "base_settings": {"temperature": -1}}, "temperature must be positive"),
        ({"widths": (4, 4)}, "twice"),
        ({"widths": (0,)}, "widths"),
        ({"widths": (2, 4), "width_weights": (1.0,)}, "1 values for 2 widths"),
        ({"widths": (2,), "width_weights": (-1.0,)}, "width_weights"),
    ],
)
def test_invalid_values_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Matryoshka(**settings)


def test_what_does_not_fit_is_refused(dims: Callable[..., Dims]) -> None:
    with pytest.raises(UnsuitableError, match="the student's vector has 6 entries"):
        Matryoshka(widths=(6,)).needs(dims())
    with pytest.raises(UnsuitableError, match="while its head ships"):
        Matryoshka(base="hpd", base_settings={"width": 4}, widths=(2,)).build_aux(dims())
