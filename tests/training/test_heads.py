"""Heads start by one rule of the study, whatever their methods would have."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast, get_args

import pytest
import torch
from torch import nn

import distilbench_methods
from distilbench.conformance.fakes import make_dims
from distilbench.study.budget import Budget, Ledger
from distilbench.study.sections.training import HeadStart
from distilbench.training.heads import started
from distilbench.training.loop import train
from distilbench.training.signals import dims_of
from distilbench_methods.base import Dims
from tests.conftest import MakeJob, teacher_of

WIDTHS = make_dims((96, 2, 4), (144, 4, 4), 136, student_final=72)
EVEN = make_dims((24, 2, 2), (24, 4, 2), 24)
NAMES = sorted(distilbench_methods.registry())


def heads(name: str, rule: HeadStart, dims: Dims = WIDTHS) -> list[nn.Linear]:
    settings: dict[str, Any] = {"matryoshka": {"base": "mse", "widths": (8,)}}.get(name, {})
    aux = started(distilbench_methods.load(name)(**settings), dims, rule, seed=3)
    return [module for module in aux.requires_grad_(False).modules() if isinstance(module, nn.Linear)]


@pytest.mark.parametrize("name", NAMES)
def test_an_isometry_keeps_angles_as_far_as_widths_allow(name: str) -> None:
    for linear in heads(name, "isometry"):
        weight = linear.weight if linear.out_features <= linear.in_features else linear.weight.T
        torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=1e-5, rtol=0)
        assert not linear.bias.any()


@pytest.mark.parametrize("name", NAMES)
def test_between_equal_widths_it_is_the_identity(name: str) -> None:
    for linear in heads(name, "isometry", EVEN):
        if linear.in_features == linear.out_features:
            assert torch.equal(linear.weight, torch.eye(linear.in_features))


@pytest.mark.parametrize("name", NAMES)
def test_torch_has_its_own_start(name: str) -> None:
    for linear in heads(name, "torch"):
        bound = 1 / math.sqrt(linear.in_features)
        assert 0.9 * bound < float(linear.weight.abs().max()) <= bound and bool(linear.bias.any())


@pytest.mark.parametrize("name", NAMES)
def test_the_released_start_is_what_the_method_says(name: str) -> None:
    normal = distilbench_methods.load(name).released_head_start == "normal"
    for linear, default in zip(heads(name, "released"), heads(name, "torch"), strict=True):
        if normal:
            assert float(linear.weight.std()) == pytest.approx(0.02, rel=0.1) and not linear.bias.any()
        else:
            assert torch.equal(linear.weight, default.weight)


def test_the_methods_with_berts_start_are_those_whose_release_calls_it() -> None:
    released = [name for name in NAMES if distilbench_methods.load(name).released_head_start == "normal"]
    assert released == ["ibkd", "ibkd-supervised", "simcse", "simcse-supervised", "tinybert"]


@pytest.mark.parametrize("rule", get_args(HeadStart))
def test_equal_seeds_give_equal_heads(rule: HeadStart) -> None:
    (one,), (same,) = heads("ibkd", rule), heads("ibkd", rule)
    assert torch.equal(one.weight, same.weight)


def test_the_training_starts_by_the_rule(make_job: MakeJob) -> None:
    """After one step, at a learning rate of 0, a head is what it was."""
    for rule in get_args(HeadStart):
        job = make_job("ibkd", budget=Budget("steps", 1))
        job = replace(job, spec=job.spec.model_copy(update={"head_start": rule}))
        dims = dims_of(job.student, teacher_of(job), len(job.text))
        trained = cast(nn.Linear, train(job, Ledger()).aux["decoder"])
        expected = cast(nn.Linear, started(job.method, dims, rule, job.seed)["decoder"])
        assert torch.equal(trained.weight, expected.weight), rule
