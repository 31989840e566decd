"""Learn from labelled texts: an anchor must find the text that fits it among those of the batch and its hard negative.

Source: Gao, Yao and Chen 2021, arXiv:2104.08821, eq. 5 (supervised).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from torch import Tensor, nn

from distilbench_methods.base import (
    Dims,
    LinearStart,
    Method,
    Needs,
    Signals,
    check_one_of,
    check_positive,
    matmul_flops,
)
from distilbench_methods.functional import hard_negative_info_nce
from distilbench_methods.simcse import Head, tanh_head
from distilbench_methods.space import Choice, Space, Span, space


@dataclass(frozen=True, kw_only=True)
class SupervisedSimCSE(Method):
    """Supervised contrastive learning: a baseline, and the stage that any distillation may be followed by."""

    name: ClassVar[str] = "simcse-supervised"
    source: ClassVar[str] = (
        "Gao, Yao and Chen 2021, arXiv:2104.08821, eq. 5: InfoNCE over the fitting texts and the hard negatives of "
        "the batch. The authors ship a head (dense and tanh) on the first token's vector; on mean-pooled vectors none "
        "is the default here. As a second stage: `[mse, simcse-supervised: {share: 0.2}]`."
    )
    released_head_start: ClassVar[LinearStart] = "normal"
    search_space: ClassVar[Space] = space(
        temperature=Span(0.01, 0.5, log=True),
        head=Choice("dropped", "none"),
    )

    temperature: float = 0.05
    """Divides the cosines: smaller values stress the hardest negatives."""
    hard_negatives: bool = True
    """Take each row's third text as a hard negative; otherwise only the other rows' second texts are negatives."""
    hard_negative_alpha: float = 1.0
    """Factor of the own hard negative in the denominator."""
    head: Head = "none"
    """Dense and tanh behind the pooling: `dropped` at export, `shipped`, or `none`."""

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature, hard_negative_alpha=self.hard_negative_alpha)
        check_one_of(get_args(Head), head=self.head)

    @property
    def coupled(self) -> str:
        return "the other rows' texts are the negatives"

    def negatives_per_step(self, batch_size: int) -> int:
        return 2 * batch_size - 1 if self.hard_negatives else batch_size - 1

    def needs(self, dims: Dims) -> Needs:
        return Needs(candidates=2 if self.hard_negatives else 1)

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        return nn.ModuleDict({"head": tanh_head(dims.student_final, self.head)})

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        anchor_BS, candidate_BKS = aux["head"](signals.student_BS), aux["head"](signals.candidates_BKS)
        negative_BS = candidate_BKS[:, 1] if self.hard_negatives else None
        value = hard_negative_info_nce(
            anchor_BS, candidate_BKS[:, 0], negative_BS, self.temperature, self.hard_negative_alpha
        )
        return {"contrastive": value}

    def exported_head(self, aux: nn.ModuleDict) -> nn.Module | None:
        return aux["head"] if self.head == "shipped" else None

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        width, candidates = dims.student_final, 2 if self.hard_negatives else 1
        head = 0.0 if self.head == "none" else matmul_flops(batch_size * (1 + candidates), width, width)
        return head + matmul_flops(batch_size, width, batch_size * candidates)
