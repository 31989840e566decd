"""What contrastive methods with memory banks share: banks of projected vectors, and two losses over their rows.

Shape suffix beyond those of `methods.base`: M width of the shared space in which both models are compared.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Signals, State, matmul_flops
from methods.functional import in_full_precision, unit

SMALLEST = 1e-7
"""Added to denominators, and the least score of a positive, as in the released codes."""


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
def raw_scores(anchor_BM: Tensor, bank_NM: Tensor, index_BC: Tensor, temperature: float) -> Tensor:
    """exp(a_i . bank[index_ic] / T), [B, C]; column 0 is the anchor's own row."""
    return torch.exp((F.embedding(index_BC, bank_NM) @ anchor_BM[:, :, None]).squeeze(-1) / temperature)


@in_full_precision
def normaliser(score_BC: Tensor, num_sentences: int) -> Tensor:
    """Z = N times the mean raw score, a scalar without gradient; released codes freeze that of the first batch."""
    return score_BC.detach().mean() * num_sentences


@in_full_precision
def contrastive_side(score_BC: Tensor, z: Tensor, num_sentences: int) -> Tensor:
    """Noise-contrastive estimation of one direction, a scalar; K = C - 1 noise rows, P = score / Z.

    -(1/B) sum_i [ log( P_i0 / (P_i0 + K/N) ) + sum_{k>=1} log( (K/N) / (P_ik + K/N) ) ]: Tian et al. 2020, eq. 18.
    """
    noise = (score_BC.shape[1] - 1) / num_sentences
    p_BC = score_BC / z
    positive_B = p_BC[:, 0].clamp_min(SMALLEST)
    matched_B = positive_B.log() - (positive_B + noise + SMALLEST).log()
    missed_B = (noise / (p_BC[:, 1:] + noise + SMALLEST)).log().sum(-1)
    return -(matched_B + missed_B).mean()


class Banks(State):
    """The banks of both models, and the normalisers of both directions; 0 until the first step."""

    def __init__(self, num_sentences: int, width: int) -> None:
        super().__init__(
            student=new_bank(num_sentences, width),
            teacher=new_bank(num_sentences, width),
            student_z=torch.zeros(()),
            teacher_z=torch.zeros(()),
        )

    def _scores(self, student_BM: Tensor, teacher_BM: Tensor, signals: Signals, temperature: float) -> list[Tensor]:
        """Raw scores of student anchors against the teacher's bank, and the reverse; each [B, 1 + K]."""
        index_BC = torch.cat([signals.index_B[:, None], signals.negative_index_BK], dim=1)
        student_BC = raw_scores(student_BM, self["teacher"], index_BC, temperature)
        return [student_BC, raw_scores(teacher_BM, self["student"], index_BC, temperature)]

    def sides(self, student_BM: Tensor, teacher_BM: Tensor, signals: Signals, temperature: float) -> list[Tensor]:
        """The losses of both directions. Before the first step each takes the normaliser of its own batch."""
        size = len(self["student"])
        found = []
        scores = self._scores(student_BM, teacher_BM, signals, temperature)
        for name, score_BC in zip(("student_z", "teacher_z"), scores, strict=True):
            z = torch.where(self[name] > 0, self[name], normaliser(score_BC, size))
            found.append(contrastive_side(score_BC, z, size))
        return found

    def update(
        self, student_BM: Tensor, teacher_BM: Tensor, signals: Signals, temperature: float, momentum: float
    ) -> None:
        """Keep the first normalisers and move the batch's rows."""
        scores = self._scores(student_BM, teacher_BM, signals, temperature)
        for name, score_BC in zip(("student_z", "teacher_z"), scores, strict=True):
            first = normaliser(score_BC, len(self["student"])).to(self[name].dtype)
            self[name].copy_(torch.where(self[name] > 0, self[name], first))
        move(self["student"], signals.index_B, student_BM, momentum)
        move(self["teacher"], signals.index_B, teacher_BM, momentum)


def contrast_flops(batch_size: int, student: int, teacher: int, shared: int, num_negatives: int) -> float:
    """FLOPs of both projections and both directions' scores, in the loss and again in `after_step`."""
    projections = matmul_flops(batch_size, student, shared) + matmul_flops(batch_size, teacher, shared, gradients=1)
    scores = 2 * matmul_flops(batch_size, shared, 1 + num_negatives, gradients=1)
    again = matmul_flops(batch_size, student + teacher, shared, gradients=0)
    return projections + scores + again + 2 * matmul_flops(batch_size, shared, 1 + num_negatives, gradients=0)
