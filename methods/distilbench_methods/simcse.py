"""Learn without a teacher: two dropout views of a sentence must find each other among those of the batch.

Source: Gao, Yao and Chen 2021, arXiv:2104.08821, eq. 4 (unsupervised).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilbench_methods.base import (
    Dims,
    LinearStart,
    Method,
    Needs,
    Signals,
    check_not_negative,
    check_one_of,
    check_positive,
    matmul_flops,
    num_masked,
)
from distilbench_methods.functional import in_full_precision, info_nce
from distilbench_methods.space import Choice, Space, Span, space

Head = Literal["dropped", "shipped", "none"]


def tanh_head(width: int, head: Head) -> nn.Module:
    """Dense and tanh, or nothing."""
    return nn.Identity() if head == "none" else nn.Sequential(nn.Linear(width, width), nn.Tanh())


@in_full_precision
def masked_language_loss(state_PS: Tensor, embedding_VS: Tensor, bias_V: Tensor, target_P: Tensor) -> Tensor:
    """Cross-entropy of the masked tokens, a scalar: logits are products with the tied word embeddings plus a bias."""
    return F.cross_entropy(state_PS @ embedding_VS.T + bias_V, target_P)


class MaskedHead(nn.Module):
    """BERT's head for masked tokens up to the tied output table, whose bias it holds."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias_V = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, state_PS: Tensor) -> Tensor:
        transformed: Tensor = self.transform(state_PS)
        return transformed


@dataclass(frozen=True, kw_only=True)
class SimCSE(Method):
    """Unsupervised contrastive learning, the control that shows what a teacher adds."""

    name: ClassVar[str] = "simcse"
    source: ClassVar[str] = (
        "Gao, Yao and Chen 2021, arXiv:2104.08821, eq. 4: InfoNCE between two dropout views, the first one the anchor. "
        "The head (dense and tanh) is used in training only. The authors put it on the first token's vector, which "
        "they also ship; here it stands on the bench's shipped pooling, mean pooling by default. The optional masked "
        "language term masks a fixed number of tokens (15 % of the padded batch), with BERT's head and tied table."
    )
    released_head_start: ClassVar[LinearStart] = "normal"
    search_space: ClassVar[Space] = space(
        temperature=Span(0.01, 0.5, log=True),
        head=Choice("dropped", "none"),
    )

    temperature: float = 0.05
    """Divides the cosines: smaller values stress the hardest negatives."""
    head: Head = "dropped"
    """Dense and tanh behind the pooling: `dropped` at export, `shipped`, or `none`."""
    mlm_weight: float = 0.0
    """Weight of masked language modelling on a third pass; the authors use 0.1 where they use it."""

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)
        check_not_negative(mlm_weight=self.mlm_weight)
        check_one_of(get_args(Head), head=self.head)

    @property
    def coupled(self) -> str:
        return "the second views of the other sentences are the negatives"

    def negatives_per_step(self, batch_size: int) -> int:
        return batch_size - 1

    def needs(self, dims: Dims) -> Needs:
        return Needs(student_views=2, masked_tokens=self.mlm_weight > 0)

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        aux = nn.ModuleDict({"head": tanh_head(dims.student_final, self.head)})
        if self.mlm_weight:
            aux["mlm"] = MaskedHead(dims.student.width, dims.vocabulary)
        return aux

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        anchor_BS, candidate_BS = aux["head"](signals.student_BS), aux["head"](signals.second_view_BS)
        terms = {"contrastive": info_nce(anchor_BS, candidate_BS, self.temperature)}
        if self.mlm_weight:
            head = cast(MaskedHead, aux["mlm"])
            value = masked_language_loss(
                head(signals.masked_PS), signals.embedding_VS, head.bias_V, signals.masked_target_P
            )
            terms["mlm"] = self.mlm_weight * value
        return terms

    def exported_head(self, aux: nn.ModuleDict) -> nn.Module | None:
        return aux["head"] if self.head == "shipped" else None

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        shipped, width = dims.student_final, dims.student.width
        head = 0.0 if self.head == "none" else 2 * matmul_flops(batch_size, shipped, shipped)
        contrast = head + matmul_flops(batch_size, shipped, batch_size)
        if not self.mlm_weight:
            return contrast
        masked = num_masked(batch_size, num_tokens)
        return contrast + matmul_flops(masked, width, width) + matmul_flops(masked, width, dims.vocabulary)
