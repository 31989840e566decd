"""RankCSE as a whole: its lists, its temperatures, equal scores of the teacher."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distilbench.conformance.fakes import make_dims
from distilbench_methods.base import Dims, Signals
from distilbench_methods.functional import info_nce
from distilbench_methods.rankcse import Lists, RankCSE, list_mle


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(method: RankCSE, signals: Signals, dims: Dims) -> dict[str, Tensor]:
    return method.loss(signals, method.build_aux(dims), 0.0)


def test_list_mle_as_written() -> None:
    student, teacher = draw(3, 5), draw(3, 5, seed=1)
    expected = []
    for row in range(3):
        order = sorted(range(5), key=lambda column: -float(teacher[row, column]))
        scores = student[row, order] / 0.5
        expected.append(torch.stack([scores[k:].logsumexp(0) - scores[k] for k in range(5)]).sum())
    torch.testing.assert_close(list_mle(student, teacher, 0.5), torch.stack(expected).mean())


def test_equal_scores_keep_the_order_of_the_batch() -> None:
    student, ties = draw(2, 40), torch.zeros(2, 40, dtype=torch.float64)
    falling = -torch.arange(40, dtype=torch.float64).expand(2, 40)
    assert torch.equal(list_mle(student, ties, 0.5), list_mle(student, falling, 0.5))


def test_contrast_is_simcse_at_its_temperature(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    signals = fake(RankCSE(), dims())
    terms = loss(RankCSE(), signals, dims())
    assert list(terms) == ["contrastive", "consistency", "rank"]
    assert torch.equal(terms["contrastive"], info_nce(signals.student_BS, signals.second_view_BS, 0.05))


@pytest.mark.parametrize("lists", ["across", "within"])
def test_list_net_as_written(lists: Lists, dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = RankCSE(consistency_weight=0, temperature=0.5, teacher_temperature=0.2, lists=lists)
    signals, rows = fake(method, dims()), []
    ranked = signals.second_view_BS if lists == "across" else signals.student_BS
    teacher = signals.teacher_final_BD
    for x, y, temperature in ((signals.student_BS, ranked, 0.5), (teacher, teacher, 0.2)):
        cosines = torch.cosine_similarity(x[:, None], y[None], dim=-1).masked_fill(torch.eye(5).bool(), -torch.inf)
        rows.append((cosines / temperature).softmax(-1))
    expected = -torch.xlogy(rows[1], rows[0].clamp_min(1e-300)).sum(-1).mean()
    torch.testing.assert_close(loss(method, signals, dims())["rank"], expected)


def test_list_mle_by_hand() -> None:
    """Three sentences in two views; the teacher prefers the last of each row, of two."""
    signals = Signals(
        index_B=torch.arange(3),
        mask_BT=torch.ones(3, 1),
        student_BS=torch.tensor([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)], dtype=torch.float64),
        second_view_BS=torch.tensor([(0.0, 1.0), (1.0, 0.0), (0.0, -1.0)], dtype=torch.float64),
        teacher_final_BD=torch.tensor([(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)], dtype=torch.float64),
    )
    method = RankCSE(contrastive_weight=0, consistency_weight=0, form="listmle", temperature=1.0)
    found = method.loss(signals, method.build_aux(make_dims()), 0.0)["rank"]
    # First view against second, in the teacher's order: (0, 1), (-1, 1), and of a tie (0, -1); each row adds
    # log(e^a + e^b) - a.
    rows = [(0, 1), (-1, 1), (0, -1)]
    expected = sum(math.log(math.exp(a) + math.exp(b)) - a for a, b in rows) / 3
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_one_view_is_enough_to_rank_within_it(dims: Callable[..., Dims]) -> None:
    for lists, views in (("across", 2), ("within", 1)):
        alone = RankCSE(contrastive_weight=0.0, consistency_weight=0.0, lists=lists)  # type: ignore[arg-type]
        assert alone.needs(dims()).student_views == views
    assert RankCSE(rank_weight=0, consistency_weight=0, lists="within").needs(dims()).student_views == 2
    with pytest.raises(ValueError, match="lists must be one of across, within, got 'both'"):
        RankCSE(lists="both")  # type: ignore[arg-type]


@pytest.mark.parametrize(("form", "matters"), [("listnet", True), ("listmle", False)])
def test_the_teachers_temperature_reaches_list_net_alone(
    form: str, matters: bool, dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    sharp, flat = (RankCSE(form=form, teacher_temperature=tau) for tau in (0.1, 1.0))  # type: ignore[arg-type]
    signals = fake(sharp, dims())
    found = [loss(method, signals, dims())["rank"] for method in (sharp, flat)]
    assert torch.equal(*found) != matters


def test_equal_views_agree_and_both_views_learn(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = RankCSE(contrastive_weight=0, rank_weight=0, temperature=0.5)
    signals = fake(method, dims())
    gradients = torch.autograd.grad(
        loss(method, signals, dims())["consistency"], (signals.student_BS, signals.second_view_BS)
    )
    assert all(gradient.any() for gradient in gradients)
    same = Signals(**{**signals.__dict__, "second_view_BS": signals.student_BS})
    assert float(loss(method, same, dims())["consistency"].detach()) == pytest.approx(0, abs=1e-12)
