"""Contrast with memory: the two losses over banks, and CKD over a queue."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor

from distilbench_methods.banks import Banks, bank_info_nce, bank_logits, contrastive_side, log_normaliser, new_bank
from distilbench_methods.base import Dims, Signals, State
from distilbench_methods.ckd import CKD, queue_info_nce
from distilbench_methods.functional import info_nce

Precision = tuple[torch.dtype, float]
BANK = [(1, 0), (0, 1), (-1, 0), (0, -1)]


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


@pytest.mark.parametrize(
    ("anchor", "p", "z", "side"),
    [
        ((1.0, 0.0), (0.6501099991, 0.0879828209, 0.0119071800), 11.3658551762, 0.7560965965),
        ((0.6, 0.8), (0.2904114671, 0.4332429990, 0.0263455339), 11.4324580787, 1.6766626335),
    ],
)
def test_one_side_by_hand(
    anchor: tuple[float, ...], p: tuple[float, ...], z: float, side: float, precision: Precision
) -> None:
    dtype, tolerance = precision
    bank, index = torch.tensor(BANK, dtype=dtype), torch.tensor([[0, 1, 2]])
    logits = bank_logits(torch.tensor([anchor], dtype=dtype), bank, index, 0.5)
    found = log_normaliser(logits, 4)
    assert float(found.exp()) == pytest.approx(z, abs=20 * tolerance)
    assert (logits - found).exp()[0].tolist() == pytest.approx(p, abs=tolerance)
    assert float(contrastive_side(logits, found, 4)) == pytest.approx(side, abs=tolerance)


def batch_of_one(dtype: torch.dtype) -> tuple[Banks, Signals, Tensor, Tensor]:
    banks = Banks(4, 2).to(dtype)
    for side in ("student", "teacher"):
        banks[side].copy_(torch.tensor(BANK))
    signals = Signals(
        index_B=torch.tensor([0]),
        mask_BT=torch.ones(1, 1),
        student_BS=torch.zeros(1, 2),
        negative_index_BK=torch.tensor([[1, 2]]),
    )
    return banks, signals, torch.tensor([(1.0, 0.0)], dtype=dtype), torch.tensor([(0.6, 0.8)], dtype=dtype)


def test_both_sides_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    banks, signals, student, teacher = batch_of_one(dtype)
    sides = banks.sides(student, teacher, signals, 0.5)
    assert float(sides.mean()) == pytest.approx(1.2163796150, abs=tolerance)
    assert float(sides.sum()) == pytest.approx(2.4327592299, abs=2 * tolerance)


def test_bank_rows_after_a_step_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    banks, signals, student, teacher = batch_of_one(dtype)
    banks.update(student, teacher, signals, 0.5, 0.5)
    assert banks["student"][0].tolist() == pytest.approx((1, 0), abs=tolerance)
    assert banks["teacher"][0].tolist() == pytest.approx((0.8944271910, 0.4472135955), abs=tolerance)
    assert banks["teacher"][1:].tolist() == [list(row) for row in BANK[1:]]


def test_equal_scores(precision: Precision) -> None:
    dtype, tolerance = precision
    k, n = 100, 10_000
    logits = torch.zeros(1, k + 1, dtype=dtype)
    value = float(contrastive_side(logits, log_normaliser(logits, n), n))
    assert value == pytest.approx(5.6111536, abs=max(1e-7, 20 * tolerance))
    exact = math.log(k + 1) + k * math.log1p(1 / k)
    assert exact == pytest.approx(5.6101536, abs=1e-7)
    assert value == pytest.approx(exact, abs=2e-3)
    anchor, bank = torch.ones(1, 2, dtype=dtype), torch.zeros(5, 2, dtype=dtype)
    equal = bank_info_nce(anchor, 0 * anchor, bank, torch.zeros(1, k, dtype=torch.long), 0.07)
    assert float(equal) == pytest.approx(4.6151205, abs=max(1e-6, tolerance))


def test_a_hot_side_forgets_the_scores(precision: Precision) -> None:
    dtype, tolerance = precision
    k, n = 7, 40
    index = torch.randint(0, n, (3, k + 1), generator=torch.Generator().manual_seed(0))
    logits = bank_logits(draw(3, 4).to(dtype), draw(n, 4, seed=1).to(dtype), index, 1e12)
    found = float(contrastive_side(logits, log_normaliser(logits, n), n))
    constant = torch.zeros(3, k + 1, dtype=dtype)
    expected = float(contrastive_side(constant, torch.tensor(math.log(n), dtype=dtype), n))
    assert found == pytest.approx(expected, abs=10 * tolerance)
    assert found == pytest.approx(math.log(k + 1) + k * math.log1p(1 / k), abs=1e-4)


def test_random_start_is_above_that_of_equal_scores() -> None:
    torch.manual_seed(0)
    bank, anchor = new_bank(2000, 128).double(), torch.nn.functional.normalize(draw(256, 128), dim=-1)
    logits = bank_logits(anchor, bank, torch.randint(0, 2000, (256, 101)), 0.07)
    assert float(contrastive_side(logits, log_normaliser(logits, 2000), 2000)) == pytest.approx(6.5, rel=0.05)


def test_one_side_as_it_is_written() -> None:
    bank, index, n = draw(6, 3), torch.tensor([[0, 1, 2], [3, 4, 5]]), 6
    logits = bank_logits(draw(2, 3, seed=1), bank, index, 0.7)
    p, noise = logits.exp() / (logits.exp().mean() * n), 2 / n
    matched = (p[:, 0] / (p[:, 0] + noise + 1e-7)).log()
    missed = (noise / (p[:, 1:] + noise + 1e-7)).log().sum(-1)
    found = contrastive_side(logits, log_normaliser(logits, n), n)
    torch.testing.assert_close(found, -(matched + missed).mean())


def test_contrast_gradient_with_the_normaliser_frozen() -> None:
    bank, index = draw(6, 3), torch.tensor([[0, 1, 2], [3, 4, 5]])
    log_z = torch.tensor(9.0, dtype=torch.float64).log()

    def side(anchor: Tensor) -> Tensor:
        return contrastive_side(bank_logits(anchor, bank, index, 0.7), log_z, 6)

    assert torch.autograd.gradcheck(side, (draw(2, 3, seed=1, grad=True),), rtol=1e-5, atol=1e-8)
    assert not log_normaliser(bank_logits(draw(2, 3, grad=True), bank, index, 0.7), 6).requires_grad


@pytest.mark.parametrize(("temperature", "num_sentences"), [(0.07, 100_000_000), (0.005, 1000)])
def test_large_texts_and_low_temperatures_keep_their_gradient(temperature: float, num_sentences: int) -> None:
    logits = (draw(4, 3).tanh() / temperature).float().requires_grad_()
    value = contrastive_side(logits, log_normaliser(logits, num_sentences), num_sentences)
    (gradient,) = torch.autograd.grad(value, logits)
    exact = logits.detach().double()
    p, noise = (exact - log_normaliser(exact, num_sentences)).exp(), 2 / num_sentences + 1e-7
    expected = torch.cat([-noise / (p[:, :1] + noise), p[:, 1:] / (p[:, 1:] + noise)], dim=1) / 4
    assert value.isfinite()
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-3, atol=1e-7)
    assert (gradient[:, 0] < 0).any()


@pytest.mark.parametrize("dropped", [[True, True], [True, False]])
def test_dropped_negatives_get_no_gradient(dropped: list[bool]) -> None:
    inputs = (draw(1, 3, grad=True), draw(1, 3, seed=1, grad=True), draw(4, 3, seed=2, grad=True))
    index, mask = torch.tensor([[1, 2]]), torch.tensor([dropped])
    value = bank_info_nce(*inputs, index, 0.5, mask)
    anchor, positive, bank = torch.autograd.grad(value, inputs)
    assert not bank[1].any()
    assert bank[2].any() == anchor.any() == positive.any() == (not all(dropped))
    assert all(gradient.isfinite().all() for gradient in (anchor, positive, bank))


def test_ckd_without_a_queue_is_info_nce(precision: Precision) -> None:
    dtype, tolerance = precision
    student = torch.tensor([(1, 0), (1, 1)], dtype=dtype)
    teacher = torch.tensor([(1, 0), (0, 2)], dtype=dtype)
    empty, nothing = torch.zeros(0, 2, dtype=dtype), torch.zeros(2, 0, dtype=torch.bool)
    for temperature, expected in ((1.0, 0.5032044340), (0.05, 0.3465735913)):
        log_scale = torch.tensor(-math.log(temperature), dtype=dtype)
        found = queue_info_nce(student, teacher, empty, nothing, log_scale)
        assert float(found) == pytest.approx(expected, abs=tolerance)
        assert float(found) == pytest.approx(float(info_nce(student, teacher, temperature)), abs=tolerance)
    queue, open_ = torch.tensor([(-1, 0)], dtype=dtype), torch.zeros(2, 1, dtype=torch.bool)
    found = queue_info_nce(student, teacher, queue, open_, torch.zeros((), dtype=dtype))
    assert float(found) == pytest.approx(0.6077361313, abs=tolerance)


def test_blocked_rows_do_not_count() -> None:
    student, teacher, queue = draw(3, 4), draw(3, 4, seed=1), draw(2, 4, seed=2)
    blocked = torch.tensor([[True, True]] * 3)
    log_scale = torch.tensor(0.5, dtype=torch.float64)
    found = queue_info_nce(student, teacher, queue, blocked, log_scale)
    torch.testing.assert_close(found, info_nce(student, teacher, math.exp(-0.5)))


def test_gradient_of_the_scale() -> None:
    student, teacher, queue = draw(3, 4, grad=True), draw(3, 4, seed=1), draw(2, 4, seed=2)
    blocked = torch.tensor([[False, True]] * 3)
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(queue_info_nce(student, teacher, queue, blocked, a), a)
    cosines = torch.cosine_similarity(student[:, None], torch.cat([teacher, queue[:1]])[None], dim=-1)
    p = (a.exp() * cosines).softmax(-1)
    expected = (a.exp() * ((p * cosines).sum(-1) - cosines.diagonal())).mean()
    torch.testing.assert_close(gradient, expected)
    assert torch.autograd.gradcheck(lambda s, x: queue_info_nce(s, teacher, queue, blocked, x), (student, a))


def test_the_queue_holds_the_last_rows(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = CKD(queue_size=12)
    aux = method.build_aux(dims()).double()
    queue, given = cast(State, aux["queue"]), []
    for step in range(4):
        signals = fake(method, dims(), seed=step)
        given += list(zip(signals.index_B.tolist(), signals.teacher_final_BD.tolist(), strict=True))
        with torch.no_grad():
            method.after_step(signals, aux, 0.0)
        filled = queue["rows"] >= 0
        assert int(filled.sum()) == min(5 * (step + 1), 12)
        held = list(zip(queue["rows"][filled].tolist(), queue["vectors"][filled].tolist(), strict=True))
        assert sorted(held) == sorted(given[-12:])


def test_an_anchors_own_earlier_row_is_no_negative(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    kept, left_out = CKD(queue_size=5, exclude_repeats=False), CKD(queue_size=5)
    aux, signals = kept.build_aux(dims()).double(), fake(kept, dims())
    fresh = left_out.loss(signals, aux, 0.0)["contrastive"]
    with torch.no_grad():
        kept.after_step(signals, aux, 0.0)
    assert kept.loss(signals, aux, 0.0)["contrastive"] > left_out.loss(signals, aux, 0.0)["contrastive"] > fresh


def test_a_queue_is_no_longer_than_the_text(dims: Callable[..., Dims]) -> None:
    aux = CKD(queue_size=99).build_aux(dims())
    assert len(cast(State, aux["queue"])["rows"]) == 12
    assert len(cast(State, CKD(queue_size=0).build_aux(dims())["queue"])["rows"]) == 0


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: CKD(queue_size=-1), "queue_size"),
        (lambda: CKD(initial_log_scale=float("nan")), "initial_log_scale"),
    ],
)
def test_invalid_values_are_refused(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()
