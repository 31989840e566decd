"""Fine-tune with labelled texts while forgetting the layer below: InfoNCE with hard negatives plus an HSIC penalty.

Source: Zhang et al. 2023, arXiv:2311.05472, the second stage of the released code.
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
    check_not_negative,
    check_one_of,
    check_positive,
    matmul_flops,
)
from distilbench_methods.functional import hard_negative_info_nce, without_diagonal
from distilbench_methods.kernels import (
    KERNELS,
    Bandwidth,
    Kernel,
    check_bandwidth,
    gradient_ratio,
    hsic,
    kernel_dependence,
    kernel_matrix,
)
from distilbench_methods.space import Choice, Space, Span, space


@dataclass(frozen=True, kw_only=True)
class SupervisedIBKD(Method):
    """Information-bottleneck fine-tuning, IBKD's second stage."""

    name: ClassVar[str] = "ibkd-supervised"
    source: ClassVar[str] = (
        "Zhang et al. 2023, arXiv:2311.05472, the second stage of the released code, which has no teacher: supervised "
        "InfoNCE through a projection to 128 dimensions that is dropped at export, plus the HSIC between the pooled "
        "penultimate layer and the shipped vector over all texts of the batch. Defaults are the released script's, "
        "learning rate and text apart. It starts with a fresh projection and optimiser. Run it behind the first stage "
        "as the recipe `[ibkd, ibkd-supervised]`."
    )
    unverified: ClassVar[str] = (
        "Only the paper's abstract was at hand. Whether the paper's retrieval models used the penalty in this stage "
        "is not known; the code leaves it undefined for pairs without hard negatives, where it is defined here."
    )
    released_head_start: ClassVar[LinearStart] = "normal"
    search_space: ClassVar[Space] = space(
        hsic_weight=Span(0.0, 2.0),
        temperature=Span(0.01, 0.5, log=True),
        gamma=Choice(0.1, "median"),
    )

    hsic_weight: float = 1.0
    """Weight of the penalty on what the shipped vector keeps of the layer below; 0 leaves the contrast alone."""
    temperature: float = 0.05
    """Divides the cosines of the contrastive term."""
    hard_negatives: bool = True
    """Take each row's third text as a hard negative; otherwise only the other rows' second texts are negatives."""
    hard_negative_alpha: float = 1.0
    """Factor of the own hard negative in the denominator."""
    projected_width: int = 128
    """Width of the projection in which texts are compared."""
    kernel: Kernel = "rbf"
    """`rbf` exp(-gamma distance^2), `imq` 1 / sqrt(distance^2 + gamma), `linear` the inner product, or `cosine`, which
    the released code calls linear."""
    gamma: Bandwidth = 0.1
    """Bandwidth of both kernels, or `median`: 1/(2 median distance^2) of each batch, 2 median distance^2 for `imq`."""

    def __post_init__(self) -> None:
        check_not_negative(hsic_weight=self.hsic_weight)
        check_positive(
            temperature=self.temperature,
            hard_negative_alpha=self.hard_negative_alpha,
            projected_width=self.projected_width,
        )
        check_one_of(KERNELS, kernel=self.kernel)
        check_bandwidth(self.gamma)

    @property
    def coupled(self) -> str:
        return "the other rows' texts are the negatives, and dependence is one of the batch"

    def negatives_per_step(self, batch_size: int) -> int:
        return 2 * batch_size - 1 if self.hard_negatives else batch_size - 1

    def needs(self, dims: Dims) -> Needs:
        layers = (dims.student.layers - 1,) if self.hsic_weight else ()
        return Needs(candidates=2 if self.hard_negatives else 1, student_layers=layers)

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        return nn.ModuleDict({"projection": nn.Linear(dims.student_final, self.projected_width)})

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = {"contrastive": self._contrast(signals.student_BS, signals.candidates_BKS, aux)}
        if self.hsic_weight:
            terms["hsic"] = self.hsic_weight * hsic(*_all_texts(signals), self.gamma, self.kernel)
        return terms

    def _contrast(self, student_BS: Tensor, candidates_BKS: Tensor, aux: nn.ModuleDict) -> Tensor:
        anchor_BE, candidate_BKE = aux["projection"](student_BS), aux["projection"](candidates_BKS)
        negative_BE = candidate_BKE[:, 1] if self.hard_negatives else None
        return hard_negative_info_nce(
            anchor_BE, candidate_BKE[:, 0], negative_BE, self.temperature, self.hard_negative_alpha
        )

    def diagnostics(self, signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor]:
        if not self.hsic_weight:
            return {}
        kernels = [kernel_matrix(x, self.gamma, self.kernel) for x in _all_texts(signals)]
        return {
            "input_kernel": without_diagonal(kernels[0]).mean(),
            "output_kernel": without_diagonal(kernels[1]).mean(),
            "hsic": kernel_dependence(*kernels),
            "gradient_ratio": self._gradient_ratio(signals, aux),
        }

    def _gradient_ratio(self, signals: Signals, aux: nn.ModuleDict) -> Tensor:
        size = len(signals.student_BS)
        with torch.enable_grad():
            below, shipped = (x.detach() for x in _all_texts(signals))
            shipped.requires_grad_()
            penalty = self.hsic_weight * hsic(below, shipped, self.gamma, self.kernel)
            candidates_BKS = shipped[size:].view(signals.candidates_BKS.shape)
            return gradient_ratio(penalty, self._contrast(shipped[:size], candidates_BKS, aux), shipped)

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        candidates = 2 if self.hard_negatives else 1
        texts, width = batch_size * (1 + candidates), dims.student_final
        projection = matmul_flops(texts, width, self.projected_width)
        similarities = matmul_flops(batch_size, self.projected_width, batch_size * candidates)
        if not self.hsic_weight:
            return projection + similarities
        kernels = matmul_flops(texts, dims.student.width, texts) + matmul_flops(texts, width, texts)
        return projection + similarities + kernels


def _all_texts(signals: Signals) -> tuple[Tensor, Tensor]:
    """Penultimate layer and shipped vector of anchors and candidates, each [B (1 + K), S]."""
    below = torch.cat([signals.student_layers_BLS[:, 0], signals.candidate_layers_BKLS[:, :, 0].flatten(0, 1)])
    return below, torch.cat([signals.student_BS, signals.candidates_BKS.flatten(0, 1)])
