"""Match the teacher's vectors, find the fitting text among others, and spread the vectors out: three losses at once.

Source: Akram et al. 2026, arXiv:2602.15547, eq. 1 to 4; Schechter Vera et al. 2025, arXiv:2509.20354.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
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
from distilbench_methods.functional import (
    cosine_similarities,
    in_full_precision,
    info_nce,
    projection,
    projection_flops,
    unit,
)
from distilbench_methods.mse import METRICS, Metric
from distilbench_methods.space import Choice, Space, Span, space

SpreadForm = Literal["second-moment", "gor"]


@in_full_precision
def hardness_weighted_info_nce(
    anchor_BE: Tensor, positive_BE: Tensor, negative_BE: Tensor | None, temperature: float, hardness: float
) -> Tensor:
    """InfoNCE over the fitting texts and hard negatives of the batch, the own negative weighted by its hardness.

    -(1/B) sum_i log( e^{cos(q_i, p_i) / tau} / sum_j ( e^{cos(q_i, p_j) / tau} + w_ij e^{cos(q_i, n_j) / tau} ) ), a
    scalar; w_ij = exp(hardness sg(cos(q_i, n_i))) for i = j, else 1; sg has no gradient.
    """
    if negative_BE is None:
        return info_nce(anchor_BE, positive_BE, temperature)
    cosines_BC = unit(anchor_BE) @ unit(torch.cat([positive_BE, negative_BE])).T
    logits_BC = cosines_BC / temperature
    if hardness:
        own_BB = torch.eye(len(anchor_BE), dtype=logits_BC.dtype, device=logits_BC.device)
        bonus_BB = hardness * own_BB * cosines_BC[:, len(anchor_BE) :].detach()
        logits_BC = logits_BC + torch.cat([torch.zeros_like(own_BB), bonus_BB], dim=1)
    return F.cross_entropy(logits_BC, torch.arange(len(anchor_BE), device=anchor_BE.device))


@in_full_precision
def second_moment(x_BE: Tensor) -> Tensor:
    """1/(B (B - 1)) sum_{i != j} cos(x_i, x_j)^2, a scalar; 1/E is that of points drawn evenly from the sphere.

    Raises `ValueError` for a batch of one.
    """
    return cosine_similarities(x_BE).square().mean()


@in_full_precision
def global_orthogonality(x_BE: Tensor) -> Tensor:
    """M_1^2 + max(0, M_2 - 1/E), a scalar: the squared mean of the cosines of different rows, and by how much their
    second moment exceeds that of points drawn evenly from the sphere: Zhang et al. 2017, arXiv:1708.06320.

    Raises `ValueError` for a batch of one.
    """
    cosines_BC = cosine_similarities(x_BE)
    return cosines_BC.mean().square() + F.relu(cosines_BC.square().mean() - 1 / x_BE.shape[-1])


SPREAD = {"second-moment": second_moment, "gor": global_orthogonality}


@dataclass(frozen=True, kw_only=True)
class MatchNCEGOR(Method):
    """Embedding matching, InfoNCE with hard negatives and a global orthogonal regulariser, on labelled texts."""

    name: ClassVar[str] = "match-nce-gor"
    source: ClassVar[str] = (
        "Akram et al. 2026, arXiv:2602.15547 (jina-embeddings-v5-text), eq. 1 to 4, the loss of the retrieval stage "
        "with the weights and the temperature of table A1: cosine distance to the teacher's vectors of both texts "
        "behind a linear map, InfoNCE with hard negatives, and the second moment of the similarities among anchors and "
        "among fitting texts (a global orthogonal regulariser). The authors sum the matching over the batch, train the "
        "temperature, and train adapters on a student that was distilled before; here it is the batch's mean, the "
        "temperature stays, and all of the student is trained. The variant `embeddinggemma`, Schechter Vera et al. "
        "2025, arXiv:2509.20354, matches hard negatives too and weights an anchor's own one by its hardness; other "
        "anchors' hard negatives stay in the denominator, as in the sentence-transformers library. Texts that come "
        "twice in a batch are not masked. For vectors that may be cut, wrap it in `matryoshka`, as both papers do."
    )
    unverified: ClassVar[str] = (
        "EmbeddingGemma's equations are known from summaries: its weights and temperature were not found, so that the "
        "weights of its variant are 1. Neither paper has released its training code."
    )
    search_space: ClassVar[Space] = space(
        contrastive_weight=Span(0.1, 10.0, log=True),
        matching_weight=Span(0.2, 20.0, log=True),
        spread_weight=Span(0.1, 10.0, log=True),
        temperature=Span(0.01, 0.5, log=True),
        metric=Choice("cosine", "l2"),
    )

    contrastive_weight: float = 1.0
    """Weight of InfoNCE over the fitting texts and hard negatives of the batch."""
    matching_weight: float = 2.0
    """Weight of the distance to the teacher's vectors, summed over the texts of a row."""
    spread_weight: float = 1.0
    """Weight of the spread-out term, summed over anchors and fitting texts."""
    temperature: float = 0.02
    """Divides the cosines of the contrastive term."""
    hardness: float = 0.0
    """Weights an anchor's own hard negative by exp(hardness cosine); 0: like the others."""
    hard_negatives: bool = True
    """Take each row's third text as a hard negative; otherwise only the other rows' second texts are negatives."""
    match_negatives: bool = False
    """Match the teacher's vectors of hard negatives too."""
    metric: Metric = "cosine"
    """How far a vector is from the teacher's: `cosine` 1 - cosine, `l2` the distance, `squared` its square, `mse` that
    over the width. The student's vector is brought to unit length before the linear map."""
    spread_form: SpreadForm = "second-moment"
    """`second-moment` of the similarities, as both papers have it, or `gor`: the squared mean, and what the second
    moment has above that of evenly spread vectors, as Zhang et al. 2017 have it."""

    def __post_init__(self) -> None:
        weights = {
            "contrastive_weight": self.contrastive_weight,
            "matching_weight": self.matching_weight,
            "spread_weight": self.spread_weight,
        }
        check_not_negative(**weights, hardness=self.hardness)
        check_positive(temperature=self.temperature)
        check_one_of(get_args(Metric), metric=self.metric)
        check_one_of(get_args(SpreadForm), spread_form=self.spread_form)
        if not any(weights.values()):
            raise ValueError(f"{', '.join(weights)} are all 0: nothing would be trained")

    @property
    def coupled(self) -> str:
        if self.contrastive_weight:
            return "the other rows' texts are the negatives"
        return "similarities between the texts of the batch are kept small" if self.spread_weight else ""

    @property
    def _contrasts_negatives(self) -> bool:
        return self.hard_negatives and self.contrastive_weight > 0

    @property
    def _matched(self) -> int:
        """Candidates of each anchor whose vectors are matched."""
        if not self.matching_weight:
            return 0
        return 2 if self.hard_negatives and self.match_negatives else 1

    @property
    def _candidates(self) -> int:
        return max(1 + self._contrasts_negatives, self._matched)

    def negatives_per_step(self, batch_size: int) -> int:
        if not self.contrastive_weight:
            return 0
        return 2 * batch_size - 1 if self.hard_negatives else batch_size - 1

    def needs(self, dims: Dims) -> Needs:
        return Needs(
            candidates=self._candidates, teacher_final=self.matching_weight > 0, teacher_candidates=self._matched
        )

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        if not self.matching_weight:
            return nn.ModuleDict()
        return nn.ModuleDict({"projection": projection(dims.student_final, dims.teacher_final)})

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = {}
        positive_BS = signals.candidates_BKS[:, 0]
        if self.contrastive_weight:
            negative_BS = signals.candidates_BKS[:, 1] if self.hard_negatives else None
            value = hardness_weighted_info_nce(
                signals.student_BS, positive_BS, negative_BS, self.temperature, self.hardness
            )
            terms["contrastive"] = self.contrastive_weight * value
        if self.matching_weight:
            terms["matching"] = self.matching_weight * self._matching(signals, aux)
        if self.spread_weight:
            spread = SPREAD[self.spread_form]
            terms["spread"] = self.spread_weight * (spread(signals.student_BS) + spread(positive_BS))
        return terms

    def _matching(self, signals: Signals, aux: nn.ModuleDict) -> Tensor:
        """The sum over a row's texts of the batch's mean distance."""
        matched_BKS = signals.candidates_BKS[:, : self._matched]
        student_BTS = torch.cat([signals.student_BS[:, None], matched_BKS], dim=1)
        teacher_BTD = torch.cat([signals.teacher_final_BD[:, None], signals.teacher_candidates_BKD], dim=1)
        distance = METRICS[self.metric](aux["projection"](unit(student_BTS)), teacher_BTD)
        return (1 + self._matched) * distance

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        width, flops = dims.student_final, 0.0
        if self.contrastive_weight:
            flops += matmul_flops(batch_size, width, batch_size * (2 if self.hard_negatives else 1))
        if self.matching_weight:
            flops += projection_flops(batch_size * (1 + self._matched), width, dims.teacher_final)
        if self.spread_weight:
            flops += 2 * matmul_flops(batch_size, width, batch_size)
        return flops
