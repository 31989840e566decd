"""Contrast with memory: CRD and the code form of CoDIR over banks, CKD over a queue."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor

from methods.banks import Banks, bank_info_nce, contrastive_side, normaliser, raw_scores
from methods.base import Dims, Signals, State
from methods.ckd import CKD, queue_info_nce
from methods.codir import CoDIR, mapped_layers
from methods.codir_code import CoDIRCode
from methods.crd import CRD
from methods.functional import info_nce

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
    scores = raw_scores(torch.tensor([anchor], dtype=dtype), bank, index, 0.5)
    found = normaliser(scores, 4)
    assert float(found) == pytest.approx(z, abs=20 * tolerance)
    assert (scores / found)[0].tolist() == pytest.approx(p, abs=tolerance)
    assert float(contrastive_side(scores, found, 4)) == pytest.approx(side, abs=tolerance)


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
    assert float(torch.stack(sides).mean()) == pytest.approx(1.2163796150, abs=tolerance)
    assert float(torch.stack(sides).sum()) == pytest.approx(2.4327592299, abs=2 * tolerance)


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
    scores = torch.ones(1, k + 1, dtype=dtype)
    value = float(contrastive_side(scores, torch.tensor(float(n), dtype=dtype), n))
    assert value == pytest.approx(5.6111536, abs=max(1e-6, 20 * tolerance))
    assert value == pytest.approx(math.log(k + 1) + k * math.log1p(1 / k), abs=2e-3)
    anchor, bank = torch.ones(1, 2, dtype=dtype), torch.zeros(5, 2, dtype=dtype)
    equal = bank_info_nce(anchor, 0 * anchor, bank, torch.zeros(1, k, dtype=torch.long), 0.07)
    assert float(equal) == pytest.approx(4.6151205, abs=max(1e-6, tolerance))


def test_contrast_gradient_with_the_normaliser_frozen() -> None:
    bank, index = draw(6, 3), torch.tensor([[0, 1, 2], [3, 4, 5]])
    z = torch.tensor(9.0, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda anchor: contrastive_side(raw_scores(anchor, bank, index, 0.7), z, 6), (draw(2, 3, seed=1, grad=True),)
    )


def test_the_first_normaliser_stays(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = CRD()
    aux = method.build_aux(dims()).double()
    banks = cast(Banks, aux["banks"])
    assert float(banks["student_z"]) == 0
    with torch.no_grad():
        method.after_step(fake(method, dims()), aux, 0.0)
        first = banks["student_z"].clone()
        method.after_step(fake(method, dims(), seed=1), aux, 0.0)
    assert first > 0
    assert torch.equal(banks["student_z"], first)


def test_crd_is_twice_the_code_form_on_one_layer(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    one_layer = dims(student=(6, 1, 2), teacher=(8, 1, 2), final=8)
    crd = CRD(contrastive_weight=1, final_weight=0, num_negatives=7)
    code = CoDIRCode(final_weight=0, num_negatives=7, layer_map="all", layer_pooling="mean")
    aux = crd.build_aux(one_layer).double()
    other = code.build_aux(one_layer).double()
    other.load_state_dict(aux.state_dict())
    signals = fake(code, one_layer)
    same = Signals(
        index_B=signals.index_B,
        mask_BT=signals.mask_BT,
        student_BS=signals.student_layers_BLS[:, 0],
        teacher_final_BD=signals.teacher_layers_BLH[:, 0],
        negative_index_BK=signals.negative_index_BK,
    )
    value = code.loss(signals, other, 0.0)["contrastive"]
    torch.testing.assert_close(crd.loss(same, aux, 0.0)["contrastive"], 2 * value)


def test_only_the_batchs_rows_move_to_unit_length_and_no_gradient_reaches_banks(
    dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    for method in (CRD(num_negatives=5), CoDIRCode(num_negatives=5)):
        aux, signals = method.build_aux(dims()).double(), fake(method, dims())
        banks = cast(Banks, aux["banks"])
        before = banks["teacher"].clone()
        torch.stack(list(method.loss(signals, aux, 0.0).values())).sum().backward()
        assert all(buffer.grad is None for buffer in aux.buffers())
        with torch.no_grad():
            method.after_step(signals, aux, 0.0)
        moved = (banks["teacher"] != before).any(-1)
        assert set(moved.nonzero().flatten().tolist()) == set(signals.index_B.tolist())
        lengths = banks["teacher"][signals.index_B].norm(dim=-1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_the_code_form_never_reads_the_teachers_last_layer(dims: Callable[..., Dims]) -> None:
    assert CoDIRCode().needs(dims(teacher=(10, 12, 2))).teacher_layers == (1, 3, 5, 7, 9, 11)
    assert CoDIRCode().needs(dims()).layer_pooling == "cls"
    assert mapped_layers(2, 6, "last") == (3, 6)
    assert mapped_layers(2, 3, "all") == (1, 2, 3)
    assert CoDIR(layer_map="last").needs(dims(teacher=(10, 6, 2))).teacher_layers == (3, 6)


def test_likely_false_negatives_are_left_out(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = CoDIR(false_negative_similarity=0.3, num_negatives=6, final_weight=0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    cosines = torch.cosine_similarity(signals.teacher_final_BD[:, None], signals.teacher_negatives_BKD, dim=-1)
    assert 0 < int((cosines > 0.3).sum()) < cosines.numel()
    summary = [
        torch.nn.functional.normalize(aux[side](layers.flatten(1)), dim=-1)
        for side, layers in (("student", signals.student_layers_BLS), ("teacher", signals.teacher_layers_BLH))
    ]
    bank = cast(State, aux["banks"])["teacher"]
    rows = []
    for row in range(5):
        kept = signals.negative_index_BK[row][cosines[row] <= 0.3]
        logits = torch.cat([(summary[0][row] @ summary[1][row])[None], bank[kept] @ summary[0][row]]) / 0.07
        rows.append(logits.logsumexp(0) - logits[0])
    torch.testing.assert_close(method.loss(signals, aux, 0.0)["contrastive"], torch.stack(rows).mean())
    none_left = CoDIR(false_negative_similarity=-1.0, num_negatives=6, final_weight=0)
    assert not none_left.loss(signals, aux, 0.0)["contrastive"].any()


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


@pytest.mark.parametrize("kind", [CRD, CoDIRCode])
@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"bank_momentum": 1.0}, "would never change"),
        ({"contrastive_weight": 0.0, "final_weight": 0.0}, "both 0"),
        ({"num_negatives": 0}, "num_negatives"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_invalid_values_are_refused(kind: type, settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        kind(**settings)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: CoDIR(false_negative_similarity=1.5), "from -1 to 1"),
        (lambda: CoDIR(layer_map="x"), "all, last, code"),  # type: ignore[arg-type]
        (lambda: CoDIRCode(layer_pooling="x"), "mean, cls"),  # type: ignore[arg-type]
        (lambda: CKD(queue_size=-1), "queue_size"),
        (lambda: CKD(initial_log_scale=float("nan")), "initial_log_scale"),
    ],
)
def test_other_invalid_values_are_refused(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()
