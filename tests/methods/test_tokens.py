"""Methods that compare token by token: TinyBERT, and MiniLMv2's relations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from distilbench_methods.base import Dims, Signals, UnsuitableError
from distilbench_methods.minilm import MiniLM, relation_divergence
from distilbench_methods.tinybert import TinyBERT, score_error, token_error

Precision = tuple[torch.dtype, float]


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def test_token_error_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    student = torch.tensor([[[1, 1], [0, 0], [9, 9]], [[2, 0], [9, 9], [9, 9]]], dtype=dtype)
    teacher = torch.zeros(2, 3, 2, dtype=dtype)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    # sentence 1: (1 + 0) / 2 tokens; sentence 2: (4 + 0) / 2 dimensions
    assert float(token_error(student, teacher, mask)) == pytest.approx((0.5 + 2) / 2, abs=tolerance)


def test_score_error_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    student = torch.tensor([[[[1.0, 2.0, 7.0], [3.0, 4.0, 7.0], [7.0, 7.0, 7.0]]]], dtype=dtype)
    found = score_error(student, torch.zeros_like(student), torch.tensor([[1, 1, 0]]))
    assert float(found) == pytest.approx((1 + 4 + 9 + 16) / 4, abs=tolerance)


def test_relations_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    a, b = (torch.tensor([rows], dtype=dtype) for rows in ([[1, 0], [0, 1]], [[2, 0], [0, 0]]))
    mask = torch.ones(1, 2)
    assert float(relation_divergence(b, a, mask, 1)) == pytest.approx(0.2079663701, abs=tolerance)
    assert float(relation_divergence(a, a, mask, 1)) == pytest.approx(0, abs=tolerance)
    assert float(relation_divergence(a, b, mask, 1)) != pytest.approx(0.2079663701, abs=1e-3)


def test_relations_need_neither_equal_widths_nor_heads_and_ignore_rotations_within_a_head() -> None:
    student, teacher = draw(2, 4, 6), draw(2, 4, 8, seed=1)
    value = relation_divergence(student, teacher, MASK, 2)
    rotation = torch.block_diag(*(torch.linalg.qr(draw(3, 3, seed=seed)).Q for seed in (5, 6)))
    torch.testing.assert_close(relation_divergence(student @ rotation, teacher, MASK, 2), value)
    across = torch.linalg.qr(draw(6, 6, seed=9)).Q
    assert not torch.allclose(relation_divergence(student @ across, teacher, MASK, 2), value)


@pytest.mark.parametrize(
    "loss",
    [
        lambda s, t: token_error(s, t, MASK),
        lambda s, t: score_error(s[:, None], t[:, None], MASK),
        lambda s, t: relation_divergence(s, t, MASK, 2),
    ],
)
def test_gradients_and_padding(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    student, teacher = draw(2, 4, 4, grad=True), draw(2, 4, 4, seed=1)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), (student,))
    changed = student.detach().clone()
    changed[0, 3] += 5
    changed[1, 2:] -= 3
    torch.testing.assert_close(token_error(changed, teacher, MASK), token_error(student, teacher, MASK))
    torch.testing.assert_close(
        relation_divergence(changed, teacher, MASK, 2), relation_divergence(student, teacher, MASK, 2)
    )


def test_a_copy_of_the_teacher_costs_nothing(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    same = dims((24, 2, 2), (24, 2, 2), 24)
    for method, pairs in (
        (TinyBERT(), ("hidden", "attention_scores")),
        (MiniLM(), ("qkv",)),
    ):
        signals, aux = fake(method, same), method.build_aux(same).double()
        if "fit" in aux:
            # TinyBERT's map stands between equal widths too.
            aux["fit"].load_state_dict({"weight": torch.eye(24), "bias": torch.zeros(24)})
        copied: dict[str, Any] = {f"student_{name}": getattr(signals, f"teacher_{name}") for name in pairs}
        fields = {**signals.__dict__, **copied, "student_BS": signals.teacher_final_BD}
        terms = method.loss(Signals(**fields), aux, 0.0)
        for name, value in terms.items():
            assert float(value.detach()) == pytest.approx(0, abs=1e-12), name


def test_tinybert_sums_layers_and_shares_one_map(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = TinyBERT(hidden_weight=2.0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    terms = method.loss(signals, aux, 0.0)
    layers = [
        token_error(aux["fit"](signals.student_hidden[place]), signals.teacher_hidden[place], signals.mask_BT)
        for place in (1, 2)
    ]
    torch.testing.assert_close(terms["hidden"], 2 * (layers[0] + layers[1]))
    first = token_error(aux["fit"](signals.student_hidden[0]), signals.teacher_hidden[0], signals.mask_BT)
    torch.testing.assert_close(terms["embedding"], first)
    needs = method.needs(dims())
    assert (needs.teacher_hidden, needs.student_hidden) == ((0, 2, 4), (0, 1, 2))


def test_minilm_takes_one_layer(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = MiniLM(relation_heads=2, key_weight=0.0, value_weight=3.0, teacher_layer=3)
    needs = method.needs(dims())
    assert (needs.teacher_qkv, needs.student_qkv) == ((3,), (2,))
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    terms = method.loss(signals, aux, 0.0)
    assert set(terms) == {"query", "value", "final"}
    expected = relation_divergence(signals.student_qkv[0][:, 2], signals.teacher_qkv[0][:, 2], signals.mask_BT, 2)
    torch.testing.assert_close(terms["value"], 3 * expected)


@pytest.mark.parametrize(
    ("method", "sizes", "complaint"),
    [
        (TinyBERT(), {"student": (6, 5, 2)}, "the student has 5 layers and the teacher 4"),
        (TinyBERT(), {"student": (6, 2, 3)}, "3 heads and the teacher 2"),
        (TinyBERT(), {"shared_tokens": False}, "different tokens"),
        (MiniLM(relation_heads=4), {}, "do not divide the widths 6 and 10; 2 would"),
        (MiniLM(relation_heads=2, teacher_layer=5), {}, "the teacher has 4 layers"),
        (MiniLM(relation_heads=2), {"shared_tokens": False}, "different tokens"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    method: TinyBERT | MiniLM, sizes: dict[str, Any], complaint: str, dims: Callable[..., Dims]
) -> None:
    with pytest.raises(UnsuitableError, match=complaint):
        method.needs(dims(**sizes))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: TinyBERT(embedding_weight=0, hidden_weight=0, attention_weight=0, final_weight=0), "all 0"),
        (lambda: TinyBERT(hidden_weight=-1), "hidden_weight"),
        (lambda: MiniLM(query_weight=0, key_weight=0, value_weight=0, final_weight=0), "all 0"),
        (lambda: MiniLM(relation_heads=0), "relation_heads"),
        (lambda: MiniLM(teacher_layer=0), "teacher_layer"),
    ],
)
def test_invalid_values_are_refused(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()
