"""What contrastive methods with memory banks share: the banks, two losses over their rows, and the frame around them.

Shape suffix beyond those of `distilbench_methods.base`: M width of the shared space in which both models are compared.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilbench_methods.base import Dims, Method, Signals, State, check_not_negative, check_positive, matmul_flops
from distilbench_methods.functional import cosine_distance, in_full_precision, projection, projection_flops, unit

SMALLEST = 1e-7
"""Added to denominators, as in the released codes."""


def summarise(layers_BLE: Tensor, head: nn.Module) -> Tensor:
    """Unit vectors of the stacked layers in the shared space: norm(W concat_l(mean_l) + b), [B, M]."""
    return unit(head(layers_BLE.flatten(1)))


def new_bank(num_sentences: int, width: int) -> Tensor:
    """Uniform entries in +-sqrt(3 / M), [N, M]: rows of length about 1."""
    bound = (3 / width) ** 0.5
    return torch.empty(num_sentences, width).uniform_(-bound, bound)


def moved_rows(row_BM: Tensor, fresh_BM: Tensor, momentum: float) -> Tensor:
    """Bank rows after seeing their sentence again: norm(momentum row + (1 - momentum) fresh), [B, M]."""
    return unit(momentum * row_BM + (1 - momentum) * fresh_BM)


def move(bank_NM: Tensor, index_B: Tensor, fresh_BM: Tensor, momentum: float) -> None:
    """Move the rows of a batch in place."""
    moved_BM = moved_rows(bank_NM[index_B], fresh_BM, momentum)
    bank_NM.index_copy_(0, index_B, moved_BM.to(bank_NM.dtype))


@in_full_precision
def bank_info_nce(
    anchor_BM: Tensor,
    positive_BM: Tensor,
    bank_NM: Tensor,
    negative_index_BK: Tensor,
    temperature: float,
    dropped_BK: Tensor | None = None,
) -> Tensor:
    """InfoNCE with each anchor's own negatives, rows of a bank; a scalar, log(K + 1) where all scores are equal.

    -(1/B) sum_i log( exp(a_i.p_i / tau) / (exp(a_i.p_i / tau) + sum_k exp(a_i.bank[index_ik] / tau)) ), k over the
    negatives that are not dropped; an anchor without any adds 0.
    """
    positive_B1 = (anchor_BM * positive_BM).sum(-1, keepdim=True)
    negative_BK = (F.embedding(negative_index_BK, bank_NM) @ anchor_BM[:, :, None]).squeeze(-1)
    if dropped_BK is not None:
        negative_BK = negative_BK.masked_fill(dropped_BK, -torch.inf)
    logits_BC = torch.cat([positive_B1, negative_BK], dim=1) / temperature
    return (logits_BC.logsumexp(1) - logits_BC[:, 0]).mean()


@in_full_precision
def bank_logits(anchor_BM: Tensor, bank_NM: Tensor, index_BC: Tensor, temperature: float) -> Tensor:
    """a_i . bank[index_ic] / T, [B, C], the logarithms of raw scores; column 0 is the anchor's own row."""
    return (F.embedding(index_BC, bank_NM) @ anchor_BM[:, :, None]).squeeze(-1) / temperature


@in_full_precision
def log_normaliser(logit_BC: Tensor, num_sentences: int) -> Tensor:
    """log Z, Z = N times the mean raw score; a scalar without gradient. Released codes freeze the first batch's Z."""
    return logit_BC.detach().flatten().logsumexp(0) + math.log(num_sentences / logit_BC.numel())


@in_full_precision
def contrastive_side(logit_BC: Tensor, log_z: Tensor, num_sentences: int) -> Tensor:
    """Noise-contrastive estimation of one direction, a scalar; K = C - 1 noise rows, P = exp(logit) / Z.

    -(1/B) sum_i [ log( P_i0 / (P_i0 + K/N) ) + sum_{k>=1} log( (K/N) / (P_ik + K/N) ) ]: Tian et al. 2020, eq. 18.
    Log-sigmoids, so that the tiny P of a large text and the huge ones of a low temperature keep their gradient.
    """
    noise = (logit_BC.shape[1] - 1) / num_sentences
    odds_BC = logit_BC - log_z - math.log(noise + SMALLEST)
    matched_B, missed_B = F.logsigmoid(odds_BC[:, 0]), F.logsigmoid(-odds_BC[:, 1:]).sum(-1)
    return -(matched_B + missed_B).mean() + (logit_BC.shape[1] - 1) * math.log1p(SMALLEST / noise)


