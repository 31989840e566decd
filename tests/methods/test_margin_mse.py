"""Margin-MSE as a whole: scores by dot product and cosine, against the definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from distilbench_methods.base import Dims, Signals, UnsuitableError
from distilbench_methods.dual_supervision import DualSupervision
from distilbench_methods.functional import candidate_scores
from distilbench_methods.margin_mse import MarginMSE, Similarity


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_as_written(similarity: Similarity, dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = MarginMSE(num_negatives=3, similarity=similarity, scale=2.0)
    signals, errors = fake(method, dims()), []
    for anchor, candidates, teacher in zip(
        signals.student_BS, signals.candidates_BKS, signals.teacher_scores_BK, strict=True
    ):
        scores = candidates @ anchor
        if similarity == "cosine":
            scores = scores / (candidates.norm(dim=-1) * anchor.norm())
        errors += [2 * (scores[0] - scores[k]) - (teacher[0] - teacher[k]) for k in (1, 2, 3)]
    (value,) = method.loss(signals, method.build_aux(dims()), 0.0).values()
    torch.testing.assert_close(value, torch.stack(errors).square().mean())


def test_the_teachers_own_scores_cost_nothing(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = MarginMSE()
    signals = fake(method, dims())
    scores = candidate_scores(signals.student_BS, signals.candidates_BKS, "cosine").detach()
    shifted = replace(signals, teacher_scores_BK=scores + torch.arange(5.0)[:, None])
    assert float(method.loss(shifted, method.build_aux(dims()), 0.0)["margin"].detach()) == pytest.approx(0, abs=1e-20)


def test_lengths_matter_to_dot_products_alone(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    for similarity, matters in (("dot", True), ("cosine", False)):
        method = MarginMSE(similarity=similarity)  # type: ignore[arg-type]
        signals = fake(method, dims())
        longer = replace(signals, student_BS=8 * signals.student_BS)
        one, other = (method.loss(batch, method.build_aux(dims()), 0.0)["margin"] for batch in (signals, longer))
        assert torch.isclose(one, other) != matters


def test_asks_for_the_positive_and_its_negatives(dims: Callable[..., Dims]) -> None:
    needs = MarginMSE(num_negatives=4).needs(dims())
    assert (needs.candidates, needs.teacher_scores, needs.teacher_final) == (5, True, False)
    assert MarginMSE().needs(dims()).batch_kind == "triple"
    assert (MarginMSE(num_negatives=4).negatives_per_step(8), MarginMSE().coupled) == (4, "")


def test_scores_beyond_the_reach_of_cosines_are_refused() -> None:
    scores = torch.tensor([[1.0, 0.5, -0.75], [-3.0, 1.0, 0.0]])
    for reaches in (MarginMSE(num_negatives=2, scale=2.0), MarginMSE(num_negatives=2, similarity="dot")):
        reaches.check_scores(scores)
    for small in (MarginMSE(num_negatives=2, scale=1.9), DualSupervision(num_negatives=2)):
        with pytest.raises(UnsuitableError, match="set scale to 2 or more, or similarity to dot"):
            small.check_scores(scores)
    # The cure is rounded up, never down.
    with pytest.raises(UnsuitableError, match=r"set scale to 1\.01 or more"):
        MarginMSE().check_scores(torch.tensor([[2.0001, 0.0]]))
    with pytest.raises(UnsuitableError, match=r"set scale to 500000\.07 or more"):
        MarginMSE().check_scores(torch.tensor([[1000000.125, 0.0]]))


def test_margins_that_cosines_cannot_reach_show_in_the_curve(
    dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    scores = torch.tensor([[1.0, 0.0], [5.0, 0.0], [0.0, 3.0], [2.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
    for method, expected in ((MarginMSE(), 0.4), (MarginMSE(scale=2.0), 0.2), (MarginMSE(scale=2.5), 0.0)):
        signals = replace(fake(method, dims()), teacher_scores_BK=scores)
        found = method.diagnostics(signals, method.build_aux(dims()))["out_of_reach"]
        assert float(found) == pytest.approx(expected)
    dot = MarginMSE(similarity="dot")
    assert dot.diagnostics(replace(fake(dot, dims()), teacher_scores_BK=scores), dot.build_aux(dims())) == {}
