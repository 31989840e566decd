"""Distillation of candidate distributions as a whole: scores, temperature and its factor, against the definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from distilbench_methods.base import Dims, Signals
from distilbench_methods.distill_kl import DistillKL, Similarity, score_divergence

Precision = tuple[torch.dtype, float]


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.4621171573), (2.0, 0.4898373248)])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_whole_loss_by_hand(
    similarity: Similarity, temperature: float, expected: float, dims: Callable[..., Dims], precision: Precision
) -> None:
    dtype, tolerance = precision
    method = DistillKL(temperature=temperature, similarity=similarity)
    signals = Signals(
        index_B=torch.tensor([0]),
        mask_BT=torch.ones(1, 1),
        student_BS=torch.tensor([[1, 0]], dtype=dtype),
        candidates_BKS=torch.eye(2, dtype=dtype)[None],
        teacher_scores_BK=torch.tensor([[0, 1]], dtype=dtype),
    )
    (value,) = method.loss(signals, method.build_aux(dims()), 0.0).values()
    assert float(value) == pytest.approx(expected, abs=tolerance)


def test_as_written(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = DistillKL(num_candidates=4, temperature=0.5, scale=3.0)
    signals, rows = fake(method, dims()), []
    for anchor, candidates, teacher in zip(
        signals.student_BS, signals.candidates_BKS, signals.teacher_scores_BK, strict=True
    ):
        scores = 3 * torch.cosine_similarity(anchor[None], candidates, dim=-1)
        p, q = (teacher / 0.5).softmax(0), (scores / 0.5).softmax(0)
        rows.append((p * (p / q).log()).sum())
    (value,) = method.loss(signals, method.build_aux(dims()), 0.0).values()
    torch.testing.assert_close(value, 0.25 * torch.stack(rows).mean())


def test_each_side_may_have_its_own_temperature(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = DistillKL(num_candidates=3, temperature=0.5, teacher_temperature=4.0)
    signals = fake(method, dims())
    student = torch.cosine_similarity(signals.student_BS[:, None], signals.candidates_BKS, dim=-1) / 0.5
    expected = torch.nn.functional.kl_div(
        student.log_softmax(-1), (signals.teacher_scores_BK / 4).softmax(-1), reduction="batchmean"
    )
    (value,) = method.loss(signals, method.build_aux(dims()), 0.0).values()
    torch.testing.assert_close(value, 0.25 * expected)
    with pytest.raises(ValueError, match="teacher_temperature must be positive"):
        DistillKL(teacher_temperature=0.0)


def test_a_one_hot_teacher_shows_in_the_curve(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    # Scores like a cross-encoder's: ten apart.
    scores = 10 * torch.tensor([[1.0, 0.0]]).double().expand(5, 2)
    for settings, low, high in (({}, 0.999, 1.0), ({"teacher_temperature": 10.0}, 0.7, 0.75)):
        method = DistillKL(**settings)  # type: ignore[arg-type]
        signals = replace(fake(method, dims()), teacher_scores_BK=scores)
        found = float(method.diagnostics(signals, method.build_aux(dims()))["teacher_certainty"])
        assert low <= found <= high


def test_divergence_is_cross_entropy_less_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    p = (teacher / 0.7).softmax(-1)
    cross_entropy = torch.nn.functional.cross_entropy(student / 0.7, p)
    entropy = -(p * p.log()).sum(-1).mean()
    torch.testing.assert_close(score_divergence(student, teacher, 0.7), 0.49 * (cross_entropy - entropy))


def test_a_constant_in_the_teachers_scores_changes_nothing(
    dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    method = DistillKL(temperature=0.5)
    signals = fake(method, dims())
    shifted = replace(signals, teacher_scores_BK=signals.teacher_scores_BK + 100 * torch.arange(5.0)[:, None])
    found = [method.loss(batch, method.build_aux(dims()), 0.0)["divergence"] for batch in (signals, shifted)]
    torch.testing.assert_close(*found)


def test_asks_for_its_candidates(dims: Callable[..., Dims]) -> None:
    needs = DistillKL(num_candidates=4).needs(dims())
    assert (needs.candidates, needs.teacher_scores, needs.batch_kind) == (4, True, "listwise")
    assert (DistillKL(num_candidates=4).negatives_per_step(8), DistillKL().coupled) == (3, "")
