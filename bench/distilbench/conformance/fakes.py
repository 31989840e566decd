"""Random signals of any shape: what the bench would hand to a method, without models or text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from distilbench_methods.base import Dims, ModelDims, Needs, Signals, num_masked

VOCABULARY = 11


def make_dims(
    student: tuple[int, int, int] = (6, 2, 2),
    teacher: tuple[int, int, int] = (10, 4, 2),
    final: int = 8,
    num_sentences: int = 12,
    shared_tokens: bool = True,
    student_final: int | None = None,
) -> Dims:
    """Dims from (width, layers, heads) triples; every width differs unless asked otherwise.

    `student_final` is the student's own width unless an earlier stage gave it a head.
    """
    student_dims = ModelDims(width=student[0], layers=student[1], heads=student[2])
    teacher_dims = ModelDims(width=teacher[0], layers=teacher[1], heads=teacher[2])
    return Dims(
        student=student_dims,
        teacher=teacher_dims,
        student_final=student[0] if student_final is None else student_final,
        teacher_final=final,
        vocabulary=VOCABULARY,
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
        scores = [self.normal(f"{field}{layer}", heads, self.num_tokens, self.num_tokens) for layer in layers]
        return tuple(score.masked_fill(padded, -torch.inf).softmax(-1).requires_grad_(grad) for score in scores)

    def per_layer(self, field: str, layers: tuple[int, ...], *shape: int, grad: bool = False) -> tuple[Tensor, ...]:
        return tuple(self.normal(f"{field}{layer}", *shape, grad=grad) for layer in layers)

    def stacked(self, field: str, layers: tuple[int, ...], *shape: int) -> Tensor:
        """Layers side by side in the last dimension but one; each has its values whatever others are asked for."""
        return torch.stack(self.per_layer(field, layers, *shape), dim=-2)

    def per_candidate(self, field: str, count: int, width: int) -> Tensor:
        """Candidates side by side in the second dimension; each has its values whatever others are asked for."""
        return torch.stack([self.normal(f"{field}{place}", width) for place in range(count)], dim=1)

    def index(self) -> Tensor:
        return torch.randperm(self.dims.num_sentences, generator=self.generator("index_B"))[: self.batch_size]

    def negatives(self, num_negatives: int) -> Tensor:
        shape = (self.batch_size, num_negatives)
        steps = torch.randint(1, self.dims.num_sentences, shape, generator=self.generator("negative_index_BK"))
        return (self.index()[:, None] + steps) % self.dims.num_sentences

    def signals(self, needs: Needs) -> Signals:
        given = self.student_signals(needs) | self.teacher_signals(needs)
        if needs.negatives:
            given["negative_index_BK"] = self.negatives(needs.negatives)
        student_BS = self.normal("student_BS", self.dims.student_final, grad=True)
        return Signals(index_B=self.index(), mask_BT=self.mask(), student_BS=student_BS, **given)

    def student_signals(self, needs: Needs) -> dict[str, Any]:
        model, shipped = self.dims.student, self.dims.student_final
        given: dict[str, Any] = {}
        if needs.student_views == 2:
            given["second_view_BS"] = self.normal("second_view_BS", shipped, grad=True)
        if needs.candidates:
            vectors_BKS = self.per_candidate("candidates_BKS", needs.candidates, shipped)
            given["candidates_BKS"] = vectors_BKS.requires_grad_()
        if needs.student_layers:
            layers, width = needs.student_layers, model.width
            given["student_layers_BLS"] = self.stacked("student_layers_BLS", layers, width).requires_grad_()
            if needs.candidates:
                shape = (needs.candidates, width)
                given["candidate_layers_BKLS"] = self.stacked("candidate_layers_BKLS", layers, *shape).requires_grad_()
        if needs.masked_tokens:
            count, generator = num_masked(self.batch_size, self.num_tokens), self.generator("masked_target_P")
            given["masked_PS"] = self.normal("masked_PS", model.width).repeat(count, 1)[:count].requires_grad_()
            given["masked_target_P"] = torch.randint(VOCABULARY, (count,), generator=generator)
            table_VS = torch.randn(VOCABULARY, model.width, generator=self.generator("embedding_VS"))
            given["embedding_VS"] = table_VS.to(self.dtype).requires_grad_()
        return given | self.token_signals("student", needs, model, grad=True)

    def teacher_signals(self, needs: Needs) -> dict[str, Any]:
        model, shipped = self.dims.teacher_model, self.dims.teacher_final
        given: dict[str, Any] = {}
        if needs.teacher_final:
            given["teacher_final_BD"] = self.normal("teacher_final_BD", shipped)
        if needs.teacher_layers:
            given["teacher_layers_BLH"] = self.stacked("teacher_layers_BLH", needs.teacher_layers, model.width)
        if needs.teacher_rows:
            rows_MD = torch.randn(needs.teacher_rows, shipped, generator=self.generator("teacher_rows_MD"))
            given["teacher_rows_MD"] = rows_MD.to(self.dtype)
        if needs.teacher_negatives:
            given["teacher_negatives_BKD"] = self.normal("teacher_negatives_BKD", needs.negatives, shipped)
        if needs.teacher_candidates:
            vectors_BKD = self.per_candidate("teacher_candidates_BKD", needs.teacher_candidates, shipped)
            given["teacher_candidates_BKD"] = vectors_BKD
        if needs.teacher_scores:
            given["teacher_scores_BK"] = self.normal("teacher_scores_BK", needs.candidates)
        return given | self.token_signals("teacher", needs, model, grad=False)

    def token_signals(self, side: str, needs: Needs, model: ModelDims, grad: bool) -> dict[str, Any]:
        """Token by token: hidden states, queries, keys and values, attention."""
        tokens, given = self.num_tokens, {}
        for name, shape in {
            f"{side}_attention_scores": (model.heads, tokens, tokens),
            f"{side}_hidden": (tokens, model.width),
            f"{side}_qkv": (3, tokens, model.width),
        }.items():
            if layers := getattr(needs, name):
                given[name] = self.per_layer(name, layers, *shape, grad=grad)
        if layers := getattr(needs, f"{side}_attention"):
            given[f"{side}_attention"] = self.attention(f"{side}_attention", layers, model.heads, grad=grad)
        return given


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
