"""Contrastive distillation over layers: values by hand, bank bookkeeping, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor

from distilbench_methods.banks import bank_info_nce, moved_rows, new_bank, summarise
from distilbench_methods.base import Dims, Signals, State
from distilbench_methods.codir import CoDIR
from distilbench_methods.functional import cosine_distance, info_nce, unit

Precision = tuple[torch.dtype, float]
CROSS = [[1, 0], [0, 1], [-1, 0], [0, -1]]


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def bank(aux: torch.nn.ModuleDict, side: str = "teacher") -> Tensor:
    return cast(State, aux["banks"])[side]


def test_info_nce_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    student, cross = torch.tensor([[1, 0]], dtype=dtype), torch.tensor(CROSS, dtype=dtype)
    found = bank_info_nce(student, cross[:1], cross, torch.tensor([[1, 2]]), 0.5)
    assert float(found) == pytest.approx(0.1429316285, abs=tolerance)


def test_fresh_positive_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    student, cross = torch.tensor([[1, 0]], dtype=dtype), torch.tensor(CROSS, dtype=dtype)
    teacher = torch.tensor([[0.6, 0.8]], dtype=dtype)
    expected = math.log(math.exp(1.2) + 1 + math.exp(-2)) - 1.2
    found = bank_info_nce(student, teacher, cross, torch.tensor([[1, 2]]), 0.5)
    assert float(found) == pytest.approx(expected, abs=tolerance)


def test_equal_scores_cost_log_of_the_candidates(precision: Precision) -> None:
    dtype, tolerance = precision
    index = torch.randint(0, 9, (3, 100), generator=torch.Generator().manual_seed(0))
    student, bank_NM = torch.ones(3, 2, dtype=dtype), torch.zeros(9, 2, dtype=dtype)
    found = bank_info_nce(student, torch.zeros(3, 2, dtype=dtype), bank_NM, index, 0.07)
    assert float(found) == pytest.approx(4.6151205168, abs=tolerance)


def test_random_start_is_above_log_of_the_candidates() -> None:
    torch.manual_seed(0)
    bank_NM, student, teacher = new_bank(2000, 128).double(), unit(draw(256, 128)), unit(draw(256, 128, seed=1))
    index = torch.randint(0, 2000, (256, 100))
    spread = 1 / (0.07 * math.sqrt(128))
    found = float(bank_info_nce(student, teacher, bank_NM, index, 0.07))
    assert found == pytest.approx(math.log(101) + spread**2 / 2, rel=0.05)


def test_negatives_from_the_batch_make_it_plain_info_nce() -> None:
    student, teacher = unit(draw(4, 3)), unit(draw(4, 3, seed=1))
    others = torch.tensor([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
    found = bank_info_nce(student, teacher, teacher, others, 0.2)
    torch.testing.assert_close(found, info_nce(student, teacher, 0.2))


def test_order_of_negatives_does_not_matter() -> None:
    student, teacher, bank_NM = draw(2, 3), draw(2, 3, seed=1), draw(6, 3, seed=2)
    one, other = torch.tensor([[1, 2, 2], [3, 4, 5]]), torch.tensor([[2, 1, 2], [5, 3, 4]])
    expected = bank_info_nce(student, teacher, bank_NM, one, 0.5)
    torch.testing.assert_close(bank_info_nce(student, teacher, bank_NM, other, 0.5), expected)


def test_gradient() -> None:
    index, bank_NM = torch.tensor([[1, 2], [3, 1]]), draw(4, 3, seed=2)
    inputs = (draw(2, 3, grad=True), draw(2, 3, seed=1, grad=True))
    assert torch.autograd.gradcheck(lambda u, v: bank_info_nce(u, v, bank_NM, index, 0.5), inputs)


def test_summary_stacks_layers_and_ignores_scale() -> None:
    head, layers = torch.nn.Linear(6, 4, bias=False).double(), draw(3, 2, 3)
    stacked = torch.cat([layers[:, 0], layers[:, 1]], dim=1)
    found = summarise(layers, head)
    torch.testing.assert_close(found, unit(stacked @ head.weight.T))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(summarise(9 * layers, head), found)


def test_bank_row_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    row = torch.tensor([[1, 0]], dtype=dtype)
    same = moved_rows(row, row, 0.5)
    torch.testing.assert_close(same, row, rtol=0, atol=tolerance)
    found = moved_rows(row, torch.tensor([[0.6, 0.8]], dtype=dtype), 0.5)
    expected = torch.tensor([[0.8944271910, 0.4472135955]], dtype=dtype)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def test_new_bank_has_rows_of_length_about_one() -> None:
    torch.manual_seed(0)
    rows = new_bank(500, 128)
    assert rows.abs().max() <= (3 / 128) ** 0.5
    assert float(rows.norm(dim=1).mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("symmetric", [False, True])
def test_step_moves_the_rows_of_the_batch_and_no_other(
    symmetric: bool, dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    method = CoDIR(symmetric=symmetric)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    sides = ["teacher", "student"] if symmetric else ["teacher"]
    before = {side: bank(aux, side).clone() for side in sides}
    assert len(list(aux.buffers())) == len(sides)
    with torch.no_grad():
        method.after_step(signals, aux, 0.5)
    seen = signals.index_B
    others = torch.tensor([row for row in range(12) if row not in seen.tolist()])
    layers = {"teacher": signals.teacher_layers_BLH, "student": signals.student_layers_BLS}
    for side in sides:
        after = bank(aux, side)
        assert torch.equal(after[others], before[side][others])
        torch.testing.assert_close(after[seen].norm(dim=1), torch.ones(5, dtype=torch.float64))
        fresh = unit(aux[side](layers[side].flatten(1)))
        torch.testing.assert_close(after[seen], unit(before[side][seen] + fresh))
        assert not after.requires_grad


def test_positive_is_fresh_and_negatives_are_from_the_bank(
    dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    method = CoDIR(num_negatives=3)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    expected = method.loss(signals, aux, 0.0)["contrastive"]
    unused = torch.tensor([row for row in range(12) if row not in signals.negative_index_BK.flatten().tolist()])
    bank(aux)[unused] = 7.0
    assert torch.equal(method.loss(signals, aux, 0.0)["contrastive"], expected)
    bank(aux)[signals.negative_index_BK[0, 0]] = 7.0
    assert not torch.isclose(method.loss(signals, aux, 0.0)["contrastive"], expected)


def test_symmetric_form_averages_both_directions(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = CoDIR(symmetric=True, contrastive_weight=3.0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    student = summarise(signals.student_layers_BLS, aux["student"])
    teacher = summarise(signals.teacher_layers_BLH, aux["teacher"])
    index = signals.negative_index_BK
    forward = bank_info_nce(student, teacher, bank(aux), index, 0.07)
    backward = bank_info_nce(teacher, student, bank(aux, "student"), index, 0.07)
    torch.testing.assert_close(method.loss(signals, aux, 0.0)["contrastive"], 3 * (forward + backward) / 2)


def test_final_term_is_a_cosine_distance(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = CoDIR(contrastive_weight=0.0, final_weight=2.0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    assert not list(aux.buffers())
    expected = 2 * cosine_distance(aux["final"](signals.student_BS), signals.teacher_final_BD).mean()
    torch.testing.assert_close(method.loss(signals, aux, 0.0), {"final": expected})
    assert not list(method.build_aux(dims(final=6)).parameters())


def test_every_teacher_layer_counts(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = CoDIR()
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    assert method.needs(dims()).teacher_layers == (1, 2, 3, 4)
    assert method.needs(dims()).student_layers == (1, 2)
    expected = method.loss(signals, aux, 0.0)["contrastive"]
    for layer in range(4):
        signals.teacher_layers_BLH[:, layer] += 1
        assert not torch.isclose(method.loss(signals, aux, 0.0)["contrastive"], expected)
        signals.teacher_layers_BLH[:, layer] -= 1


def test_both_projections_learn(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = CoDIR(final_weight=0.0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    method.loss(signals, aux, 0.0)["contrastive"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in aux.parameters())
    assert signals.student_BS.grad is None


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


def test_the_filter_alone_asks_for_the_teachers_vectors(dims: Callable[..., Dims]) -> None:
    plain, filtered = CoDIR(final_weight=0).needs(dims()), CoDIR(final_weight=0, false_negative_similarity=0.9)
    assert not plain.teacher_final
    assert not plain.teacher_negatives
    assert filtered.needs(dims()).teacher_final
    assert filtered.needs(dims()).teacher_negatives
    without = CoDIR(contrastive_weight=0, false_negative_similarity=0.9).needs(dims())
    assert without.teacher_final
    assert not without.teacher_negatives
    assert not without.negatives


def test_layer_map_and_pooling_reach_the_request(dims: Callable[..., Dims]) -> None:
    deep = dims(teacher=(10, 6, 2))
    assert CoDIR(layer_map="last").needs(deep).teacher_layers == (3, 6)
    assert CoDIR(layer_map="code").needs(deep).teacher_layers == (1, 3, 5)
    assert CoDIR().needs(deep).layer_pooling == "mean"
    assert CoDIR(layer_pooling="cls").needs(deep).layer_pooling == "cls"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"false_negative_similarity": 1.5}, "from -1 to 1"),
        ({"layer_map": "x"}, "all, last, code"),
        ({"layer_pooling": "x"}, "mean, cls"),
        ({"num_negatives": 0}, "num_negatives"),
        ({"temperature": 0.0}, "temperature"),
        ({"shared_width": -1}, "shared_width"),
        ({"bank_momentum": 1.0}, "bank_momentum must be below 1"),
        ({"bank_momentum": -0.1}, "bank_momentum"),
        ({"contrastive_weight": 0.0, "final_weight": 0.0}, "nothing would be trained"),
    ],
)
def test_invalid_values_are_refused(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        CoDIR(**settings)  # type: ignore[arg-type]
