"""Imitate how the teacher's queries, keys and values relate tokens to each other, in one layer.

Source: Wang et al. 2021 (Findings of ACL), MiniLMv2, arXiv:2012.15828, adapted to sentence encoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from distilbench_methods.base import Dims, Method, Needs, Signals, UnsuitableError, check_not_negative, check_positive
from distilbench_methods.functional import cosine_distance, in_full_precision, projection, projection_flops
from distilbench_methods.space import Space, Span, space

PARTS = ("query", "key", "value")


def log_relations(x_BTE: Tensor, mask_BT: Tensor, relation_heads: int) -> Tensor:
    """log softmax(X X^T / sqrt(d_r)) of each relation head, [B, A_r, T, T]; d_r = E / A_r. Padded keys are left out."""
    head_BAT = x_BTE.unflatten(-1, (relation_heads, -1)).transpose(1, 2)
    score_BATT = head_BAT @ head_BAT.mT / head_BAT.shape[-1] ** 0.5
    open_BATT: Tensor = score_BATT.masked_fill(mask_BT[:, None, None, :] == 0, -torch.inf)
    return open_BATT.log_softmax(-1)


@in_full_precision
def relation_divergence(student_BTS: Tensor, teacher_BTH: Tensor, mask_BT: Tensor, relation_heads: int) -> Tensor:
    """KL(R^t || R^s), a scalar: mean over relation heads and real query rows, then over sentences: eq. 5 to 7.

    A rotation within a head changes nothing. Widths and numbers of attention heads may differ.
    """
    real_B11T = mask_BT[:, None, None, :] != 0
    # Padded keys have probability 0 on both sides; -inf - -inf would be NaN there.
    log_student, log_teacher = (
        log_relations(x_BTE, mask_BT, relation_heads).masked_fill(~real_B11T, 0.0)
        for x_BTE in (student_BTS, teacher_BTH)
    )
    row_BAT = ((log_teacher - log_student) * log_teacher.exp() * real_B11T).sum(-1)
    row_BT = row_BAT.mean(1) * mask_BT
    return (row_BT.sum(1) / mask_BT.sum(1)).mean()


@dataclass(frozen=True, kw_only=True)
class MiniLM(Method):
    """Distillation of self-attention relations."""

    name: ClassVar[str] = "minilm"
    source: ClassVar[str] = (
        "Wang et al. 2021 (Findings of ACL), arXiv:2012.15828: relations among queries, keys and values of one "
        "teacher layer against those of the student's last. The original trains before, and without, any sentence "
        "vector: the cosine term to the teacher's vector is ours, and 0 brings the original back."
    )
    unverified: ClassVar[str] = (
        "Of the second paper only the abstract was at hand: formulas and the number of relation heads are from "
        "memory; unit weights are an assumption. Large teachers are said to give an upper-middle layer in place of "
        "the last."
    )
    search_space: ClassVar[Space] = space(
        query_weight=Span(0.1, 10.0, log=True),
        key_weight=Span(0.1, 10.0, log=True),
        value_weight=Span(0.1, 10.0, log=True),
        final_weight=Span(0.1, 10.0, log=True),
    )

    query_weight: float = 1.0
    """Weight of the relations among queries."""
    key_weight: float = 1.0
    """Weight of the relations among keys."""
    value_weight: float = 1.0
    """Weight of the relations among values."""
    final_weight: float = 1.0
    """Weight of the cosine term that ties the shipped vector to the teacher's."""
    relation_heads: int = 12
    """Heads into which queries, keys and values are cut anew; must divide the widths of both models."""
    teacher_layer: int | None = None
    """Teacher layer (from 1) that is imitated; unset: the last."""

    def __post_init__(self) -> None:
        check_not_negative(**self._weights, final_weight=self.final_weight)
        check_positive(relation_heads=self.relation_heads)
        if self.teacher_layer is not None:
            check_positive(teacher_layer=self.teacher_layer)
        if not any(self._weights.values()) and not self.final_weight:
            raise ValueError(
                "query_weight, key_weight, value_weight and final_weight are all 0: nothing would be trained"
            )

    @property
    def _weights(self) -> dict[str, float]:
        return {f"{part}_weight": getattr(self, f"{part}_weight") for part in PARTS}

    def needs(self, dims: Dims) -> Needs:
        if not any(self._weights.values()):
            return Needs(teacher_final=True)
        self._check_fit(dims)
        return Needs(
            teacher_final=self.final_weight > 0,
            teacher_qkv=(self.teacher_layer or dims.teacher_model.layers,),
            student_qkv=(dims.student.layers,),
        )

    def _check_fit(self, dims: Dims) -> None:
        widths = (dims.student.width, dims.teacher_model.width)
        if any(width % self.relation_heads for width in widths):
            fitting = [n for n in range(1, 65) if not any(width % n for width in widths)]
            raise UnsuitableError(
                f"minilm: {self.relation_heads} relation_heads do not divide the widths {widths[0]} and {widths[1]}; "
                f"{fitting[-1]} would"
            )
        if (self.teacher_layer or 1) > dims.teacher_model.layers:
            raise UnsuitableError(
                f"minilm: teacher_layer is {self.teacher_layer}, but the teacher has {dims.teacher_model.layers} layers"
            )
        if not dims.shared_tokens:
            raise UnsuitableError(
                "minilm compares token by token, but student and teacher cut sentences into different tokens; choose a "
                "student with the teacher's tokeniser"
            )

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        if not self.final_weight:
            return nn.ModuleDict()
        return nn.ModuleDict({"final": projection(dims.student_final, dims.teacher_final)})

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = {}
        for number, (part, weight) in enumerate(zip(PARTS, self._weights.values(), strict=True)):
            if weight:
                student_BTS, teacher_BTH = signals.student_qkv[0][:, number], signals.teacher_qkv[0][:, number]
                value = relation_divergence(student_BTS, teacher_BTH, signals.mask_BT, self.relation_heads)
                terms[part] = weight * value
        if self.final_weight:
            distance_B = cosine_distance(aux["final"](signals.student_BS), signals.teacher_final_BD)
            terms["final"] = self.final_weight * distance_B.mean()
        return terms

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        parts = sum(weight > 0 for weight in self._weights.values())
        one_pass = 2.0 * batch_size * num_tokens**2
        relations = parts * one_pass * (3 * dims.student.width + dims.teacher_model.width)
        final = projection_flops(batch_size, dims.student_final, dims.teacher_final) if self.final_weight else 0.0
        return relations + final
