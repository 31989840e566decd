"""Imitate the teacher token by token: embeddings, hidden states and attention scores of every matched layer.

Source: Jiao et al. 2020 (Findings of EMNLP), TinyBERT, arXiv:1909.10351, adapted to sentence encoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from distilbench_methods.base import (
    Dims,
    LinearStart,
    Method,
    Needs,
    Signals,
    UnsuitableError,
    check_not_negative,
    evenly_spaced,
    matmul_flops,
)
from distilbench_methods.functional import cosine_distance, in_full_precision, projection, projection_flops
from distilbench_methods.space import Space, Span, space


@in_full_precision
def token_error(student_BTH: Tensor, teacher_BTH: Tensor, mask_BT: Tensor) -> Tensor:
    """Squared error of token states [B, T, H], a scalar: Jiao et al. 2020, eq. 8 and 9, without padding.

    mean_i (1/T_i) sum_{p real} (1/H) |s_ip - t_ip|^2, so that each sentence counts the same whatever its length.
    """
    square_BT = (student_BTH - teacher_BTH).square().mean(-1) * mask_BT
    return (square_BT.sum(1) / mask_BT.sum(1)).mean()


@in_full_precision
def score_error(student_BATT: Tensor, teacher_BATT: Tensor, mask_BT: Tensor) -> Tensor:
    """Squared error of attention scores before the softmax, a scalar: mean over heads and pairs of real tokens.

    Scores of padded queries or keys are left out: Jiao et al. 2020, eq. 7.
    """
    pair_BTT = mask_BT[:, :, None] * mask_BT[:, None, :]
    square_BTT = (student_BATT - teacher_BATT).square().mean(1) * pair_BTT
    return (square_BTT.sum((1, 2)) / pair_BTT.sum((1, 2))).mean()


@dataclass(frozen=True, kw_only=True)
class TinyBERT(Method):
    """Transformer distillation on tokens."""

    name: ClassVar[str] = "tinybert"
    source: ClassVar[str] = (
        "Jiao et al. 2020 (Findings of EMNLP), arXiv:1909.10351, eq. 7 to 9: squared errors of attention scores, and "
        "of the states of the embedding block and all layers through one linear map, as in the released code, where it "
        "also stands between equal widths; evenly spaced layers, unit weights. The map is dropped at export. A cosine "
        "term to the teacher's vector replaces the soft cross-entropy, beside the others: in the code a stage on "
        "layers comes first and one on predictions alone follows, which is the recipe `[tinybert: {final_weight: 0}, "
        "cosine]` here. Every mean leaves out padding and gives each sentence the same weight, where the code counts "
        "padded positions too."
    )
    unverified: ClassVar[str] = "Read in the released code; the paper's text was not at hand."
    released_head_start: ClassVar[LinearStart] = "normal"
    search_space: ClassVar[Space] = space(
        embedding_weight=Span(0.1, 10.0, log=True),
        hidden_weight=Span(0.1, 10.0, log=True),
        attention_weight=Span(0.1, 10.0, log=True),
        final_weight=Span(0.1, 10.0, log=True),
    )

    embedding_weight: float = 1.0
    """Weight of the term on the embedding block."""
    hidden_weight: float = 1.0
    """Weight of the term on hidden states, summed over layers."""
    attention_weight: float = 1.0
    """Weight of the term on attention scores, summed over layers; 0 frees the choice of heads."""
    final_weight: float = 1.0
    """Weight of the cosine term that ties the shipped vector to the teacher's."""

    def __post_init__(self) -> None:
        weights = {
            "embedding_weight": self.embedding_weight,
            "hidden_weight": self.hidden_weight,
            "attention_weight": self.attention_weight,
            "final_weight": self.final_weight,
        }
        check_not_negative(**weights)
        if not any(weights.values()):
            raise ValueError(f"{', '.join(weights)} are all 0: nothing would be trained")

    def needs(self, dims: Dims) -> Needs:
        self._check_fit(dims)
        student_layers = tuple(range(1, dims.student.layers + 1))
        teacher_layers = evenly_spaced(dims.student.layers, dims.teacher_model.layers)
        embedding = (0,) if self.embedding_weight else ()
        return Needs(
            teacher_final=self.final_weight > 0,
            teacher_hidden=embedding + (teacher_layers if self.hidden_weight else ()),
            student_hidden=embedding + (student_layers if self.hidden_weight else ()),
            teacher_attention_scores=teacher_layers if self.attention_weight else (),
            student_attention_scores=student_layers if self.attention_weight else (),
        )

    def _check_fit(self, dims: Dims) -> None:
        student, teacher = dims.student, dims.teacher_model
        if student.layers > teacher.layers:
            raise UnsuitableError(
                f"tinybert matches each student layer to one of the teacher's, but the student has {student.layers} "
                f"layers and the teacher {teacher.layers}; choose a student that is no deeper"
            )
        if self.attention_weight and student.heads != teacher.heads:
            raise UnsuitableError(
                f"tinybert compares attention head by head, but the student has {student.heads} heads and the teacher "
                f"{teacher.heads}; set attention_weight to 0 or choose a student with {teacher.heads} heads"
            )
        if not dims.shared_tokens and (self.embedding_weight or self.hidden_weight or self.attention_weight):
            raise UnsuitableError(
                "tinybert compares token by token, but student and teacher cut sentences into different tokens; "
                "choose a student with the teacher's tokeniser"
            )

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        aux = nn.ModuleDict()
        if self.embedding_weight or self.hidden_weight:
            aux["fit"] = nn.Linear(dims.student.width, dims.teacher_model.width)
        if self.final_weight:
            aux["final"] = projection(dims.student_final, dims.teacher_final)
        return aux

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms, mask_BT = {}, signals.mask_BT
        first = 1 if self.embedding_weight else 0
        if self.embedding_weight:
            value = token_error(aux["fit"](signals.student_hidden[0]), signals.teacher_hidden[0], mask_BT)
            terms["embedding"] = self.embedding_weight * value
        if self.hidden_weight:
            pairs = zip(signals.student_hidden[first:], signals.teacher_hidden[first:], strict=True)
            errors = [token_error(aux["fit"](student), teacher, mask_BT) for student, teacher in pairs]
            terms["hidden"] = self.hidden_weight * torch.stack(errors).sum()
        if self.attention_weight:
            pairs = zip(signals.student_attention_scores, signals.teacher_attention_scores, strict=True)
            errors = [score_error(student, teacher, mask_BT) for student, teacher in pairs]
            terms["attention"] = self.attention_weight * torch.stack(errors).sum()
        if self.final_weight:
            distance_B = cosine_distance(aux["final"](signals.student_BS), signals.teacher_final_BD)
            terms["final"] = self.final_weight * distance_B.mean()
        return terms

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        blocks = (self.embedding_weight > 0) + (self.hidden_weight > 0) * dims.student.layers
        tokens = blocks * matmul_flops(batch_size * num_tokens, dims.student.width, dims.teacher_model.width)
        final = projection_flops(batch_size, dims.student_final, dims.teacher_final) if self.final_weight else 0.0
        return tokens + final
