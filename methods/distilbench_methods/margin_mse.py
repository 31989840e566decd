"""Learn how much better one text fits than another: margins between the teacher's scores, regressed.

Source: Hofstaetter et al. 2020, arXiv:2010.02666, Margin-MSE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor, nn

from distilbench_methods.base import (
    Dims,
    Method,
    Needs,
    Signals,
    UnsuitableError,
    check_one_of,
    check_positive,
    matmul_flops,
)
from distilbench_methods.functional import candidate_scores, in_full_precision
from distilbench_methods.space import Space, Span, space

Similarity = Literal["dot", "cosine"]


@in_full_precision
def margin_error(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """Mean over anchors and negatives of ((s_0 - s_k) - (t_0 - t_k))^2, a scalar; candidate 0 is the positive.

    A constant added to all of an anchor's scores changes nothing.
    """
    margin_BK = student_BK[:, :1] - student_BK[:, 1:]
    return (margin_BK - (teacher_BK[:, :1] - teacher_BK[:, 1:])).square().mean()


def check_reach(scores_RK: Tensor, similarity: Similarity, scale: float) -> None:
    """Raise `UnsuitableError` for margins that no student meets whose scores are cosines times `scale`."""
    if similarity != "cosine":
        return
    largest = float((scores_RK[:, :1] - scores_RK[:, 1:]).abs().max())
    if largest > 2 * scale:
        enough = math.ceil(50 * largest) / 100
        raise UnsuitableError(
            f"the labelled text has margins of up to {largest:.3g} between its scores, and cosines times scale "
            f"{scale:g} differ by {2 * scale:g} at most; set scale to {enough:.12g} or more, or similarity to dot"
        )


@dataclass(frozen=True, kw_only=True)
class MarginMSE(Method):
    """Regression of score margins, for retrieval."""

    name: ClassVar[str] = "margin-mse"
    source: ClassVar[str] = (
        "Hofstaetter et al. 2020, arXiv:2010.02666, as in the sentence-transformers library, whose teacher is often a "
        "cross-encoder with unbounded scores and whose student scores by dot product. Here the teacher's scores are "
        "the text's own, or else cosines of the teacher's vectors; cosines are the default for the student too, since "
        "its vectors are not of unit length. Cosines differ by 2 at most, and margins beyond 2 `scale` cannot be met: "
        "a text whose own scores have such is refused, and the share of others is in the curve as `out_of_reach`."
    )
    unverified: ClassVar[str] = "The formula follows the library's code; the paper's text was not at hand."
    search_space: ClassVar[Space] = space(
        scale=Span(0.5, 30.0, log=True),
    )

    num_negatives: int = 1
    """Negatives of each anchor: so many of the text's candidates beside the first."""
    similarity: Similarity = "cosine"
    """How the student scores a candidate."""
    scale: float = 1.0
    """Multiplies the student's scores, to bring cosines to the range of a cross-encoder's."""

    def __post_init__(self) -> None:
        check_positive(num_negatives=self.num_negatives, scale=self.scale)
        check_one_of(get_args(Similarity), similarity=self.similarity)

    def needs(self, dims: Dims) -> Needs:
        return Needs(candidates=1 + self.num_negatives, teacher_scores=True)

    def negatives_per_step(self, batch_size: int) -> int:
        return self.num_negatives

    def check_scores(self, scores_RK: Tensor) -> None:
        check_reach(scores_RK, self.similarity, self.scale)

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        scores_BK = candidate_scores(signals.student_BS, signals.candidates_BKS, self.similarity)
        return {"margin": margin_error(self.scale * scores_BK, signals.teacher_scores_BK)}

    def diagnostics(self, signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor]:
        if self.similarity != "cosine":
            return {}
        margin_BK = signals.teacher_scores_BK[:, :1] - signals.teacher_scores_BK[:, 1:]
        return {"out_of_reach": (margin_BK.abs() > 2 * self.scale).float().mean()}

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        return batch_size * matmul_flops(1 + self.num_negatives, dims.student_final, 1)
