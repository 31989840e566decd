"""Random signals of any shape: what the bench would hand to a method, without models or text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any
from zlib import crc32

import pytest
import torch
from torch import Tensor

from methods.base import Dims, Method, ModelDims, Needs, Signals


def make_dims(
    student: tuple[int, int, int] = (6, 2, 2),
    teacher: tuple[int, int, int] = (10, 4, 2),
    final: int = 8,
    num_sentences: int = 12,
    shared_tokens: bool = True,
) -> Dims:
    """Dims from (width, layers, heads) triples; every width differs unless asked otherwise."""
    student_dims = ModelDims(width=student[0], layers=student[1], heads=student[2])
    teacher_dims = ModelDims(width=teacher[0], layers=teacher[1], heads=teacher[2])
    return Dims(
        student=student_dims,
        teacher=teacher_dims,
        teacher_final=final,
        num_sentences=num_sentences,
        shared_tokens=shared_tokens,
    )


class Maker:
    """Draws each field from its own seed, so that a field has the same values whatever else is asked for."""

    def __init__(self, dims: Dims, batch_size: int, num_tokens: int, dtype: torch.dtype, seed: int) -> None:
        self.dims, self.batch_size, self.num_tokens, self.dtype, self.seed = dims, batch_size, num_tokens, dtype, seed

    def generator(self, field: str) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed + crc32(field.encode()))

    def normal(self, field: str, *shape: int, grad: bool = False) -> Tensor:
        values = torch.randn(self.batch_size, *shape, generator=self.generator(field), dtype=torch.float64)
        return values.to(self.dtype).requires_grad_(grad)

    def mask(self) -> Tensor:
        generator = self.generator("mask_BT")
        lengths = torch.randint(1, self.num_tokens + 1, (self.batch_size, 1), generator=generator)
        return (torch.arange(self.num_tokens) < lengths).long()

    def attention(self, field: str, layers: tuple[int, ...], heads: int, grad: bool = False) -> tuple[Tensor, ...]:
        padded = self.mask()[:, None, None, :] == 0
        maps = []
        for layer in layers:
            scores = self.normal(f"{field}{layer}", heads, self.num_tokens, self.num_tokens)
            maps.append(scores.masked_fill(padded, -torch.inf).softmax(-1).requires_grad_(grad))
        return tuple(maps)

    def index(self) -> Tensor:
        return torch.randperm(self.dims.num_sentences, generator=self.generator("index_B"))[: self.batch_size]

    def negatives(self, num_negatives: int) -> Tensor:
        shape = (self.batch_size, num_negatives)
        steps = torch.randint(1, self.dims.num_sentences, shape, generator=self.generator("negative_index_BK"))
        return (self.index()[:, None] + steps) % self.dims.num_sentences

    def signals(self, needs: Needs) -> Signals:
        student, teacher = self.dims.student, self.dims.teacher
        given: dict[str, Any] = {}
        if needs.student_views == 2:
            given["second_view_BS"] = self.normal("second_view_BS", student.width, grad=True)
        if needs.student_layers:
            shape = (len(needs.student_layers), student.width)
            given["student_layers_BLS"] = self.normal("student_layers_BLS", *shape, grad=True)
        if needs.student_attention:
            args = ("student_attention", needs.student_attention, student.heads)
            given["student_attention"] = self.attention(*args, grad=True)
        if needs.teacher_final:
            given["teacher_final_BD"] = self.normal("teacher_final_BD", self.dims.teacher_final)
        if needs.teacher_layers:
            given["teacher_layers_BLH"] = self.normal("teacher_layers_BLH", len(needs.teacher_layers), teacher.width)
        if needs.teacher_attention:
            given["teacher_attention"] = self.attention("teacher_attention", needs.teacher_attention, teacher.heads)
        if needs.negatives:
            given["negative_index_BK"] = self.negatives(needs.negatives)
        student_BS = self.normal("student_BS", student.width, grad=True)
        return Signals(index_B=self.index(), mask_BT=self.mask(), student_BS=student_BS, **given)


def make_signals(
    method: Method,
    dims: Dims,
    *,
    batch_size: int = 5,
    num_tokens: int = 4,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Signals:
    """One batch of exactly what `method` asks for; student tensors require a gradient."""
    return Maker(dims, batch_size, num_tokens, dtype, seed).signals(method.needs(dims))


def tensors_of(signals: Signals) -> dict[str, Tensor]:
    """All tensors of a batch by name; attention maps as `student_attention.0` and so on."""
    found: dict[str, Tensor] = {}
    for field in fields(signals):
        value = getattr(signals, field.name)
        if isinstance(value, tuple):
            found |= {f"{field.name}.{position}": tensor for position, tensor in enumerate(value)}
        elif value is not None:
            found[field.name] = value
    return found


def map_tensors(signals: Signals, change: Callable[[str, Tensor], Tensor]) -> Signals:
    """The batch with every tensor replaced by `change(field name, tensor)`, as fresh leaves."""

    def fresh(name: str, tensor: Tensor) -> Tensor:
        return change(name, tensor.detach()).clone().requires_grad_(tensor.requires_grad)

    changed: dict[str, Any] = {}
    for field in fields(signals):
        value = getattr(signals, field.name)
        if isinstance(value, tuple):
            changed[field.name] = tuple(fresh(field.name, tensor) for tensor in value)
        else:
            changed[field.name] = None if value is None else fresh(field.name, value)
    return Signals(**changed)


@pytest.fixture
def dims() -> Callable[..., Dims]:
    return make_dims


@pytest.fixture
def fake() -> Callable[..., Signals]:
    return make_signals


@pytest.fixture
def tensors() -> Callable[[Signals], dict[str, Tensor]]:
    return tensors_of


@pytest.fixture
def mapped() -> Callable[[Signals, Callable[[str, Tensor], Tensor]], Signals]:
    return map_tensors


@pytest.fixture(params=[(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=["float64", "float32"])
def precision(request: pytest.FixtureRequest) -> tuple[torch.dtype, float]:
    """A floating-point type and the tolerance that values worked by hand must meet in it."""
    chosen: tuple[torch.dtype, float] = request.param
    return chosen
