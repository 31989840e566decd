"""Match the teacher by contrast while forgetting the input: InfoNCE to the teacher's vectors plus an HSIC penalty.

Source: Zhang et al. 2023, arXiv:2311.05472 (information bottleneck), the distillation stage of the released code.
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
    check_one_of,
    check_positive,
    matmul_flops,
)
from distilbench_methods.functional import info_nce, unit, without_diagonal
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
class IBKD(Method):
    """Information-bottleneck distillation, first stage."""

    name: ClassVar[str] = "ibkd"
    source: ClassVar[str] = (
        "Zhang et al. 2023, arXiv:2311.05472, the unsupervised distillation stage of the released code: InfoNCE with "
        "the student as anchor, through a decoder that is dropped at export, plus the HSIC between the pooled "
        "embedding block and the shipped vector. Defaults are the values of the released script. The release calls "
        "an undefined function for the penalty; its only RBF penalty is meant here. The kernels `imq` and `cosine` are "
        "the ones that it defines and does not use; `linear`, unit vectors before kernels and the median heuristic are "
        "ours. Extra teacher rows are a fixed number, drawn from outside the batch."
    )
    unverified: ClassVar[str] = (
        "Only the paper's abstract was at hand: its weight, temperature, kernel, bandwidth, negatives and choice of "
        "input are not confirmed, nor whether its targets were raw or reduced to 128 dimensions."
    )
    released_head_start: ClassVar[LinearStart] = "normal"
    search_space: ClassVar[Space] = space(
        hsic_weight=Span(0.0, 2.0),
        temperature=Span(0.02, 1.0, log=True),
        gamma=Choice(1.0, "median"),
        detach_input=Choice(False, True),
    )

    hsic_weight: float = 0.2
    """Weight of the penalty on what the shipped vector keeps of its input; 0 leaves the contrastive term alone."""
    temperature: float = 1.0
    """Divides the cosines of the contrastive term."""
    kernel: Kernel = "rbf"
    """`rbf` exp(-gamma distance^2), `imq` 1 / sqrt(distance^2 + gamma), `linear` the inner product, or `cosine`, which
    the released code calls linear."""
    gamma: Bandwidth = 1.0
    """Bandwidth of both kernels, or `median`: 1/(2 median distance^2) of each batch, 2 median distance^2 for `imq`.

    `linear` and `cosine` have none. A fixed bandwidth saturates on vectors of large norm: off-diagonal kernel means
    near 0 or 1 in the curve say so.
    """
    input_layer: int = 0
    """Pooled student layer that stands for the input: 0 is the embedding block."""
    detach_input: bool = False
    """Keep the penalty's gradient out of the input side."""
    normalize_inputs: bool = False
    """Bring both views to unit length before the kernels."""
    extra_negatives: int = 0
    """Teacher vectors from outside the batch that serve as further negatives of every sentence."""

    def __post_init__(self) -> None:
        check_not_negative(
            hsic_weight=self.hsic_weight, input_layer=self.input_layer, extra_negatives=self.extra_negatives
        )
        check_one_of(KERNELS, kernel=self.kernel)
        check_positive(temperature=self.temperature)
        check_bandwidth(self.gamma)

    def needs(self, dims: Dims) -> Needs:
        if self.input_layer > dims.student.layers:
            raise UnsuitableError(
                f"ibkd: input_layer is {self.input_layer}, but the student has {dims.student.layers} layers; "
                f"choose one from 0 to {dims.student.layers}"
            )
        layers = (self.input_layer,) if self.hsic_weight else ()
        return Needs(teacher_final=True, student_layers=layers, teacher_rows=self.extra_negatives)

    @property
    def coupled(self) -> str:
        return "the teacher's vectors of the other sentences are the negatives, and dependence is one of the batch"

    def negatives_per_step(self, batch_size: int) -> int:
        return batch_size - 1 + self.extra_negatives

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        return nn.ModuleDict({"decoder": nn.Linear(dims.student_final, dims.teacher_final)})

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = {"contrastive": self._contrast(signals.student_BS, signals, aux)}
        if self.hsic_weight:
            terms["hsic"] = self.hsic_weight * self._dependence(signals.student_layers_BLS[:, 0], signals.student_BS)
        return terms

    def _contrast(self, student_BS: Tensor, signals: Signals, aux: nn.ModuleDict) -> Tensor:
        candidate_CD = signals.teacher_final_BD
        if self.extra_negatives:
            candidate_CD = torch.cat([candidate_CD, signals.teacher_rows_MD])
        return info_nce(aux["decoder"](student_BS), candidate_CD, self.temperature)

    def _dependence(self, input_BS: Tensor, student_BS: Tensor) -> Tensor:
        input_BS = input_BS.detach() if self.detach_input else input_BS
        return hsic(input_BS, student_BS, self.gamma, self.kernel, self.normalize_inputs)

    def diagnostics(self, signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor]:
        if not self.hsic_weight:
            return {}
        views = (signals.student_layers_BLS[:, 0], signals.student_BS)
        kernels = [kernel_matrix(unit(x) if self.normalize_inputs else x, self.gamma, self.kernel) for x in views]
        return {
            "input_kernel": without_diagonal(kernels[0]).mean(),
            "output_kernel": without_diagonal(kernels[1]).mean(),
            "hsic": kernel_dependence(*kernels),
            "gradient_ratio": self._gradient_ratio(signals, aux),
        }

    def _gradient_ratio(self, signals: Signals, aux: nn.ModuleDict) -> Tensor:
        with torch.enable_grad():
            student_BS = signals.student_BS.detach().requires_grad_()
            penalty = self.hsic_weight * self._dependence(signals.student_layers_BLS[:, 0].detach(), student_BS)
            return gradient_ratio(penalty, self._contrast(student_BS, signals, aux), student_BS)

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        width, target = dims.student_final, dims.teacher_final
        decoder = matmul_flops(batch_size, width, target)
        similarities = matmul_flops(batch_size, target, batch_size + self.extra_negatives, gradients=1)
        if not self.hsic_weight:
            return decoder + similarities
        gradients = 0 if self.detach_input else 2
        input_kernel = matmul_flops(batch_size, dims.student.width, batch_size, gradients=gradients)
        return decoder + similarities + input_kernel + matmul_flops(batch_size, width, batch_size)
