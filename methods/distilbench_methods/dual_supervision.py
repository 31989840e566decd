"""Learn the teacher's margins twice: within each row's own candidates, and against those of the batch's other rows.

Source: Hofstaetter et al. 2021 (SIGIR), arXiv:2104.06967, dual-teacher supervision (TAS-B).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor, nn

from distilbench_methods.base import (
    Dims,
    Method,
    Needs,
    Signals,
    check_not_negative,
    check_one_of,
    check_positive,
    matmul_flops,
)
from distilbench_methods.functional import candidate_scores, in_batch_scores, in_full_precision, without_diagonal
from distilbench_methods.margin_mse import Similarity, check_reach, margin_error
from distilbench_methods.space import Space, Span, space


@in_full_precision
def in_batch_margin_error(student_BBK: Tensor, teacher_BBK: Tensor) -> Tensor:
    """The squared error of margins between an anchor's own positive and the other rows' texts, a scalar.

    Scores are of anchor i and row j's text k, text 0 the positive. With e = student - teacher, the mean over i != j of
    (e_ii0 - e_ij0)^2, and that over i != j and k > 0 of (e_ii0 - e_ijk)^2, averaged. Raises `ValueError` for a batch of
    one, which has no other rows, and for rows without a negative.
    """
    rows, _, texts = student_BBK.shape
    if rows < 2 or texts < 2:
        raise ValueError(
            f"in-batch negatives need two rows or more of two candidates or more, got {rows} of {texts}; use a larger "
            "batch size or set in_batch_weight to 0"
        )
    error_BBK = student_BBK - teacher_BBK
    own_B11 = error_BBK[:, :, 0].diagonal()[:, None, None]
    gaps_KBC = torch.stack([without_diagonal(gap_BB) for gap_BB in (own_B11 - error_BBK).unbind(-1)])
    return (gaps_KBC[0].square().mean() + gaps_KBC[1:].square().mean()) / 2


@dataclass(frozen=True, kw_only=True)
class DualSupervision(Method):
    """Margin-MSE on labelled candidates and on in-batch negatives, for retrieval."""

    name: ClassVar[str] = "dual-supervision"
    source: ClassVar[str] = (
        "Hofstaetter et al. 2021, arXiv:2104.06967, section 2.3: Margin-MSE of each row's candidates, whose scores are "
        "the text's own (in the paper a cross-encoder's) or else cosines of the teacher's vectors, and 0.75 times "
        "Margin-MSE of the own positive against all texts of the batch's other rows. As in the released code, the "
        "latter is a mean, and leaves out the pairs of the former, where the paper's formula has a sum over all. Its "
        "teacher, ColBERT in the paper, is the study's own here, by the cosines of its vectors. Batches are those of "
        "the study, of rows drawn at random: sampling by topic and by margin (TAS-Balanced) is left out. The student "
        "scores by cosine unless told otherwise, where the authors have dot products."
    )
    search_space: ClassVar[Space] = space(
        in_batch_weight=Span(0.1, 10.0, log=True),
        scale=Span(0.5, 30.0, log=True),
    )

    pair_weight: float = 1.0
    """Weight of the margins between each row's own candidates."""
    in_batch_weight: float = 0.75
    """Weight of the margins between a row's positive and the texts of the other rows."""
    num_negatives: int = 1
    """Negatives of each anchor: so many of the text's candidates beside the first."""
    similarity: Similarity = "cosine"
    """How the student scores a candidate."""
    scale: float = 1.0
    """Multiplies the student's scores, to bring cosines to the range of a cross-encoder's."""
    teacher_scale: float = 1.0
    """Multiplies the teacher's cosines with the other rows' texts. Where the text has scores of its own, set it so that
    both are of the same range."""

    def __post_init__(self) -> None:
        check_not_negative(pair_weight=self.pair_weight, in_batch_weight=self.in_batch_weight)
        check_positive(num_negatives=self.num_negatives, scale=self.scale, teacher_scale=self.teacher_scale)
        check_one_of(get_args(Similarity), similarity=self.similarity)
        if not (self.pair_weight or self.in_batch_weight):
            raise ValueError("pair_weight and in_batch_weight are both 0: nothing would be trained")

    @property
    def coupled(self) -> str:
        return "the other rows' texts are the negatives" if self.in_batch_weight else ""

    def negatives_per_step(self, batch_size: int) -> int:
        in_batch = (batch_size - 1) * (1 + self.num_negatives) if self.in_batch_weight else 0
        return in_batch + (self.num_negatives if self.pair_weight else 0)

    def needs(self, dims: Dims) -> Needs:
        candidates, in_batch = 1 + self.num_negatives, self.in_batch_weight > 0
        return Needs(
            candidates=candidates,
            teacher_scores=self.pair_weight > 0,
            teacher_final=in_batch,
            teacher_candidates=candidates if in_batch else 0,
        )

    def check_scores(self, scores_RK: Tensor) -> None:
        check_reach(scores_RK, self.similarity, self.scale)

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = {}
        if self.pair_weight:
            scores_BK = candidate_scores(signals.student_BS, signals.candidates_BKS, self.similarity)
            error = margin_error(self.scale * scores_BK, signals.teacher_scores_BK)
            terms["pair"] = self.pair_weight * error
        if self.in_batch_weight:
            student_BBK = in_batch_scores(signals.student_BS, signals.candidates_BKS, self.similarity)
            teacher_BBK = in_batch_scores(signals.teacher_final_BD, signals.teacher_candidates_BKD, "cosine")
            error = in_batch_margin_error(self.scale * student_BBK, self.teacher_scale * teacher_BBK)
            terms["in_batch"] = self.in_batch_weight * error
        return terms

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        texts, flops = 1 + self.num_negatives, 0.0
        if self.pair_weight:
            flops += batch_size * matmul_flops(texts, dims.student_final, 1)
        if self.in_batch_weight:
            flops += matmul_flops(batch_size, dims.student_final, batch_size * texts)
            flops += matmul_flops(batch_size, dims.teacher_final, batch_size * texts, gradients=0)
        return flops
