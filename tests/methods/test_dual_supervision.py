"""Dual supervision: margins within rows and against other rows' texts, by hand and against the paper's formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distilbench_methods.base import Dims, Signals
from distilbench_methods.dual_supervision import DualSupervision, in_batch_margin_error
from distilbench_methods.functional import in_batch_scores

Precision = tuple[torch.dtype, float]
NONE = nn.ModuleDict()


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def test_margins_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    # Of each anchor: its own positive and negative, then the other row's, or the other way round.
    student = torch.tensor([[[3, 9], [1, 2]], [[0, 1], [2, 9]]], dtype=dtype)
    teacher = torch.tensor([[[1, 7], [0, 0]], [[1, 0], [1, 7]]], dtype=dtype)
    # Margins to the other positive: 2, 2 for 1, 0; to the other negative: 1, 1 for 1, 1.
    expected = ((1 + 4) / 2 + (0 + 0) / 2) / 2
    assert float(in_batch_margin_error(student, teacher)) == pytest.approx(expected, abs=tolerance)


def test_the_whole_loss_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    signals = Signals(
        index_B=torch.arange(2),
        mask_BT=torch.ones(2, 1),
        student_BS=torch.tensor([[1, 0], [0, 2]], dtype=dtype),
        candidates_BKS=torch.tensor([[[1, 0], [0, 1]], [[0, 5], [-3, 0]]], dtype=dtype),
        teacher_scores_BK=torch.tensor([[9, 5], [2, 2]], dtype=dtype),
        teacher_final_BD=torch.tensor([[1, 0], [1, 0]], dtype=dtype),
        teacher_candidates_BKD=torch.tensor([[[1, 0], [0, 1]], [[0, 4], [1, 0]]], dtype=dtype),
    )
    terms = DualSupervision(in_batch_weight=2.0, scale=3.0, teacher_scale=5.0).loss(signals, NONE, 0.0)
    # Own margins: 3 (1 - 0) for 4, and 3 (1 - 0) for 0.
    assert float(terms["pair"]) == pytest.approx((1 + 9) / 2, abs=tolerance)
    # To the other positive: 3 (1 - 0) for 5 (1 - 0), 3 (1 - 0) for 5 (0 - 1); to the other negative:
    # 3 (1 + 1) for 5 (1 - 1), 3 (1 - 1) for 5 (0 - 0).
    assert float(terms["in_batch"]) == pytest.approx(2 * ((4 + 64) / 2 + (36 + 0) / 2) / 2, abs=tolerance)


@pytest.mark.parametrize("settings", [{}, {"num_negatives": 3, "similarity": "dot", "scale": 2.0}])
def test_as_written(settings: dict[str, Any], dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    """L_InB: the own positive against each positive and each negative of the others, by L_Pair."""
    method = DualSupervision(teacher_scale=1.5, **settings)
    signals, size = fake(method, dims()), 5

    def fit(anchor: Tensor, text: Tensor, similarity: str) -> Tensor:
        return anchor @ text if similarity == "dot" else torch.cosine_similarity(anchor, text, dim=0)

    def pair(i: int, j: int, k: int) -> Tensor:
        anchor, own, other = signals.student_BS[i], signals.candidates_BKS[i, 0], signals.candidates_BKS[j, k]
        margin = fit(anchor, own, method.similarity) - fit(anchor, other, method.similarity)
        anchor, own = signals.teacher_final_BD[i], signals.teacher_candidates_BKD[i, 0]
        wanted = fit(anchor, own, "cosine") - fit(anchor, signals.teacher_candidates_BKD[j, k], "cosine")
        return (method.scale * margin - 1.5 * wanted).square()

    others = [(i, j) for i in range(size) for j in range(size) if i != j]
    positives = torch.stack([pair(i, j, 0) for i, j in others]).mean()
    negatives = torch.stack([pair(i, j, k) for i, j in others for k in range(1, 1 + method.num_negatives)]).mean()
    terms = method.loss(signals, NONE, 0.0)
    torch.testing.assert_close(terms["in_batch"], 0.75 * (positives + negatives) / 2)


def test_the_teachers_own_scores_cost_nothing(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method, equal = DualSupervision(), dims(student=(8, 2, 2))
    signals = fake(method, equal)
    scores = torch.cosine_similarity(signals.teacher_final_BD[:, None], signals.teacher_candidates_BKD, dim=-1)
    ideal = replace(
        signals,
        student_BS=3 * signals.teacher_final_BD,
        candidates_BKS=2 * signals.teacher_candidates_BKD,
        teacher_scores_BK=scores,
    )
    for value in method.loss(ideal, NONE, 0.0).values():
        assert value.item() == pytest.approx(0, abs=1e-20)


def test_a_constant_for_each_anchor_changes_nothing_and_gradients_are_slopes() -> None:
    student, teacher, shift = draw(4, 4, 3, grad=True), draw(4, 4, 3, seed=1), draw(4, 1, 1, seed=2)
    torch.testing.assert_close(
        in_batch_margin_error(student + shift, teacher - 3 * shift), in_batch_margin_error(student, teacher)
    )
    assert torch.autograd.gradcheck(lambda x: in_batch_margin_error(x, teacher), (student,))


def test_own_negatives_are_left_to_the_other_term() -> None:
    student, teacher = draw(3, 3, 2), draw(3, 3, 2, seed=1)
    changed = student.clone()
    changed[range(3), range(3), 1] += 10
    assert torch.equal(in_batch_margin_error(changed, teacher), in_batch_margin_error(student, teacher))


def test_scores_of_a_batch() -> None:
    anchors, texts = draw(3, 4), draw(3, 2, 4, seed=1)
    for similarity, of in (("dot", torch.dot), ("cosine", lambda x, y: torch.cosine_similarity(x, y, dim=0))):
        found = in_batch_scores(anchors, texts, similarity)
        for i, j, k in ((0, 0, 0), (2, 0, 1), (0, 2, 1), (1, 2, 0)):
            torch.testing.assert_close(found[i, j, k], of(anchors[i], texts[j, k]))


def test_asks_for_what_its_terms_read(dims: Callable[..., Dims]) -> None:
    def asked(**settings: Any) -> tuple[int, bool, bool, int]:
        needs = DualSupervision(**settings).needs(dims())
        return needs.candidates, needs.teacher_scores, needs.teacher_final, needs.teacher_candidates

    assert asked() == (2, True, True, 2)
    assert asked(num_negatives=3, pair_weight=0.0) == (4, False, True, 4)
    assert asked(in_batch_weight=0.0) == (2, True, False, 0)
    assert [DualSupervision(in_batch_weight=weight).negatives_per_step(8) for weight in (0.75, 0.0)] == [15, 1]
    assert [bool(DualSupervision(in_batch_weight=weight).coupled) for weight in (0.75, 0.0)] == [True, False]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"pair_weight": 0.0, "in_batch_weight": 0.0}, "nothing would be trained"),
        ({"in_batch_weight": -1.0}, "in_batch_weight must not be negative"),
        ({"num_negatives": 0}, "num_negatives must be positive"),
        ({"teacher_scale": 0.0}, "teacher_scale must be positive"),
        ({"similarity": "l2"}, "similarity must be one of dot, cosine"),
    ],
)
def test_invalid_values_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        DualSupervision(**settings)


def test_a_single_row_has_no_other_rows(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = DualSupervision()
    with pytest.raises(ValueError, match="larger batch size or set in_batch_weight to 0"):
        method.loss(fake(method, dims(), batch_size=1), NONE, 0.0)