class Banks(State):
    """The banks of both models, and the normalisers of both directions; infinite until the first step."""

    def __init__(self, num_sentences: int, width: int) -> None:
        super().__init__(
            student=new_bank(num_sentences, width),
            teacher=new_bank(num_sentences, width),
            student_log_z=torch.full((), torch.inf),
            teacher_log_z=torch.full((), torch.inf),
        )

    def _logits(
        self, student_BM: Tensor, teacher_BM: Tensor, signals: Signals, temperature: float
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Logits and normaliser of student anchors against the teacher's bank, and of the reverse, by anchor's side.

        Before the first step the normaliser is the batch's own.
        """
        index_BC = torch.cat([signals.index_B[:, None], signals.negative_index_BK], dim=1)
        found = {}
        for side, anchor_BM, bank in (("student", student_BM, "teacher"), ("teacher", teacher_BM, "student")):
            logit_BC, stored = bank_logits(anchor_BM, self[bank], index_BC, temperature), self[f"{side}_log_z"]
            own = log_normaliser(logit_BC, len(self[bank]))
            found[side] = logit_BC, torch.where(stored.isfinite(), stored, own)
        return found

    def sides(self, student_BM: Tensor, teacher_BM: Tensor, signals: Signals, temperature: float) -> Tensor:
        """The losses of both directions, [2]."""
        found = self._logits(student_BM, teacher_BM, signals, temperature).values()
        return torch.stack([contrastive_side(logit_BC, log_z, len(self["student"])) for logit_BC, log_z in found])

    def update(
        self, student_BM: Tensor, teacher_BM: Tensor, signals: Signals, temperature: float, momentum: float
    ) -> None:
        """Keep the first normalisers and move the batch's rows."""
        for side, (_, log_z) in self._logits(student_BM, teacher_BM, signals, temperature).items():
            self[f"{side}_log_z"].copy_(log_z)
        move(self["student"], signals.index_B, student_BM, momentum)
        move(self["teacher"], signals.index_B, teacher_BM, momentum)


@dataclass(frozen=True, kw_only=True)
class BankMethod(Method):
    """Frame of a method with a contrastive term over banks and a cosine term to the teacher's final vector.

    A method declares these fields again, with their defaults and meanings.
    """

    contrastive_weight: float
    final_weight: float
    num_negatives: int
    temperature: float
    shared_width: int
    bank_momentum: float

    def __post_init__(self) -> None:
        check_not_negative(
            contrastive_weight=self.contrastive_weight,
            final_weight=self.final_weight,
            bank_momentum=self.bank_momentum,
        )
        check_positive(num_negatives=self.num_negatives, temperature=self.temperature, shared_width=self.shared_width)
        if self.bank_momentum >= 1:
            raise ValueError(f"bank_momentum must be below 1, got {self.bank_momentum}: the bank would never change")
        if self.contrastive_weight == self.final_weight == 0:
            raise ValueError("contrastive_weight and final_weight are both 0: nothing would be trained")

    @abstractmethod
    def widths(self, dims: Dims) -> tuple[int, int]:
        """What the projections of student and teacher take in."""

    @abstractmethod
    def views(self, signals: Signals, aux: nn.ModuleDict) -> tuple[Tensor, Tensor]:
        """Unit vectors of student and teacher in the shared space, each [B, M]."""

    @abstractmethod
    def new_banks(self, num_sentences: int) -> State:
        """The banks before the first step."""

    @abstractmethod
    def contrast(self, signals: Signals, aux: nn.ModuleDict) -> Tensor:
        """The contrastive term without its weight."""

    @abstractmethod
    def remember(self, signals: Signals, aux: nn.ModuleDict) -> None:
        """Move the batch's rows of the banks."""

    @abstractmethod
    def contrast_flops(self, dims: Dims, batch_size: int) -> float:
        """What the contrastive term adds to `extra_flops`."""

    def negatives_per_step(self, batch_size: int) -> int:
        return self.num_negatives if self.contrastive_weight else 0

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        aux = nn.ModuleDict()
        if self.contrastive_weight:
            for side, width in zip(("student", "teacher"), self.widths(dims), strict=True):
                aux[side] = nn.Linear(width, self.shared_width)
            aux["banks"] = self.new_banks(dims.num_sentences)
        if self.final_weight:
            aux["final"] = projection(dims.student_final, dims.teacher_final)
        return aux

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = {}
        if self.contrastive_weight:
            terms["contrastive"] = self.contrastive_weight * self.contrast(signals, aux)
        if self.final_weight:
            distance_B = cosine_distance(aux["final"](signals.student_BS), signals.teacher_final_BD)
            terms["final"] = self.final_weight * distance_B.mean()
        return terms

    def after_step(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> None:
        if self.contrastive_weight:
            self.remember(signals, aux)

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        final = projection_flops(batch_size, dims.student_final, dims.teacher_final) if self.final_weight else 0.0
        return final + (self.contrast_flops(dims, batch_size) if self.contrastive_weight else 0.0)


class NoiseContrast(BankMethod):
    """Noise-contrastive estimation in both directions, positives from the banks."""

    @property
    def coupled(self) -> str:
        return "the first batch's mean score normalises all others" if self.contrastive_weight else ""

    def new_banks(self, num_sentences: int) -> Banks:
        return Banks(num_sentences, self.shared_width)

    def sides(self, signals: Signals, aux: nn.ModuleDict) -> Tensor:
        """The losses of both directions, [2]."""
        return cast(Banks, aux["banks"]).sides(*self.views(signals, aux), signals, self.temperature)

    def remember(self, signals: Signals, aux: nn.ModuleDict) -> None:
        banks = cast(Banks, aux["banks"])
        banks.update(*self.views(signals, aux), signals, self.temperature, self.bank_momentum)

    def contrast_flops(self, dims: Dims, batch_size: int) -> float:
        (student, teacher), shared, size = self.widths(dims), self.shared_width, batch_size
        projections = matmul_flops(size, student, shared) + matmul_flops(size, teacher, shared, gradients=1)
        scores = 2 * matmul_flops(size, shared, 1 + self.num_negatives, gradients=1)
        # The fresh projections and scores of after_step.
        again = matmul_flops(size, student + teacher, shared, gradients=0)
        return projections + scores + again + 2 * matmul_flops(size, shared, 1 + self.num_negatives, gradients=0)
