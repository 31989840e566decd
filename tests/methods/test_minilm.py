"""MiniLMv2 by hand: relation rows, heads, padding, what it does not see, and the term that is not the authors'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from distilbench_methods.base import Dims, Signals, UnsuitableError
from distilbench_methods.minilm import MiniLM, log_relations, relation_divergence

Precision = tuple[torch.dtype, float]

A = ((1.0, 0.0), (0.0, 1.0))
B = ((2.0, 0.0), (0.0, 0.0))
BOTH = torch.ones(1, 2)


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def sentence(*rows: tuple[float, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([rows], dtype=dtype)


def orthogonal(size: int, seed: int) -> Tensor:
    found: Tensor = torch.linalg.qr(draw(size, size, seed=seed)).Q
    return found


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (A, [[0.6697615493, 0.3302384507], [0.3302384507, 0.6697615493]]),
        (B, [[0.9441927808, 0.0558072192], [0.5, 0.5]]),
    ],
)
def test_relation_rows_by_hand(
    states: tuple[tuple[float, ...], ...], expected: list[list[float]], precision: Precision
) -> None:
    dtype, tolerance = precision
    found = log_relations(sentence(*states, dtype=dtype), BOTH, 1).exp()[0, 0]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=dtype), rtol=0, atol=tolerance)


def test_the_teacher_comes_first(precision: Precision) -> None:
    dtype, tolerance = precision
    a, b = sentence(*A, dtype=dtype), sentence(*B, dtype=dtype)
    assert float(relation_divergence(b, a, BOTH, 1)) == pytest.approx(0.2079663701, abs=tolerance)
    assert float(relation_divergence(a, b, BOTH, 1)) == pytest.approx(0.1431316784, abs=tolerance)


def test_heads_are_cut_side_by_side_and_averaged(precision: Precision) -> None:
    dtype, tolerance = precision
    teacher = sentence((1, 0, 2, 0), (0, 1, 0, 0), dtype=dtype)
    student = sentence((2, 0, 1, 0), (0, 0, 0, 1), dtype=dtype)
    found = relation_divergence(student, teacher, BOTH, 2)
    assert float(found) == pytest.approx((0.2079663701 + 0.1431316784) / 2, abs=tolerance)
    # As one head both have the same scalar products.
    assert float(relation_divergence(student, teacher, BOTH, 1)) == pytest.approx(0, abs=tolerance)


def test_padding_is_neither_key_nor_query_and_sentences_count_equally(precision: Precision) -> None:
    dtype, tolerance = precision
    teacher = sentence(*A, (9, 9), dtype=dtype).repeat(2, 1, 1)
    student = sentence(*B, (5, -7), dtype=dtype).repeat(2, 1, 1)
    found = relation_divergence(student, teacher, torch.tensor([[1, 1, 0], [1, 0, 0]]), 1)
    # A single token relates to nothing but itself on both sides.
    assert float(found) == pytest.approx(0.2079663701 / 2, abs=tolerance)


def test_it_is_torchs_divergence_where_nothing_is_padded() -> None:
    student, teacher = draw(2, 4, 6), draw(2, 4, 8, seed=1)
    logs = [
        (x @ x.transpose(-1, -2) / x.shape[-1] ** 0.5).log_softmax(-1)
        for x in (x.unflatten(-1, (2, -1)).transpose(1, 2) for x in (student, teacher))
    ]
    expected = nn.functional.kl_div(logs[0], logs[1], reduction="none", log_target=True).sum(-1).mean()
    torch.testing.assert_close(relation_divergence(student, teacher, torch.ones(2, 4), 2), expected)


def test_rotations_within_a_head_change_nothing_on_either_side() -> None:
    student, teacher, mask = draw(2, 4, 6), draw(2, 4, 8, seed=1), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    value = relation_divergence(student, teacher, mask, 2)
    for seed in (3, 5):
        turned = (
            student @ torch.block_diag(orthogonal(3, seed), orthogonal(3, seed + 1)),
            teacher @ torch.block_diag(orthogonal(4, seed), orthogonal(4, seed + 1)),
        )
        torch.testing.assert_close(relation_divergence(*turned, mask, 2), value)
    swapped = student.roll(3, dims=-1), teacher.roll(4, dims=-1)
    torch.testing.assert_close(relation_divergence(*swapped, mask, 2), value)


def test_the_order_of_tokens_and_of_sentences_does_not_matter() -> None:
    student, teacher = draw(3, 4, 6), draw(3, 4, 8, seed=1)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    value = relation_divergence(student, teacher, mask, 2)
    tokens, rows = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])
    torch.testing.assert_close(relation_divergence(student[:, tokens], teacher[:, tokens], mask[:, tokens], 2), value)
    torch.testing.assert_close(relation_divergence(student[rows], teacher[rows], mask[rows], 2), value)
    assert not torch.isclose(relation_divergence(student[:, tokens], teacher, mask, 2), value)


def test_gradient_is_the_slope_and_padded_tokens_get_none() -> None:
    student, teacher, mask = draw(2, 4, 6, grad=True), draw(2, 4, 8, seed=1), torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert torch.autograd.gradcheck(lambda x: relation_divergence(x, teacher, mask, 2), (student,), rtol=1e-5)
    (gradient,) = torch.autograd.grad(relation_divergence(student, teacher, mask, 2), student)
    assert gradient[0, :3].any(dim=-1).all()
    assert not gradient[mask == 0].any()
    # A lone token relates to itself alone, whatever its state.
    torch.testing.assert_close(gradient[1, 0], torch.zeros_like(gradient[1, 0]))


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_no_state_is_too_short_or_too_long(scale: float) -> None:
    student = (scale * draw(2, 4, 6)).float().requires_grad_()
    value = relation_divergence(student, (scale * draw(2, 4, 8, seed=1)).float(), torch.ones(2, 4), 2)
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert bool(value > 0) == (scale > 0)


@pytest.mark.parametrize(("part", "place"), [("query", 0), ("key", 1), ("value", 2)])
def test_each_part_has_its_place_and_weight(
    part: str, place: int, dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    method = MiniLM(relation_heads=2, **{f"{part}_weight": 3.0})  # type: ignore[arg-type]
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    terms = method.loss(signals, aux, 0.0)
    assert list(terms) == ["query", "key", "value", "final"]
    (student,), (teacher,) = signals.student_qkv, signals.teacher_qkv
    expected = relation_divergence(student[:, place], teacher[:, place], signals.mask_BT, 2)
    torch.testing.assert_close(terms[part], 3 * expected)


def test_only_the_added_term_sees_the_shipped_vector(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    original, ours = MiniLM(relation_heads=2, final_weight=0.0), MiniLM(relation_heads=2, final_weight=2.0)
    assert list(original.loss(fake(original, dims()), original.build_aux(dims()), 0.0)) == ["query", "key", "value"]
    assert not original.needs(dims()).teacher_final
    assert not original.build_aux(dims())
    signals, aux = fake(ours, dims()), ours.build_aux(dims()).double()
    terms = ours.loss(signals, aux, 0.0)
    cosine = torch.cosine_similarity(aux["final"](signals.student_BS), signals.teacher_final_BD)
    torch.testing.assert_close(terms["final"], 2 * (1 - cosine).mean())
    assert ours.exported_head(aux) is None


def test_the_final_term_alone_fits_any_models(dims: Callable[..., Dims]) -> None:
    needs = MiniLM(query_weight=0.0, key_weight=0.0, value_weight=0.0).needs(dims(shared_tokens=False))
    assert needs.teacher_final
    assert not needs.teacher_online
    assert needs.student_qkv == ()


def test_the_last_layers_unless_told_otherwise(dims: Callable[..., Dims]) -> None:
    needs = MiniLM(relation_heads=2).needs(dims((6, 3, 2), (10, 7, 5)))
    assert (needs.teacher_qkv, needs.student_qkv) == ((7,), (3,))
    assert MiniLM(relation_heads=2, teacher_layer=5).needs(dims((6, 3, 2), (10, 7, 5))).teacher_qkv == (5,)


@pytest.mark.parametrize(
    ("student", "teacher", "asked", "named"), [(384, 768, 36, 64), (192, 384, 128, 64), (100, 768, 12, 4), (5, 7, 2, 1)]
)
def test_a_number_of_heads_that_fits_is_named(
    student: int, teacher: int, asked: int, named: int, dims: Callable[..., Dims]
) -> None:
    models = dims((student, 2, 1), (teacher, 4, 1))
    with pytest.raises(
        UnsuitableError, match=f"{asked} relation_heads do not .* {student} and {teacher}; {named} would"
    ):
        MiniLM(relation_heads=asked).needs(models)
    assert MiniLM(relation_heads=named).needs(models).student_qkv == (2,)


def test_the_teacher_gets_no_gradient(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = MiniLM(relation_heads=2)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    torch.stack(list(method.loss(signals, aux, 0.0).values())).sum().backward()
    assert all(tensor.grad is None for tensor in (*signals.teacher_qkv, signals.teacher_final_BD))
    grown = replace(signals, teacher_qkv=tuple(2 * states for states in signals.teacher_qkv))
    before, after = method.loss(signals, aux, 0.0), method.loss(grown, aux, 0.0)
    assert not torch.isclose(after["query"], before["query"])
