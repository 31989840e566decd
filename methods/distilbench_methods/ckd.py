"""Find the teacher's vector of a sentence among many: contrast with a queue of teacher vectors of earlier batches.

Source: Gao et al. 2021, arXiv:2112.05638, contrastive knowledge distillation (DistilCSE).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilbench_methods.base import Dims, Method, Needs, Signals, State, check_not_negative, matmul_flops
from distilbench_methods.functional import in_full_precision, projection, unit
from distilbench_methods.space import Space, Span, space

NO_ROW = -1
"""Marks places of the queue that nothing has been written to yet."""


@in_full_precision
def queue_info_nce(
    student_BD: Tensor, teacher_BD: Tensor, queue_QD: Tensor, blocked_BQ: Tensor, log_scale: Tensor
) -> Tensor:
    """InfoNCE of each student row over the batch's teacher rows and a queue of earlier ones, a scalar.

    -(1/B) sum_i log( e^{a' cos(s_i, t_i)} / sum_c e^{a' cos(s_i, c)} ), a' = exp(log_scale), c over all B + Q rows but
    those of the queue that are blocked for anchor i. With an empty queue and a' = 1 / tau it is InfoNCE at tau.
    """
    logits_BC = log_scale.exp() * (unit(student_BD) @ unit(torch.cat([teacher_BD, queue_QD])).T)
    open_BB = torch.zeros(len(student_BD), len(teacher_BD), dtype=torch.bool, device=student_BD.device)
    logits_BC = logits_BC.masked_fill(torch.cat([open_BB, blocked_BQ], dim=1), -torch.inf)
    return F.cross_entropy(logits_BC, torch.arange(len(student_BD), device=student_BD.device))


@dataclass(frozen=True, kw_only=True)
class CKD(Method):
    """Contrastive knowledge distillation with a queue."""

    name: ClassVar[str] = "ckd"
    source: ClassVar[str] = (
        "Gao et al. 2021, arXiv:2112.05638, as in the released code: the student, through a linear map that is dropped "
        "at export, against the teacher's vectors of the batch and of a first-in-first-out queue, with a trained "
        "scale. The code's queue holds 65 536 rows and never leaves out the anchor's own earlier row; its teacher's "
        "dropout is on. Here the queue is smaller, repeats are left out and the teacher is still. The supervised stage "
        "that follows in the paper is a recipe: `[ckd, simcse-supervised]`."
    )
    unverified: ClassVar[str] = "Read in the released code; the paper's text was not at hand."
    search_space: ClassVar[Space] = space(
        queue_size=Span(512, 16_384, log=True),
        initial_log_scale=Span(0.0, 4.0),
        mse_weight=Span(0.0, 2.0),
    )

    queue_size: int = 4096
    """Teacher vectors of earlier batches that serve as further negatives; at most as many as the text has sentences."""
    initial_log_scale: float = 1.0
    """Start of a: cosines are multiplied by exp(a), which is trained."""
    exclude_repeats: bool = True
    """Leave out of the queue the anchor's own earlier row, which would be a false negative."""
    mse_weight: float = 0.0
    """Weight of a squared error to the teacher's vector beside the contrast."""

    def __post_init__(self) -> None:
        check_not_negative(queue_size=self.queue_size, mse_weight=self.mse_weight)
        if not -20 <= self.initial_log_scale <= 20:
            raise ValueError(f"initial_log_scale must lie between -20 and 20, got {self.initial_log_scale}")

    @property
    def coupled(self) -> str:
        return "the teacher's vectors of the other sentences are the negatives"

    def negatives_per_step(self, batch_size: int) -> int:
        return batch_size - 1 + self.queue_size

    def needs(self, dims: Dims) -> Needs:
        return Needs(teacher_final=True)

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        aux = nn.ModuleDict({"decoder": projection(dims.student_final, dims.teacher_final)})
        aux["scale"] = Scale(self.initial_log_scale)
        size = min(self.queue_size, dims.num_sentences)
        aux["queue"] = State(
            vectors=torch.zeros(size, dims.teacher_final),
            rows=torch.full((size,), NO_ROW),
            written=torch.zeros((), dtype=torch.int64),
        )
        return aux

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        student_BD, teacher_BD = aux["decoder"](signals.student_BS), signals.teacher_final_BD
        queue = cast(State, aux["queue"])
        blocked_BQ = (queue["rows"] == NO_ROW)[None].expand(len(student_BD), -1)
        if self.exclude_repeats:
            blocked_BQ = blocked_BQ | (queue["rows"] == signals.index_B[:, None])
        log_scale = cast(Scale, aux["scale"]).log_scale
        terms = {"contrastive": queue_info_nce(student_BD, teacher_BD, queue["vectors"], blocked_BQ, log_scale)}
        if self.mse_weight:
            terms["mse"] = self.mse_weight * F.mse_loss(student_BD, teacher_BD)
        return terms

    def after_step(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> None:
        queue = cast(State, aux["queue"])
        size = len(queue["rows"])
        if not size:
            return
        kept = min(size, len(signals.index_B))
        place_B = (queue["written"] + torch.arange(kept, device=signals.index_B.device)) % size
        queue["vectors"].index_copy_(0, place_B, signals.teacher_final_BD[-kept:].to(queue["vectors"].dtype))
        queue["rows"].index_copy_(0, place_B, signals.index_B[-kept:])
        queue["written"].add_(kept)

    def diagnostics(self, signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor]:
        return {"scale": cast(Scale, aux["scale"]).log_scale.exp()}

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        student, target = dims.student_final, dims.teacher_final
        decoder = 0.0 if student == target else matmul_flops(batch_size, student, target)
        candidates = batch_size + min(self.queue_size, dims.num_sentences)
        return decoder + matmul_flops(batch_size, target, candidates, gradients=1)


class Scale(nn.Module):
    """The trained logarithm of what multiplies the cosines."""

    def __init__(self, log_scale: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(log_scale))
