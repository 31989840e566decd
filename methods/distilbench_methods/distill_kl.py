"""Learn the teacher's distribution over candidates: the divergence between softened score lists.

Source: Lin et al. 2020, arXiv:2010.11386.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor, nn

from distilbench_methods.base import Dims, Method, Needs, Signals, check_one_of, check_positive, matmul_flops
from distilbench_methods.functional import candidate_scores, in_full_precision
from distilbench_methods.space import Space, Span, space

Similarity = Literal["dot", "cosine"]


@in_full_precision
def score_divergence(
    student_BK: Tensor, teacher_BK: Tensor, temperature: float, teacher_temperature: float | None = None
) -> Tensor:
    """tau^2 (1/B) sum_i KL( softmax(t_i / tau_t) || softmax(s_i / tau) ), a scalar; tau_t is tau unless given.

    A constant added to all of an anchor's scores changes nothing. With a temperature far below the spread of the scores
    both sides are one-hot and the gradient is 0.
    """
    log_teacher_BK = (teacher_BK / (teacher_temperature or temperature)).log_softmax(-1)
    log_student_BK = (student_BK / temperature).log_softmax(-1)
    row_B = (log_teacher_BK.exp() * (log_teacher_BK - log_student_BK)).sum(-1)
    return temperature**2 * row_B.mean()


@dataclass(frozen=True, kw_only=True)
class DistillKL(Method):
    """Distillation of candidate distributions, for retrieval."""

    name: ClassVar[str] = "distill-kl"
    source: ClassVar[str] = (
        "Lin et al. 2020, arXiv:2010.11386, as in the sentence-transformers library: one temperature for both sides "
        "and its square as a factor, unless the teacher has one of its own. The teacher's scores are the text's own, "
        "or else cosines of the teacher's vectors."
    )
    unverified: ClassVar[str] = (
        "The formula follows the library's code; the paper's text was not at hand. The default temperature is ours, "
        "chosen for cosines."
    )
    search_space: ClassVar[Space] = space(
        temperature=Span(0.01, 0.5, log=True),
        scale=Span(0.5, 30.0, log=True),
    )

    num_candidates: int = 2
    """Candidates of each anchor, the fitting one first."""
    temperature: float = 0.05
    """Divides the student's scores, and the teacher's unless they have a temperature of their own."""
    teacher_temperature: float | None = None
    """Divides the teacher's scores. Set it for scores that are no cosines: at 0.05 a cross-encoder's are one-hot, which
    a `teacher_certainty` of 1 in the curve says; that is the mean of the teacher's largest probabilities."""
    similarity: Similarity = "cosine"
    """How the student scores a candidate."""
    scale: float = 1.0
    """Multiplies the student's scores, to bring cosines to the range of a cross-encoder's."""

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature, scale=self.scale)
        check_one_of(get_args(Similarity), similarity=self.similarity)
        if self.teacher_temperature is not None:
            check_positive(teacher_temperature=self.teacher_temperature)
        if self.num_candidates < 2:
            raise ValueError(f"num_candidates must be 2 or more, got {self.num_candidates}: one text has no rank")

    def needs(self, dims: Dims) -> Needs:
        return Needs(candidates=self.num_candidates, teacher_scores=True)

    def negatives_per_step(self, batch_size: int) -> int:
        return self.num_candidates - 1

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        scores_BK = candidate_scores(signals.student_BS, signals.candidates_BKS, self.similarity)
        value = score_divergence(
            self.scale * scores_BK, signals.teacher_scores_BK, self.temperature, self.teacher_temperature
        )
        return {"divergence": value}

    def diagnostics(self, signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor]:
        softened_BK = signals.teacher_scores_BK / (self.teacher_temperature or self.temperature)
        return {"teacher_certainty": softened_BK.softmax(-1).amax(-1).mean()}

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        return batch_size * matmul_flops(self.num_candidates, dims.student_final, 1)
