"""TinyBERT by hand: each term of a small sentence, padding, invariances, what each term asks of the models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distilbench_methods.base import Dims, Signals
from distilbench_methods.tinybert import TinyBERT, score_error, token_error

Precision = tuple[torch.dtype, float]

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def linear(weight: list[list[float]], bias: list[float], dtype: torch.dtype) -> nn.Linear:
    made = nn.Linear(len(weight[0]), len(weight)).to(dtype)
    with torch.no_grad():
        made.weight.copy_(torch.tensor(weight))
        made.bias.copy_(torch.tensor(bias))
    return made


def example(dtype: torch.dtype) -> tuple[Signals, nn.ModuleDict]:
    """One sentence of two tokens and a padded one; one student layer of width 2, teacher states of width 3."""

    def given(*values: Any) -> Tensor:
        return torch.tensor([values], dtype=dtype)

    signals = Signals(
        index_B=torch.zeros(1, dtype=torch.int64),
        mask_BT=torch.tensor([[1, 1, 0]]),
        student_BS=given(1, 0),
        teacher_final_BD=given(1, 1),
        student_hidden=(given([1, 1], [0, 2], [9, 9]), given([1, 2], [0, 1], [9, 9])),
        teacher_hidden=(given([0, 0, 0], [0, 0, 0], [5, 5, 5]), given([1, 0, 0], [0, 0, 0], [5, 5, 5])),
        student_attention_scores=(given([[1, 0, 8], [0, 2, 8], [8, 8, 8]]),),
        teacher_attention_scores=(given([[0, 0, -9], [1, 0, -9], [-9, -9, -9]]),),
    )
    aux = nn.ModuleDict(
        {
            "fit": linear([[2, 0], [0, 1], [0, 0]], [0, 0, 1], dtype),
            "final": nn.Identity(),
        }
    )
    return signals, aux


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Tokens become (2, 1, 1) and (0, 2, 1), against zeros.
        ("embedding", (6 / 3 + 5 / 3) / 2),
        # Tokens become (2, 2, 1) and (0, 1, 1), against (1, 0, 0) and zeros.
        ("hidden", (6 / 3 + 2 / 3) / 2),
        # Differences of the four real pairs: 1, 0, -1, 2.
        ("attention", 6 / 4),
        ("final", 0.2928932188),
    ],
)
def test_terms_by_hand(name: str, expected: float, precision: Precision) -> None:
    dtype, tolerance = precision
    signals, aux = example(dtype)
    found = {weight: TinyBERT(**{f"{name}_weight": weight}).loss(signals, aux, 0.0) for weight in (1.0, 2.5)}
    assert list(found[1.0]) == ["embedding", "hidden", "attention", "final"]
    for weight, terms in found.items():
        assert float(terms[name].detach()) == pytest.approx(weight * expected, abs=weight * tolerance)


def test_heads_are_averaged_and_sentences_count_equally(precision: Precision) -> None:
    dtype, tolerance = precision
    student = torch.tensor([[[[1, 1], [1, 1]], [[3, 3], [3, 3]]], [[[2, 7], [7, 7]], [[4, 7], [7, 7]]]], dtype=dtype)
    found = score_error(student, torch.zeros_like(student), torch.tensor([[1, 1], [1, 0]]))
    # First sentence: four pairs of (1 + 9) / 2; second: one pair of (4 + 16) / 2.
    assert float(found) == pytest.approx((5 + 10) / 2, abs=tolerance)


def test_long_sentences_count_no_more_than_short_ones(precision: Precision) -> None:
    dtype, tolerance = precision
    student = torch.tensor([[[1, 3], [0, 2], [4, 0]], [[6, 0], [9, 9], [9, 9]]], dtype=dtype)
    found = token_error(student, torch.zeros_like(student), torch.tensor([[1, 1, 1], [1, 0, 0]]))
    # Tokens of 5, 2 and 8 in the first sentence, one of 18 in the second; 8.25 if tokens counted equally.
    assert float(found) == pytest.approx((5 + 18) / 2, abs=tolerance)


def test_scores_of_padding_are_left_out_however_they_are_masked() -> None:
    student, teacher = draw(2, 3, 4, 4, grad=True), draw(2, 3, 4, 4, seed=1)
    value = score_error(student, teacher, MASK)
    (gradient,) = torch.autograd.grad(value, student)
    padded = (MASK[:, None, :, None] * MASK[:, None, None, :] == 0).expand_as(student)
    assert not gradient[padded].any()
    assert gradient[~padded].all()
    masked = student.masked_fill(padded, -1e4)
    torch.testing.assert_close(score_error(masked, teacher, MASK), value, rtol=0, atol=0)


def test_longer_padding_changes_nothing() -> None:
    student, teacher, longer = draw(2, 4, 5), draw(2, 4, 5, seed=1), nn.functional.pad(MASK, (0, 2))
    grown = nn.functional.pad(student, (0, 0, 0, 2), value=3), nn.functional.pad(teacher, (0, 0, 0, 2), value=-3)
    torch.testing.assert_close(token_error(*grown, longer), token_error(student, teacher, MASK))
    one, other = draw(2, 3, 4, 4), draw(2, 3, 4, 4, seed=1)
    wider = nn.functional.pad(one, (0, 2, 0, 2), value=3), nn.functional.pad(other, (0, 2, 0, 2), value=-3)
    torch.testing.assert_close(score_error(*wider, longer), score_error(one, other, MASK))


def test_a_common_rotation_of_the_states_changes_nothing() -> None:
    student, teacher, rotation = draw(2, 4, 5), draw(2, 4, 5, seed=1), torch.linalg.qr(draw(5, 5, seed=2)).Q
    value = token_error(student, teacher, MASK)
    torch.testing.assert_close(token_error(student @ rotation, teacher @ rotation, MASK), value)
    assert not torch.isclose(token_error(student @ rotation, teacher, MASK), value)


def test_the_order_of_tokens_heads_and_sentences_does_not_matter() -> None:
    tokens, heads, rows = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0]), torch.tensor([1, 0])
    student, teacher = draw(2, 4, 5), draw(2, 4, 5, seed=1)
    moved = student[rows][:, tokens], teacher[rows][:, tokens]
    mask = MASK[rows][:, tokens]
    torch.testing.assert_close(token_error(*moved, mask), token_error(student, teacher, MASK))
    pair = draw(2, 3, 4, 4), draw(2, 3, 4, 4, seed=1)
    one, other = (scores[rows][:, heads][:, :, tokens][..., tokens] for scores in pair)
    torch.testing.assert_close(score_error(one, other, mask), score_error(*pair, MASK))
    assert not torch.isclose(score_error(pair[0][:, heads], pair[1], MASK), score_error(*pair, MASK))


def test_gradients_of_states_and_map() -> None:
    teacher = draw(2, 4, 3, seed=1)

    def value(states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return token_error(nn.functional.linear(states, weight, bias), teacher, MASK)

    leaves = (draw(2, 4, 2, grad=True), draw(3, 2, seed=2, grad=True), draw(3, seed=3, grad=True))
    assert torch.autograd.gradcheck(value, leaves, rtol=1e-5)
    scores = draw(2, 2, 4, 4, grad=True)
    assert torch.autograd.gradcheck(lambda x: score_error(x, draw(2, 2, 4, 4, seed=1), MASK), (scores,), rtol=1e-5)


@pytest.mark.parametrize("width", [6, 10])
def test_one_map_for_all_layers_and_the_embeddings_even_at_equal_widths(width: int, dims: Callable[..., Dims]) -> None:
    for layers in (1, 3, 4):
        aux = TinyBERT().build_aux(dims((width, layers, 2), final=width))
        shapes = {name: tuple(value.shape) for name, value in aux.named_parameters()}
        assert shapes == {"fit.weight": (10, width), "fit.bias": (10,)}
    for weights in ({"embedding_weight": 0.0}, {"hidden_weight": 0.0}):
        assert "fit" in TinyBERT(**weights).build_aux(dims())
    assert "fit" not in TinyBERT(embedding_weight=0.0, hidden_weight=0.0).build_aux(dims())
    assert TinyBERT().exported_head(aux) is None


def test_the_shared_map_learns_from_the_embeddings_and_from_every_layer(
    dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    method = TinyBERT(attention_weight=0.0, final_weight=0.0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    terms = method.loss(signals, aux, 0.0)
    states = zip(signals.student_hidden, signals.teacher_hidden, strict=True)
    errors = [token_error(aux["fit"](student), teacher, signals.mask_BT) for student, teacher in states]
    torch.testing.assert_close(terms["embedding"], errors[0])
    torch.testing.assert_close(terms["hidden"], errors[1] + errors[2])


def test_the_shipped_width_may_differ_from_the_hidden_one(
    dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    models, method = dims(student_final=5), TinyBERT()
    aux = method.build_aux(models).double()
    assert [aux[name].in_features for name in ("fit", "final")] == [6, 5]
    assert all(torch.isfinite(term) for term in method.loss(fake(method, models), aux, 0.0).values())


def test_layers_are_matched_evenly(dims: Callable[..., Dims]) -> None:
    needs = TinyBERT().needs(dims((6, 4, 2), (10, 12, 2)))
    assert needs.student_attention_scores == (1, 2, 3, 4)
    assert needs.teacher_attention_scores == (3, 6, 9, 12)
    assert needs.teacher_hidden == (0, 3, 6, 9, 12)


def test_a_term_that_is_off_asks_for_nothing(dims: Callable[..., Dims]) -> None:
    needs = TinyBERT(hidden_weight=0.0, final_weight=0.0).needs(dims())
    assert (needs.student_hidden, needs.teacher_hidden, needs.teacher_final) == ((0,), (0,), False)
    assert TinyBERT(embedding_weight=0.0).needs(dims()).student_hidden == (1, 2)
    # Heads matter to the attention term alone, tokens to all but the final one.
    assert TinyBERT(attention_weight=0.0).needs(dims(student=(6, 2, 3))).student_attention_scores == ()
    alone = TinyBERT(embedding_weight=0.0, hidden_weight=0.0, attention_weight=0.0)
    assert not alone.needs(dims(student=(6, 2, 3), shared_tokens=False)).teacher_online
