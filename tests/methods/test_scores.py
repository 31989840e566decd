"""Methods that learn from labelled texts and their scores: Margin-MSE, candidate distributions, supervised contrast."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distilbench_methods.base import Dims, Signals
from distilbench_methods.distill_kl import DistillKL, score_divergence
from distilbench_methods.functional import candidate_scores, hard_negative_info_nce, info_nce
from distilbench_methods.ibkd_supervised import SupervisedIBKD
from distilbench_methods.kernels import hsic
from distilbench_methods.margin_mse import MarginMSE, margin_error
from distilbench_methods.simcse_supervised import SupervisedSimCSE

Precision = tuple[torch.dtype, float]


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def test_divergence_of_scores_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    student, teacher = torch.tensor([[1.0, 0.0]], dtype=dtype), torch.tensor([[0.0, 1.0]], dtype=dtype)
    assert float(score_divergence(student, teacher, 1.0)) == pytest.approx(0.4621171573, abs=tolerance)
    assert float(score_divergence(student, teacher, 2.0)) == pytest.approx(0.4898373248, abs=tolerance)
    assert float(score_divergence(teacher, teacher, 2.0)) == pytest.approx(0, abs=tolerance)


def test_one_hot_distributions_have_no_gradient() -> None:
    student = torch.tensor([[2.0, -1.0], [5.0, 4.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(score_divergence(student, 3 * student.detach(), 1e-3), student)
    assert not gradient.any()


def test_margin_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    student = torch.tensor([[3.0, 1.0, 0.0], [1.0, 1.0, 1.0]], dtype=dtype)
    teacher = torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 1.0]], dtype=dtype)
    # margins 2, 3, 0, 0 against 1, 1, 2, 1
    assert float(margin_error(student, teacher)) == pytest.approx((1 + 4 + 4 + 1) / 4, abs=tolerance)


@pytest.mark.parametrize("loss", [margin_error, lambda s, t: score_divergence(s, t, 0.5)])
def test_scores_may_be_shifted_and_have_true_gradients(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    student, teacher, shift = draw(4, 3, grad=True), draw(4, 3, seed=1), draw(4, 1, seed=2)
    torch.testing.assert_close(loss(student + shift, teacher - 3 * shift), loss(student, teacher))
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), (student,))


def test_candidate_scores() -> None:
    anchor, candidates = draw(3, 4), draw(3, 2, 4, seed=1)
    dots = candidate_scores(anchor, candidates, "dot")
    torch.testing.assert_close(dots[1, 0], anchor[1] @ candidates[1, 0])
    cosines = candidate_scores(anchor, candidates, "cosine")
    torch.testing.assert_close(cosines, torch.cosine_similarity(anchor[:, None], candidates, dim=-1))


def test_scaled_scores_enter_the_loss(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    for method, expected in (
        (MarginMSE(num_negatives=2, scale=3.0), margin_error),
        (DistillKL(num_candidates=3, scale=3.0, temperature=0.5), lambda s, t: score_divergence(s, t, 0.5)),
    ):
        signals = fake(method, dims())
        scores = 3 * candidate_scores(signals.student_BS, signals.candidates_BKS, "cosine")
        (value,) = method.loss(signals, method.build_aux(dims()), 0.0).values()
        torch.testing.assert_close(value, expected(scores, signals.teacher_scores_BK))


def test_hard_negatives_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    eye = torch.eye(2, dtype=dtype)
    assert float(hard_negative_info_nce(eye, eye, -eye, 1.0)) == pytest.approx(0.6265233750, abs=tolerance)
    assert float(hard_negative_info_nce(eye, eye, -eye, 1.0, 2.0)) == pytest.approx(0.6963567488, abs=tolerance)
    assert float(hard_negative_info_nce(eye, eye, -eye, 1.0)) == pytest.approx(
        math.log(math.e + 1 + 1 / math.e + 1) - 1, abs=tolerance
    )


def test_a_vanishing_factor_removes_the_own_hard_negative_only() -> None:
    anchor, positive, negative = draw(3, 4), draw(3, 4, seed=1), draw(3, 4, seed=2)
    found = hard_negative_info_nce(anchor, positive, negative, 0.5, 1e-300)
    candidates = torch.cat([positive, negative])
    logits = torch.cosine_similarity(anchor[:, None], candidates[None], dim=-1) / 0.5
    for row in range(3):
        logits[row, 3 + row] = -torch.inf
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logits, torch.arange(3)))


def test_without_hard_negatives_it_is_info_nce() -> None:
    anchor, positive = draw(3, 4), draw(3, 4, seed=1)
    assert torch.equal(hard_negative_info_nce(anchor, positive, None, 0.5), info_nce(anchor, positive, 0.5))


def test_orthogonal_negatives_at_a_low_temperature() -> None:
    eye = torch.eye(8, dtype=torch.float64)
    expected = math.log1p(7 * math.exp(-20))
    assert float(hard_negative_info_nce(eye, eye, None, 0.05)) == pytest.approx(expected, rel=1e-6)


def test_hard_negative_gradient() -> None:
    fixed = (draw(3, 4, seed=1), draw(3, 4, seed=2))
    assert torch.autograd.gradcheck(lambda x: hard_negative_info_nce(x, *fixed, 0.5, 2.0), (draw(3, 4, grad=True),))
    anchor = draw(3, 4)
    assert torch.autograd.gradcheck(
        lambda x: hard_negative_info_nce(anchor, fixed[0], x, 0.5, 2.0), (draw(3, 4, seed=2, grad=True),)
    )


def test_supervised_ibkd_forgets_over_all_texts(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = SupervisedIBKD(hsic_weight=2.0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    terms = method.loss(signals, aux, 0.0)
    below = torch.cat([signals.student_layers_BLS[:, 0], *signals.candidate_layers_BKLS[:, :, 0].unbind(1)])
    shipped = torch.cat([signals.student_BS, *signals.candidates_BKS.unbind(1)])
    torch.testing.assert_close(terms["hsic"], 2 * hsic(below, shipped, 0.1))
    anchor, *others = (aux["projection"](x) for x in (signals.student_BS, *signals.candidates_BKS.unbind(1)))
    expected = hard_negative_info_nce(anchor, others[0], others[1], 0.05)
    torch.testing.assert_close(terms["contrastive"], expected)
    assert method.needs(dims()).student_layers == (1,)
    assert method.exported_head(aux) is None


def test_pairs_need_no_hard_negative(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    for method in (SupervisedIBKD(hard_negatives=False), SupervisedSimCSE(hard_negatives=False)):
        assert method.needs(dims()).candidates == 1
        assert method.negatives_per_step(8) == 7
        terms = method.loss(fake(method, dims()), method.build_aux(dims()).double(), 0.0)
        assert all(torch.isfinite(value) for value in terms.values())


def test_the_head_of_supervised_simcse_ships_where_asked(dims: Callable[..., Dims]) -> None:
    for head, ships in (("none", False), ("dropped", False), ("shipped", True)):
        method = SupervisedSimCSE(head=head)  # type: ignore[arg-type]
        aux = method.build_aux(dims())
        assert (method.exported_head(aux) is not None) == ships
        assert bool(list(aux.parameters())) == (head != "none")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: MarginMSE(num_negatives=0), "num_negatives"),
        (lambda: MarginMSE(similarity="x"), "dot, cosine"),  # type: ignore[arg-type]
        (lambda: DistillKL(num_candidates=1), "num_candidates"),
        (lambda: DistillKL(temperature=0), "temperature"),
        (lambda: SupervisedSimCSE(hard_negative_alpha=0), "hard_negative_alpha"),
        (lambda: SupervisedSimCSE(head="x"), "dropped, shipped, none"),  # type: ignore[arg-type]
        (lambda: SupervisedIBKD(gamma=0.0), "gamma"),
        (lambda: SupervisedIBKD(kernel="x"), "rbf, imq, linear"),  # type: ignore[arg-type]
        (lambda: SupervisedIBKD(projected_width=0), "projected_width"),
    ],
)
def test_invalid_values_are_refused(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()
