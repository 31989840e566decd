"""Methods that regress the teacher's vector behind a head or on principal components: HPD, Jasper, variants of MSE."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn

import distilbench_methods
from distilbench_methods.base import Dims, Signals, State, UnsuitableError
from distilbench_methods.functional import principal_components, unit
from distilbench_methods.hpd import HPD, projected_error, projected_target
from distilbench_methods.jasper import Jasper, pair_similarities, ranking_hinge, similarity_error, spread_rows
from distilbench_methods.mse import MSE, mean_cosine_distance

Precision = tuple[torch.dtype, float]
STUDENT, TEACHER = [(1, 0), (0, 1), (1, 1)], [(1, 0), (1, 1), (0, 1)]


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def test_principal_components_of_known_data() -> None:
    axes = torch.linalg.qr(draw(4, 4, seed=3)).Q.T
    spread = draw(500, 4) * torch.tensor([5.0, 3.0, 1.0, 0.1], dtype=torch.float64)
    found = principal_components(spread @ axes + 7, 2)
    torch.testing.assert_close((found @ axes.T).abs(), torch.eye(2, 4, dtype=torch.float64), atol=0.1, rtol=0)
    torch.testing.assert_close(found @ found.T, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(principal_components((spread @ axes).flip(0), 2), found, atol=1e-6, rtol=1e-6)


def test_all_components_keep_distances() -> None:
    x = draw(20, 5)
    reduced = x @ principal_components(x, 5).T
    torch.testing.assert_close(torch.cdist(reduced, reduced), torch.cdist(x, x))


def test_components_that_are_not_centred_shift_every_target_alike() -> None:
    x = draw(20, 5)
    components = principal_components(x, 3)
    shift = x @ components.T - (x - x.mean(0)) @ components.T
    torch.testing.assert_close(shift, shift[:1].expand_as(shift))


def test_hpd_targets_lie_in_the_unit_ball() -> None:
    teacher = 5 * draw(30, 6)
    components = principal_components(unit(teacher), 3)
    lengths = projected_target(teacher, components).square().sum(-1)
    assert (lengths <= 1 + 1e-12).all()
    full = projected_target(teacher, principal_components(unit(teacher), 6))
    torch.testing.assert_close(full.square().sum(-1), torch.ones(30, dtype=torch.float64))
    torch.testing.assert_close(full @ full.T, unit(teacher) @ unit(teacher).T)


def test_hpd_with_a_silent_head(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = HPD(width=4)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    method.fit(aux, draw(40, 8))
    for parameter in aux.parameters():
        nn.init.zeros_(parameter)
    target = projected_target(signals.teacher_final_BD, cast(State, aux["pca"])["components"])
    torch.testing.assert_close(method.loss(signals, aux, 0.0)["final"], target.square().sum(-1).mean() / 4)


def test_hpd_ships_its_head(dims: Callable[..., Dims]) -> None:
    aux = HPD(width=4).build_aux(dims())
    head = HPD(width=4).exported_head(aux)
    assert head is aux["head"]
    shipped = head(1000 * torch.randn(9, 6))
    assert shipped.shape == (9, 4)
    assert shipped.abs().max() <= 1
    with pytest.raises(UnsuitableError, match="width 9 is more than their 8"):
        HPD(width=9).needs(dims())


def test_hpd_gradient() -> None:
    assert torch.autograd.gradcheck(
        lambda x: projected_error(torch.tanh(x), draw(3, 4, seed=1)), (draw(3, 4, grad=True),)
    )


def test_mse_on_principal_components(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = MSE(projection="teacher-pca", metric="cosine")
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    teacher = draw(40, 8, seed=5)
    method.fit(aux, teacher)
    expected = signals.teacher_final_BD @ principal_components(teacher, 6).T
    found = method.loss(signals, aux, 0.0)["final"]
    torch.testing.assert_close(found, mean_cosine_distance(signals.student_BS, expected))
    assert not list(aux.parameters())
    with pytest.raises(UnsuitableError, match="cannot widen"):
        method.needs(dims(student=(12, 2, 2)))


def test_leaf_ships_a_linear_head(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    name, settings = distilbench_methods.VARIANTS["leaf"]
    published = distilbench_methods.load(name)(**settings)
    raw = MSE(metric="l2", projection="shipped", normalize=False)
    for method in (published, raw):
        signals, aux = fake(method, dims()), method.build_aux(dims()).double()
        head = method.exported_head(aux)
        assert isinstance(head, nn.Linear)
        out_BD, teacher_BD = head(signals.student_BS), signals.teacher_final_BD
        if method is published:
            expected = sum((out_BD[i] / out_BD[i].norm() - teacher_BD[i]).square().sum() for i in range(5)) / 5
        else:
            expected = (out_BD - teacher_BD).norm(dim=-1).mean()
        torch.testing.assert_close(method.loss(signals, aux, 0.0)["final"], expected)


def test_jasper_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    student, teacher = torch.tensor(STUDENT, dtype=dtype), torch.tensor(TEACHER, dtype=dtype)
    values = (
        float(mean_cosine_distance(student, teacher)),
        float(similarity_error(student, teacher)),
        float(ranking_hinge(student, teacher, 0.015)),
    )
    assert values == pytest.approx((0.1952621459, 0.2222222222, 0.2457022604), abs=tolerance)
    assert 10 * values[0] + 200 * values[1] + 20 * values[2] == pytest.approx(51.3111111111, abs=300 * tolerance)
    same = (similarity_error(teacher, teacher), ranking_hinge(teacher, teacher, 0.015))
    assert tuple(map(float, same)) == pytest.approx((0, 0.005), abs=tolerance)


def test_ranking_as_written() -> None:
    student, teacher = draw(5, 4), draw(5, 3, seed=1)
    s, t = pair_similarities(student), pair_similarities(teacher)
    terms = []
    for p, q in itertools.combinations(range(len(s)), 2):
        sign = 1 if t[q] < t[p] else -1
        terms.append(max(0.0, float(sign * (s[q] - s[p]) + 0.2)))
    assert float(ranking_hinge(student, teacher, 0.2)) == pytest.approx(sum(terms) / len(terms))


@pytest.mark.parametrize("loss", [similarity_error, lambda s, t: ranking_hinge(s, t, 0.2)])
def test_jasper_gradients(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert torch.autograd.gradcheck(lambda x: loss(x, draw(5, 3, seed=1)), (draw(5, 4, grad=True),))


def test_jasper_averages_over_widths_and_caps_the_ranking(
    dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    method = Jasper(widths=(3,), ranking_sentences=4)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    terms, student = method.loss(signals, aux, 0.0), aux["head"](signals.student_BS)
    errors = [similarity_error(part, signals.teacher_final_BD) for part in (student, student[:, :3])]
    torch.testing.assert_close(terms["similarity"], 200 * (errors[0] + errors[1]) / 2)
    chosen = spread_rows(signals.index_B, 4)
    cut, target = (student[chosen], student[chosen][:, :3]), signals.teacher_final_BD[chosen]
    hinges = [ranking_hinge(part, target, 0.015) for part in cut]
    torch.testing.assert_close(terms["ranking"], 20 * (hinges[0] + hinges[1]) / 2)
    assert method.exported_head(aux) is aux["head"]


def test_jasper_ranks_every_sentence_sooner_or_later() -> None:
    generator = torch.Generator().manual_seed(0)
    ranked = torch.zeros(3200)
    for _ in range(20):
        for index_B in torch.randperm(len(ranked), generator=generator).split(64):
            ranked[index_B[spread_rows(index_B, 32)]] += 1
    assert ranked.min() >= 2
    assert ranked.max() <= 18
    assert ranked.std() == pytest.approx(math.sqrt(20 / 4), rel=0.1)


def test_jasper_needs_three_sentences_to_rank(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    signals = fake(Jasper(), dims(), batch_size=2)
    with pytest.raises(ValueError, match="3 sentences or more, got 2"):
        Jasper().loss(signals, Jasper().build_aux(dims()).double(), 0.0)
    Jasper(ranking_weight=0).loss(signals, Jasper().build_aux(dims()).double(), 0.0)
    with pytest.raises(UnsuitableError, match="the head has 8 outputs"):
        Jasper(widths=(8,)).needs(dims())


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: HPD(width=0), "width"),
        (lambda: HPD(fit_rows=0), "fit_rows"),
        (lambda: MSE(projection="x"), "student, teacher-pca, shipped"),  # type: ignore[arg-type]
        (lambda: Jasper(cosine_weight=0, similarity_weight=0, ranking_weight=0), "all 0"),
        (lambda: Jasper(ranking_sentences=2), "ranking_sentences"),
        (lambda: Jasper(widths=(0,)), "widths"),
        (lambda: Jasper(margin=-1), "margin"),
    ],
)
def test_invalid_values_are_refused(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()
