"""Methods that keep relations within a batch: RKD, SP, similarity distillation, RankCSE."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distilbench_methods.base import Dims, Signals
from distilbench_methods.functional import cosine_similarities, cross_similarities
from distilbench_methods.rankcse import RankCSE, list_mle, ranking_consistency
from distilbench_methods.rkd import RKD, angle_loss, distance_loss
from distilbench_methods.simdist import SimDist, similarity_cross_entropy, similarity_divergence
from distilbench_methods.sp import SP, similarity_loss

Precision = tuple[torch.dtype, float]
Loss = Callable[[Tensor, Tensor], Tensor]

RELATIONAL: dict[str, Loss] = {
    "distance": distance_loss,
    "angle": angle_loss,
    "sp": lambda student, teacher: similarity_loss(student, teacher, normalize=True),
    "simdist": lambda student, teacher: similarity_divergence(
        cosine_similarities(student), cosine_similarities(teacher), 0.2, 0.1
    ),
}


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def rotation(width: int) -> Tensor:
    rotated: Tensor = torch.linalg.qr(draw(width, width, seed=7)).Q
    return rotated


def test_rkd_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    teacher = torch.tensor([(0, 0), (1, 0), (0, 1)], dtype=dtype)
    student = torch.tensor([(0, 0), (2, 0), (0, 1)], dtype=dtype)
    assert float(distance_loss(student, teacher)) == pytest.approx(0.0184844533, abs=tolerance)
    assert float(angle_loss(student, teacher)) == pytest.approx(0.0038012372, abs=tolerance)


def test_rkd_as_written() -> None:
    student, teacher = draw(4, 3), draw(4, 5, seed=1)

    def angle(x: Tensor, i: int, j: int, k: int) -> Tensor:
        zero = torch.zeros((), dtype=x.dtype)
        return zero if i in (j, k) else torch.cosine_similarity(x[j] - x[i], x[k] - x[i], dim=0)

    triples = list(itertools.product(range(4), repeat=3))
    found = [torch.stack([angle(x, *triple) for triple in triples]) for x in (student, teacher)]
    torch.testing.assert_close(angle_loss(student, teacher), torch.nn.functional.smooth_l1_loss(found[0], found[1]))


def test_sp_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    teacher = torch.tensor([(1, 0), (1, 0)], dtype=dtype)
    for normalize in (True, False):
        assert float(similarity_loss(torch.eye(2, dtype=dtype), teacher, normalize)) == pytest.approx(
            0.2928932188, abs=tolerance
        )


@pytest.mark.parametrize("name", RELATIONAL)
def test_the_gradient_is_that_of_the_loss(name: str) -> None:
    teacher = draw(5, 4, seed=1)
    student = draw(5, 3, grad=True)
    assert torch.autograd.gradcheck(lambda x: RELATIONAL[name](x, teacher), (student,))


@pytest.mark.parametrize("name", RELATIONAL)
def test_what_relations_ignore(name: str) -> None:
    loss, student, teacher = RELATIONAL[name], draw(5, 4), draw(5, 6, seed=1)
    value = loss(student, teacher)
    assert value > 1e-6
    torch.testing.assert_close(loss(student @ rotation(4), teacher @ rotation(6)), value)
    order = torch.tensor([2, 0, 4, 1, 3])
    torch.testing.assert_close(loss(student[order], teacher[order]), value)
    torch.testing.assert_close(loss(3 * student, teacher), value)
    if name in ("distance", "angle"):
        torch.testing.assert_close(loss(student + 1, teacher - 2), value)


@pytest.mark.parametrize("name", ["distance", "angle", "sp"])
def test_a_scaled_rotation_of_the_teacher_costs_nothing(name: str) -> None:
    teacher = draw(5, 4)
    assert float(RELATIONAL[name](2 * teacher @ rotation(4), teacher)) == pytest.approx(0, abs=1e-12)


def test_coincident_sentences_have_finite_gradients() -> None:
    student = draw(1, 4).expand(5, 4).clone().requires_grad_()
    for loss in (distance_loss, angle_loss):
        (gradient,) = torch.autograd.grad(loss(student, draw(5, 3, seed=1)), student)
        assert torch.isfinite(gradient).all()


def test_identical_similarities_cost_the_teachers_entropy_or_nothing() -> None:
    similarities = cosine_similarities(draw(5, 4))
    p = (similarities / 0.1).softmax(-1)
    entropy = -(p * p.log()).sum(-1).mean()
    assert float(similarity_divergence(similarities, similarities, 0.1, 0.1)) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(similarity_cross_entropy(similarities, similarities, 0.1, 0.1), entropy)


def test_divergence_is_cross_entropy_less_entropy_with_the_same_gradient() -> None:
    student, teacher = draw(5, 4, grad=True), draw(5, 4, seed=1)
    both = []
    for loss in (similarity_divergence, similarity_cross_entropy):
        value = loss(student, teacher, 0.3, 0.2)
        both.append((value, *torch.autograd.grad(value, student)))
    p = (teacher / 0.2).softmax(-1)
    torch.testing.assert_close(both[1][0] - both[0][0], -(p * p.log()).sum(-1).mean())
    torch.testing.assert_close(both[0][1], both[1][1])


def test_a_constant_in_a_row_changes_nothing() -> None:
    student, teacher, shift = draw(5, 4), draw(5, 4, seed=1), draw(5, 1, seed=2)
    for loss in (similarity_divergence, similarity_cross_entropy):
        torch.testing.assert_close(loss(student + shift, teacher - shift, 0.3, 0.2), loss(student, teacher, 0.3, 0.2))
    torch.testing.assert_close(list_mle(student + shift, teacher, 0.3), list_mle(student, teacher, 0.3))


def test_the_diagonal_never_contributes() -> None:
    x, y = draw(4, 3), draw(4, 3, seed=1)
    found = cross_similarities(x, y)
    full = torch.cosine_similarity(x[:, None], y[None], dim=-1)
    for row in range(4):
        torch.testing.assert_close(found[row], torch.cat([full[row, :row], full[row, row + 1 :]]))


def test_list_mle_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    scores = torch.tensor([[2.0, 1.0, 0.0]], dtype=dtype)
    teacher = torch.tensor([[0.9, 0.5, 0.1]], dtype=dtype)
    assert float(list_mle(scores, teacher, 1.0)) == pytest.approx(0.7208676520, abs=tolerance)
    order = [2, 0, 1]
    assert float(list_mle(scores[:, order], teacher[:, order], 1.0)) == pytest.approx(0.7208676520, abs=tolerance)
    assert list_mle(scores, teacher.flip(-1), 1.0) > 0.73


def test_list_mle_gradient() -> None:
    assert torch.autograd.gradcheck(lambda x: list_mle(x, draw(4, 5, seed=1), 0.5), (draw(4, 5, grad=True),))


def test_consistency_is_a_jensen_shannon_divergence() -> None:
    one, other = draw(4, 3), draw(4, 3, seed=1)
    assert float(ranking_consistency(one, one, 0.5)) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(ranking_consistency(one, other, 0.5), ranking_consistency(other, one, 0.5))
    extremes = torch.tensor([[100.0, 0.0]], dtype=torch.float64)
    assert float(ranking_consistency(extremes, extremes.flip(-1), 1.0)) == pytest.approx(math.log(2), abs=1e-9)
    p, q = (one / 0.5).softmax(-1), (other / 0.5).softmax(-1)
    m = (p + q) / 2
    expected = ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)).mean() / 2
    torch.testing.assert_close(ranking_consistency(one, other, 0.5), expected)
    assert torch.autograd.gradcheck(lambda x: ranking_consistency(x, other, 0.5), (draw(4, 3, grad=True),))


def test_rankcse_sums_its_terms(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = RankCSE(consistency_weight=2.0, form="listmle")
    signals = fake(method, dims())
    terms = method.loss(signals, method.build_aux(dims()), 0.0)
    one = cross_similarities(signals.student_BS, signals.second_view_BS)
    other = cross_similarities(signals.second_view_BS, signals.student_BS)
    torch.testing.assert_close(terms["consistency"], 2 * ranking_consistency(one, other, 0.05))
    lists = (one, cosine_similarities(signals.teacher_final_BD))
    torch.testing.assert_close(terms["rank"], list_mle(*lists, 0.05))


def test_rankcse_takes_one_view_where_two_are_not_needed(dims: Callable[..., Dims]) -> None:
    assert RankCSE().needs(dims()).student_views == 2
    alone = RankCSE(contrastive_weight=0, consistency_weight=0, lists="within")
    assert (alone.needs(dims()).student_views, alone.negatives_per_step(8)) == (1, 0)


@pytest.mark.parametrize("method", [RKD(), SP(), SimDist(), RankCSE()])
def test_one_sentence_has_no_relations(
    method: RKD | SP | SimDist | RankCSE, dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    signals = fake(method, dims(), batch_size=1)
    with pytest.raises(ValueError, match="two or more"):
        method.loss(signals, method.build_aux(dims()), 0.0)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: RKD(distance_weight=0, angle_weight=0), "both 0"),
        (lambda: RKD(angle_weight=-1), "angle_weight"),
        (lambda: SP(similarity_weight=0), "similarity_weight"),
        (lambda: SimDist(similarity_weight=0), "both 0"),
        (lambda: SimDist(student_temperature=0), "student_temperature"),
        (lambda: SimDist(form="other"), "form must be one of kl, listnet"),  # type: ignore[arg-type]
        (lambda: RankCSE(contrastive_weight=0, consistency_weight=0, rank_weight=0), "all 0"),
        (lambda: RankCSE(temperature=0), "temperature"),
        (lambda: RankCSE(form="x"), "listnet, listmle"),  # type: ignore[arg-type]
    ],
)
def test_invalid_values_are_refused(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


def test_single_precision_does_not_take_the_diagonal_for_distances() -> None:
    student, teacher = 10 * draw(5, 6) + 3, draw(5, 8, seed=1)
    wide = float(distance_loss(student, teacher))
    assert float(distance_loss(student.float(), teacher.float())) == pytest.approx(wide, rel=1e-4)
