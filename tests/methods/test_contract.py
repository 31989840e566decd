"""What every registered method must do, ours and those of other packages, on random signals."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import fields, replace
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import Any, cast

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from methods import BUILT_IN, load, registry
from methods.base import Dims, Method, Signals, check_not_negative, check_positive

Settings = dict[str, Any]

FURTHER_SETTINGS: list[tuple[str, Settings]] = [
    ("mse", {"metric": "l2"}),
    ("mse", {"metric": "cosine"}),
    ("ibkd", {"gamma": "median", "temperature": 0.05, "input_layer": 1}),
    ("ibkd", {"detach_input": True, "gamma": 0.1}),
    ("ibkd", {"hsic_weight": 0.0}),
    ("codir", {"symmetric": True, "num_negatives": 7, "shared_width": 5, "bank_momentum": 0.0}),
    ("codir", {"final_weight": 0.0}),
    ("codir", {"contrastive_weight": 0.0}),
    ("internal-kd", {"head_reduction": "sum", "hidden_weight": 0.0}),
    ("internal-kd", {"attention_weight": 0.0}),
    ("internal-kd", {"final_weight": 0.0}),
]
CASES: list[tuple[str, Settings]] = [(name, {}) for name in registry()] + FURTHER_SETTINGS


def case_id(case: tuple[str, Settings]) -> str:
    return "-".join([case[0], *(f"{key}={value}" for key, value in case[1].items())])


@pytest.fixture(params=CASES, ids=case_id)
def method(request: pytest.FixtureRequest) -> Method:
    name, settings = request.param
    return load(name)(**settings)


def hyperparameters(method: Method) -> Settings:
    return {field.name: getattr(method, field.name) for field in fields(cast(Any, method))}


def aux_of(method: Method, dims: Dims, dtype: torch.dtype = torch.float64) -> nn.ModuleDict:
    torch.manual_seed(1)
    return method.build_aux(dims).to(dtype)


def total(method: Method, signals: Signals, aux: nn.ModuleDict) -> Tensor:
    return torch.stack(list(method.loss(signals, aux, 0.5).values())).sum()


def state_of(aux: nn.ModuleDict) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in aux.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_describes_itself(method: Method) -> None:
    names = [name for name in registry() if load(name) is type(method)]
    assert names == [method.name]
    assert method.source
    summary = (import_module(type(method).__module__).__doc__ or "").splitlines()[0]
    assert summary.endswith(".")
    assert len(summary) <= 120


def test_hyperparameters_survive_json(method: Method) -> None:
    text = json.dumps(hyperparameters(method))
    assert type(method)(**json.loads(text)) == method
    assert TypeAdapter(type(method)).validate_json(text) == method


def test_terms_are_finite_scalars(method: Method, dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    terms = method.loss(fake(method, dims()), aux_of(method, dims()), 0.0)
    assert terms
    for name, value in terms.items():
        assert value.shape == (), name
        assert torch.isfinite(value), name
        assert value.requires_grad, name


def test_gradients_reach_student_and_heads_but_no_buffer(
    method: Method,
    dims: Callable[..., Dims],
    fake: Callable[..., Signals],
    tensors: Callable[[Signals], dict[str, Tensor]],
) -> None:
    signals, aux = fake(method, dims()), aux_of(method, dims())
    total(method, signals, aux).backward()
    gradients = {name: tensor.grad for name, tensor in tensors(signals).items() if tensor.requires_grad}
    assert any(gradient is not None and gradient.any() for gradient in gradients.values())
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values() if gradient is not None)
    for name, parameter in aux.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert all(not buffer.requires_grad and buffer.grad is None for buffer in aux.buffers())
    assert all(tensor.grad is None for name, tensor in tensors(signals).items() if name.startswith("teacher"))


def test_reads_all_that_it_asks_for(method: Method, dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    signals, aux = fake(method, dims()), aux_of(method, dims())
    required = {"index_B", "mask_BT", "student_BS"}
    asked = [f.name for f in fields(signals) if f.name not in required and getattr(signals, f.name) is not None]
    for name in asked:
        missing = replace(signals, **{name: cast(Any, None)})
        with pytest.raises((TypeError, AttributeError, ValueError)):
            method.loss(missing, aux, 0.0)


def test_loss_is_pure(method: Method, dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    signals, aux = fake(method, dims()), aux_of(method, dims())
    before, random_before, torch_before = state_of(aux), random.getstate(), torch.get_rng_state()
    first = method.loss(signals, aux, 0.25)
    method.diagnostics(signals, aux)
    assert_same(first, method.loss(signals, aux, 0.25))
    assert_same(before, state_of(aux))
    assert random.getstate() == random_before
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_diagnostics_are_scalars(method: Method, dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    with torch.no_grad():
        diagnostics = method.diagnostics(fake(method, dims()), aux_of(method, dims()))
    assert all(value.shape == () and torch.isfinite(value) for value in diagnostics.values())


def test_never_waits_for_the_device(method: Method, dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    real = fake(method, dims(), dtype=torch.float32)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:  # has no values: reading one on the host raises

        def without_values(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(without_values, value))
            return value if value is None else mode.from_tensor(value)

        signals = Signals(**{field.name: without_values(getattr(real, field.name)) for field in fields(real)})
        aux = method.build_aux(dims())
        total(method, signals, aux).backward()
        with torch.no_grad():
            method.after_step(signals, aux)
            method.diagnostics(signals, aux)


def test_finite_differences(
    method: Method,
    dims: Callable[..., Dims],
    fake: Callable[..., Signals],
    tensors: Callable[[Signals], dict[str, Tensor]],
) -> None:
    if getattr(method, "gamma", None) == "median" or getattr(method, "detach_input", False):
        pytest.skip("part of the value is held constant on purpose: its own test checks the gradient")
    signals, aux = fake(method, dims()), aux_of(method, dims())
    leaves = {name: tensor for name, tensor in tensors(signals).items() if tensor.requires_grad}
    leaves |= dict(aux.named_parameters())
    gradients = torch.autograd.grad(total(method, signals, aux), list(leaves.values()), allow_unused=True)
    generator, step = torch.Generator().manual_seed(2), 1e-6
    for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
        direction = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
        if name.startswith("student_attention"):
            direction = direction * (leaf.detach() > 1e-3)  # probabilities must stay positive
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                leaf += sign * step * direction
                values.append(float(total(method, signals, aux)))
                leaf -= sign * step * direction
        expected = 0.0 if gradient is None else float((gradient * direction).sum())
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-5, abs=1e-8), name


def test_order_of_the_batch_does_not_matter(
    method: Method, dims: Callable[..., Dims], fake: Callable[..., Signals], mapped: Callable[..., Signals]
) -> None:
    signals, aux = fake(method, dims()), aux_of(method, dims())
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = mapped(signals, lambda _, tensor: tensor[order])
    torch.testing.assert_close(total(method, shuffled, aux), total(method, signals, aux), rtol=1e-12, atol=1e-12)


def test_padding_does_not_matter(
    method: Method, dims: Callable[..., Dims], fake: Callable[..., Signals], mapped: Callable[..., Signals]
) -> None:
    signals, aux = fake(method, dims()), aux_of(method, dims())

    def pad(name: str, tensor: Tensor) -> Tensor:
        if name == "mask_BT":
            return nn.functional.pad(tensor, (0, 3))
        if name.endswith("attention"):
            more_keys = nn.functional.pad(tensor, (0, 3))
            junk = torch.full_like(more_keys[:, :, :3], 0.1 if name.startswith("teacher") else 0.3)
            return torch.cat([more_keys, junk], dim=2)
        return tensor

    padded = mapped(signals, pad)
    torch.testing.assert_close(total(method, padded, aux), total(method, signals, aux), rtol=1e-12, atol=1e-12)


def student_gradients(terms: dict[str, Tensor], named: dict[str, Tensor]) -> dict[str, Tensor]:
    leaves = {name: tensor for name, tensor in named.items() if tensor.requires_grad}
    value = torch.stack(list(terms.values())).sum()
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(leaves, found, strict=True) if gradient is not None}


def test_weight_zero_is_the_loss_without_that_term(
    method: Method,
    dims: Callable[..., Dims],
    fake: Callable[..., Signals],
    tensors: Callable[[Signals], dict[str, Tensor]],
) -> None:
    settings, signals, aux = hyperparameters(method), fake(method, dims()), aux_of(method, dims())
    num_terms = len(method.loss(signals, aux, 0.0))
    weights = [name for name, value in settings.items() if name.endswith("_weight") and value > 0]
    for weight in weights if num_terms > 1 else []:
        without = type(method)(**(settings | {weight: 0.0}))
        expected = method.loss(signals, aux, 0.0)
        del expected[weight.removesuffix("_weight")]  # a term is named as its weight
        fewer = fake(without, dims())
        assert len(tensors(fewer)) < len(tensors(signals)), "signals of an absent term are not asked for"
        found = without.loss(fewer, aux, 0.0)
        assert_same(found, expected)
        assert_same(student_gradients(found, tensors(fewer)), student_gradients(expected, tensors(signals)))
        assert without.loss(fewer, aux_of(without, dims()), 0.0).keys() == expected.keys()


def test_after_step_changes_only_buffers(
    method: Method, dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    signals, aux = fake(method, dims()), aux_of(method, dims())
    before = {name: value.detach().clone() for name, value in aux.named_parameters()}
    torch_before = torch.get_rng_state()
    with torch.no_grad():
        method.after_step(signals, aux)
    assert_same(before, dict(aux.named_parameters()))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert all(torch.isfinite(buffer).all() for buffer in aux.buffers())


@pytest.mark.parametrize("same_widths", [False, True])
def test_extra_flops_are_those_measured(
    method: Method, same_widths: bool, dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    sizes = dims((16, 2, 2), (16, 4, 2), 16) if same_widths else dims((16, 2, 2), (24, 4, 2), 20)
    signals = fake(method, sizes, batch_size=9, dtype=torch.float32)
    aux = method.build_aux(sizes)
    with FlopCounterMode(display=False) as counter:
        total(method, signals, aux).backward()
        with torch.no_grad():
            method.after_step(signals, aux)
    assert method.extra_flops(sizes, 9, 4) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_single_precision_agrees(
    method: Method, dims: Callable[..., Dims], fake: Callable[..., Signals], mapped: Callable[..., Signals]
) -> None:
    wide = fake(method, dims())
    narrow = mapped(wide, lambda _, tensor: tensor.float() if tensor.is_floating_point() else tensor)
    expected = method.loss(wide, aux_of(method, dims()), 0.0)
    for name, value in method.loss(narrow, aux_of(method, dims(), torch.float32), 0.0).items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-5)


def test_runs_under_autocast(method: Method, dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    signals, aux = fake(method, dims(), dtype=torch.float32), aux_of(method, dims(), torch.float32)
    expected = total(method, signals, aux)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = total(method, signals, aux)
        with torch.no_grad():
            method.after_step(signals, aux)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", ["duplicates", "zeros"])
def test_degenerate_batches_stay_finite(
    method: Method,
    kind: str,
    dims: Callable[..., Dims],
    fake: Callable[..., Signals],
    tensors: Callable[[Signals], dict[str, Tensor]],
    mapped: Callable[..., Signals],
) -> None:
    def spoil(name: str, tensor: Tensor) -> Tensor:
        if name in {"index_B", "negative_index_BK"}:
            return tensor
        if kind == "duplicates":
            return tensor[:1].expand_as(tensor)
        return tensor if name == "mask_BT" or name.endswith("attention") else torch.zeros_like(tensor)

    signals, aux = mapped(fake(method, dims()), spoil), aux_of(method, dims())
    total(method, signals, aux).backward()
    for name, tensor in tensors(signals).items():
        assert tensor.grad is None or torch.isfinite(tensor.grad).all(), name
    with torch.no_grad():
        method.after_step(signals, aux)
    assert all(torch.isfinite(value).all() for value in aux.state_dict().values())


def test_batch_of_one_is_finite_or_refused(
    method: Method, dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    signals, aux = fake(method, dims(), batch_size=1), aux_of(method, dims())
    try:
        assert torch.isfinite(total(method, signals, aux))
    except ValueError as error:
        assert "batch" in str(error)


def test_heads_start_from_the_global_seed(method: Method, dims: Callable[..., Dims]) -> None:
    assert_same(state_of(aux_of(method, dims())), state_of(aux_of(method, dims())))


def test_every_registered_class_is_a_method() -> None:
    assert BUILT_IN.keys() <= registry().keys()
    assert all(issubclass(load(name), Method) for name in registry())


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_hyperparameters_are_finite(value: float) -> None:
    for check in (check_positive, check_not_negative):
        with pytest.raises(ValueError, match="weight must be finite"):
            check(weight=value)


def test_a_name_is_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("mse", "elsewhere:MSE", "distilbench.methods")]
    monkeypatch.setattr("methods.entry_points", lambda group: points)
    with pytest.raises(ValueError, match=r"'mse' is registered twice, by methods\.mse:MSE and by elsewhere:MSE"):
        registry()
    points[:] = [EntryPoint("other", value, "distilbench.methods") for value in ("a:A", "b:B")]
    with pytest.raises(ValueError, match="'other' is registered twice"):
        registry()
    points[1] = points[0]
    assert registry()["other"] == "a:A"


@pytest.mark.parametrize("value", ["no_such_package:Method", "methods.mse:Nothing", "methods.mse", "json:dumps"])
def test_what_cannot_be_loaded_is_a_value_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setitem(BUILT_IN, "broken", value)
    with pytest.raises(ValueError, match="the method broken"):
        load("broken")
