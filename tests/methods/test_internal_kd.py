"""Distillation of internal representations: values by hand, layer matching, unsuitable models, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distilbench_methods.base import Dims, Signals, UnsuitableError
from distilbench_methods.internal_kd import (
    InternalKD,
    Procedure,
    Stages,
    active_layers,
    attention_divergence,
    hidden_distances,
    next_stage,
    stage_by_budget,
)

Precision = tuple[torch.dtype, float]


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def one_map(*rows: tuple[float, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(rows, dtype=dtype)[None, None]


TEACHER = ((0.7, 0.3, 0.0), (0.4, 0.6, 0.0), (0.5, 0.5, 0.0))
STUDENT = ((0.5, 0.5, 0.0), (0.5, 0.5, 0.0), (0.9, 0.1, 0.0))


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ((1, 1, 0), 0.0512091960),
        ((1, 1, 1), 0.2044146719),
        ((1, 0, 0), 0.0822828785),
        ((0, 1, 0), 0.0201355136),
        ((0, 0, 1), 0.5108256238),
    ],
)
def test_divergence_by_hand(mask: tuple[int, ...], expected: float, precision: Precision) -> None:
    dtype, tolerance = precision
    found = attention_divergence(one_map(*STUDENT, dtype=dtype), one_map(*TEACHER, dtype=dtype), torch.tensor([mask]))
    assert float(found) == pytest.approx(expected, abs=tolerance)


def test_divergence_is_teacher_first() -> None:
    flat, sharp, mask = one_map((0.5, 0.5)), one_map((0.9, 0.1)), torch.ones(1, 1)
    assert float(attention_divergence(sharp, flat, mask)) == pytest.approx(0.5108256238, abs=1e-9)
    assert float(attention_divergence(flat, sharp, mask)) == pytest.approx(0.3680642072, abs=1e-9)


def test_divergence_is_cross_entropy_less_entropy() -> None:
    student, teacher = draw(2, 3, 4, 4).softmax(-1), draw(2, 3, 4, 4, seed=1).softmax(-1)
    cross_entropy, entropy = -(teacher * student.log()).sum(-1), -(teacher * teacher.log()).sum(-1)
    found = attention_divergence(student, teacher, torch.ones(2, 4))
    torch.testing.assert_close(found, (cross_entropy - entropy).mean())
    built_in = nn.functional.kl_div(student.log(), teacher, reduction="none").sum(-1).mean()
    torch.testing.assert_close(found, built_in)


def test_sentences_count_equally_whatever_their_length() -> None:
    student, teacher = one_map(*STUDENT).repeat(2, 1, 1, 1), one_map(*TEACHER).repeat(2, 1, 1, 1)
    found = attention_divergence(student, teacher, torch.tensor([[1, 1, 0], [1, 0, 0]]))
    assert float(found) == pytest.approx((0.0512091960 + 0.0822828785) / 2, abs=1e-9)


def test_zero_probabilities_stay_finite() -> None:
    student, teacher = one_map((1.0, 0.0)).requires_grad_(), one_map((0.0, 1.0))
    value = attention_divergence(student, teacher, torch.ones(1, 1))
    assert float(value.detach()) == pytest.approx(-math.log(1e-12), abs=1e-9)
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(gradient).all()
    assert float(attention_divergence(teacher, teacher, torch.ones(1, 1))) == 0


def test_copied_heads_leave_the_mean_and_double_the_sum() -> None:
    student, teacher, mask = draw(2, 2, 3, 3).softmax(-1), draw(2, 2, 3, 3, seed=1).softmax(-1), torch.ones(2, 3)
    twice = student.repeat(1, 2, 1, 1), teacher.repeat(1, 2, 1, 1)
    mean = attention_divergence(student, teacher, mask)
    torch.testing.assert_close(attention_divergence(*twice, mask), mean)
    torch.testing.assert_close(attention_divergence(student, teacher, mask, "sum"), 2 * mean)
    torch.testing.assert_close(attention_divergence(*twice, mask, "sum"), 4 * mean)


def test_divergence_gradient() -> None:
    teacher, mask = draw(2, 2, 3, 3, seed=1).softmax(-1), torch.tensor([[1, 1, 1], [1, 1, 0]])

    def value(scores: Tensor) -> Tensor:
        return attention_divergence(scores.softmax(-1), teacher, mask)

    assert torch.autograd.gradcheck(value, (draw(2, 2, 3, 3, grad=True),))


def test_hidden_distance_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    student = torch.tensor([[[1, 0], [1, 0]], [[1, 0], [1, 1]]], dtype=dtype)
    teacher = torch.tensor([[[1, 1], [5, 0]], [[1, 1], [2, 2]]], dtype=dtype)
    assert float(hidden_distances(student, teacher).sum()) == pytest.approx(0.2928932188, abs=tolerance)
    assert float(hidden_distances(3 * student, teacher).sum()) == pytest.approx(0.2928932188, abs=tolerance)


def test_hidden_distance_gradient() -> None:
    teacher = draw(2, 3, 4, seed=1)
    assert torch.autograd.gradcheck(lambda student: hidden_distances(student, teacher), (draw(2, 3, 4, grad=True),))


def test_a_copy_of_the_teacher_costs_nothing(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    same, method = dims((6, 3, 2), (6, 3, 2), 6), InternalKD()
    signals, aux = fake(method, same), method.build_aux(same)
    assert not list(aux.parameters())
    copy = replace(
        signals,
        teacher_final_BD=signals.student_BS.detach(),
        teacher_layers_BLH=signals.student_layers_BLS.detach(),
        teacher_attention=tuple(probabilities.detach() for probabilities in signals.student_attention),
    )
    terms = method.loss(copy, aux, 0.0)
    assert all(float(term.detach()) == pytest.approx(0, abs=1e-12) for term in terms.values())
    scores = draw(1, 1, 3, 3, grad=True)
    value = attention_divergence(scores.softmax(-1), scores.detach().softmax(-1), torch.ones(1, 3))
    gradients = torch.autograd.grad(terms["hidden"] + terms["final"], (signals.student_layers_BLS, signals.student_BS))
    for gradient in (*gradients, *torch.autograd.grad(value, scores)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def test_terms_sum_over_layers(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = InternalKD(attention_weight=2.0, hidden_weight=3.0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    terms = method.loss(signals, aux, 0.0)
    assert list(terms) == ["attention", "hidden", "final"]
    attention = sum(
        attention_divergence(student, teacher, signals.mask_BT)
        for student, teacher in zip(signals.student_attention, signals.teacher_attention, strict=True)
    )
    torch.testing.assert_close(terms["attention"], 2 * torch.as_tensor(attention))
    hidden = torch.zeros((), dtype=torch.float64)
    for layer, head in enumerate(aux["hidden"].children()):
        student = head(signals.student_layers_BLS[:, layer])
        hidden += (1 - torch.cosine_similarity(student, signals.teacher_layers_BLH[:, layer])).mean()
    torch.testing.assert_close(terms["hidden"], 3 * hidden)


def test_layers_are_matched_evenly(dims: Callable[..., Dims]) -> None:
    needs = InternalKD().needs(dims((6, 6, 2), (10, 12, 2)))
    assert needs.teacher_attention == needs.teacher_layers == (2, 4, 6, 8, 10, 12)
    assert needs.student_attention == needs.student_layers == (1, 2, 3, 4, 5, 6)
    uneven = InternalKD().needs(dims((6, 5, 2), (10, 12, 2)))
    assert uneven.teacher_layers == (2, 5, 7, 10, 12)


def test_projections_where_widths_differ(dims: Callable[..., Dims]) -> None:
    aux = InternalKD().build_aux(dims())
    shapes = [tuple(parameter.shape) for parameter in aux.parameters()]
    assert shapes == [(10, 6), (10,), (10, 6), (10,), (8, 6), (8,)]
    assert InternalKD().exported_head(aux) is None


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ({"student": (6, 2, 3)}, "the student has 3 heads and the teacher 2"),
        ({"shared_tokens": False}, "cut sentences into different tokens"),
    ],
)
def test_attention_needs_equal_heads_and_tokens(
    sizes: dict[str, Any], complaint: str, dims: Callable[..., Dims]
) -> None:
    with pytest.raises(UnsuitableError, match=complaint):
        InternalKD().needs(dims(**sizes))
    needs = InternalKD(attention_weight=0.0).needs(dims(**sizes))
    assert needs.student_attention == needs.teacher_attention == ()
    assert needs.teacher_layers == (2, 4)


def test_student_must_not_be_deeper(dims: Callable[..., Dims]) -> None:
    with pytest.raises(UnsuitableError, match="the student has 5 layers and the teacher 4"):
        InternalKD().needs(dims(student=(6, 5, 2)))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"attention_weight": -1.0}, "attention_weight"),
        ({"head_reduction": "max"}, "head_reduction must be one of mean, sum"),
        ({"attention_weight": 0.0, "hidden_weight": 0.0, "final_weight": 0.0}, "nothing would be trained"),
        ({"heads": "sum"}, "heads must be one of match, average"),
        ({"state": "max"}, "state must be one of mean, cls"),
        ({"procedure": "all"}, "procedure must be one of id, pid, sid"),
        ({"epochs_per_layer": 0.0}, "epochs_per_layer must be positive"),
        ({"cosine_threshold": -0.1}, "cosine_threshold must not be negative"),
        ({"window": 0}, "window must be positive"),
        ({"procedure": "pid", "hidden_weight": 0.0}, "procedure pid advances by the hidden term"),
        ({"procedure": "sid", "final_weight": 0.0}, "ends with the final one"),
    ],
)
def test_invalid_values_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        InternalKD(**settings)


@pytest.mark.parametrize(
    ("procedure", "expected"),
    [
        ("id", [[1, 1, 1]] * 4),
        ("pid", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]),
        ("sid", [[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]]),
    ],
)
def test_active_layers_of_every_stage(procedure: Procedure, expected: list[list[int]]) -> None:
    assert [active_layers(torch.tensor(stage), 3, procedure).tolist() for stage in (1, 2, 3, 4)] == expected


def test_the_advance_rule() -> None:
    stage = torch.tensor(2)
    for distance, epochs, expected in ((0.2, 0.5, 2), (0.04, 0.5, 3), (0.2, 1.0, 3), (0.04, 3.0, 3)):
        found = next_stage(stage, torch.tensor(distance), torch.tensor(epochs), 0.05, 1.0)
        assert int(found) == expected
    assert int(next_stage(stage, torch.tensor(0.25), torch.tensor(0.5), 0.25, 1.0)) == 2


def test_stages_share_the_budget() -> None:
    assert [stage_by_budget(share, 2) for share in (0.0, 0.33, 0.34, 0.66, 0.67, 0.999)] == [1, 1, 2, 2, 3, 3]


def walk(distances: list[float], **rule: Any) -> list[int]:
    """Stages that are trained, for the cosine distance of the trained layer in each batch of 4 out of 8 sentences."""
    settings = {"window": 8, "threshold": 0.05, "cap": 2.0} | rule
    stages, seen = Stages(2, 8), []
    for distance in distances:
        stage = stages.due(0.0, 1.0)
        seen.append(int(stage))
        stages.see(stage, torch.full((2,), distance), 4, **settings)
    return seen


def test_stages_advance_by_what_they_have_seen() -> None:
    assert walk([0.5] * 10) == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    assert walk([0.01] * 6) == [1, 1, 2, 2, 3, 3]
    assert walk([0.01, 0.2, 0.01, 0.01, 0.01, 0.01, 0.01]) == [1, 1, 1, 1, 2, 2, 3]
    assert walk([0.5] * 6, cap=0.5) == [1, 2, 3, 3, 3, 3]


@pytest.mark.parametrize(
    ("procedure", "progress", "layers"), [("pid", 0.4, {1}), ("sid", 0.4, {0, 1}), ("pid", 0.9, set())]
)
def test_a_stage_trains_its_layers_only(
    procedure: Procedure, progress: float, layers: set[int], dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    method = InternalKD(procedure=procedure)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    terms = method.loss(signals, aux, progress)
    torch.stack(list(terms.values())).sum().backward()
    gradient = signals.student_layers_BLS.grad
    assert gradient is not None
    assert {layer for layer in (0, 1) if gradient[:, layer].any()} == layers
    for layer, maps in enumerate(signals.student_attention):
        assert maps.grad is not None
        assert bool(maps.grad.any()) == (layer in layers)
    assert signals.student_BS.grad is not None
    assert bool(signals.student_BS.grad.any()) == (not layers)


def test_the_final_term_may_stay_on(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    for kept in (False, True):
        method = InternalKD(procedure="pid", final_in_all_stages=kept)
        terms = method.loss(fake(method, dims()), method.build_aux(dims()).double(), 0.1)
        assert bool(terms["final"] > 0) == kept


def test_what_is_frozen_below_a_stage(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = InternalKD(procedure="sid", freeze_below=True, cosine_threshold=0.0)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    frozen = []
    for progress in (0.0, 0.4, 0.5, 0.8):
        with torch.no_grad():
            method.after_step(signals, aux, progress)
        frozen.append(method.frozen_layers(aux))
    assert frozen == [0, 1, 1, 0]
    assert InternalKD(procedure="sid").frozen_layers(aux) == 0


def test_heads_may_be_averaged(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    unequal, method = dims(teacher=(12, 4, 4)), InternalKD(heads="average")
    signals, aux = fake(method, unequal), method.build_aux(unequal).double()
    found = method.loss(signals, aux, 0.0)["attention"]
    pairs = zip(signals.student_attention, signals.teacher_attention, strict=True)
    expected = [
        attention_divergence(student.mean(1, keepdim=True), teacher.mean(1, keepdim=True), signals.mask_BT)
        for student, teacher in pairs
    ]
    torch.testing.assert_close(found, torch.stack(expected).sum())


@pytest.mark.parametrize(("student", "expected"), [((2, 2), 0.0), ((-3, -3), 2.0), ((1, -1), 1.0), ((0, 0), 1.0)])
def test_hidden_distance_lies_between_0_and_2(student: tuple[int, int], expected: float) -> None:
    found = hidden_distances(torch.tensor([[student]]).double(), torch.tensor([[(1, 1)]]).double())
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_longer_padding_leaves_the_divergence() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    closed = mask[:, None, None, :] == 0
    maps = [draw(2, 2, 3, 3, seed=seed).masked_fill(closed, -math.inf).softmax(-1) for seed in (0, 1)]
    expected = attention_divergence(maps[0], maps[1], mask)
    # Queries at padding look somewhere too: rows that say anything must not count.
    longer = [
        nn.functional.pad(nn.functional.pad(one, (0, 2)), (0, 0, 0, 2), value=fill)
        for one, fill in zip(maps, (0.2, 0.7), strict=True)
    ]
    torch.testing.assert_close(attention_divergence(longer[0], longer[1], nn.functional.pad(mask, (0, 2))), expected)


def schedule(procedure: Procedure, epoch_means: list[float], threshold: float, cap: float) -> list[set[int]]:
    """Layers trained in each epoch, from the pure functions alone."""
    stage, spent, trained = torch.tensor(1), 0, []
    for mean in epoch_means:
        trained.append({int(layer) + 1 for layer in active_layers(stage, 3, procedure).nonzero()})
        spent += 1
        after = next_stage(stage, torch.tensor(mean), torch.tensor(float(spent)), threshold, cap)
        stage, spent = after, 0 if after > stage else spent
    return trained


@pytest.mark.parametrize(
    ("procedure", "expected"),
    [
        ("id", [{1, 2, 3}] * 6),
        ("pid", [{1}, {1}, {2}, {3}, {3}, set()]),
        ("sid", [{1}, {1}, {1, 2}, {1, 2, 3}, {1, 2, 3}, set()]),
    ],
)
def test_the_schedule_follows_from_epoch_means(procedure: Procedure, expected: list[set[int]]) -> None:
    # Layers 1 and 3 run into the cap of two epochs, layer 2 is close enough after one.
    assert schedule(procedure, [0.5, 0.5, 0.04, 0.5, 0.5, 0.5], 0.05, 2.0) == expected


def test_the_average_is_over_sentences_and_starts_anew_after_a_check() -> None:
    def reached(*batches: tuple[float, int], window: int = 8) -> int:
        stages = Stages(2, 100)
        for distance, size in batches:
            stages.see(stages["stage"], torch.full((2,), distance), size, window, 0.05, math.inf)
        return int(stages["stage"])

    # 0.045 and 0.055 over sentences, 0.08 and 0.04 if batches counted.
    assert reached((0.01, 6), (0.15, 2)) == 2
    assert reached((0.07, 6), (0.01, 2)) == 1
    assert reached((0.2, 8), (0.01, 8)) == 2
    assert reached((0.01, 4), window=8) == 1
    # A window never spans more than an epoch of the text.
    assert reached((0.01, 99), window=1000) == 1
    assert reached((0.01, 100), window=1000) == 2


def test_only_the_layer_of_the_stage_is_looked_at() -> None:
    stages = Stages(2, 8)
    for distances, expected in (([0.5, 0.01], 1), ([0.01, 0.5], 2), ([0.01, 0.5], 2), ([0.5, 0.01], 3)):
        stages.see(stages["stage"], torch.tensor(distances), 8, 8, 0.05, math.inf)
        assert int(stages["stage"]) == expected


def test_a_close_layer_ends_its_stage_before_its_share_of_the_budget() -> None:
    stages = Stages(2, 8)
    stages.see(stages.due(0.0, None), torch.full((2,), 0.01), 8, 8, 0.05, math.inf)
    assert [int(stages.due(progress, None)) for progress in (0.1, 0.5, 0.7)] == [2, 2, 3]
    # By the budget alone; what was seen of an earlier stage does not count for the new one.
    late = Stages(2, 8)
    late.see(late.due(0.0, None), torch.full((2,), 0.01), 4, 8, 0.05, math.inf)
    late.see(late.due(0.4, None), torch.full((2,), 0.01), 4, 8, 0.05, math.inf)
    assert (int(late["stage"]), int(late["seen"])) == (2, 4)
    # Nor does its distance: 0.01 over the new stage's window, 0.31 with what came before.
    far = Stages(2, 8)
    for progress, distance in ((0.0, 0.6), (0.4, 0.01), (0.4, 0.01)):
        far.see(far.due(progress, None), torch.full((2,), distance), 4, 8, 0.05, math.inf)
    assert int(far["stage"]) == 3


def test_epochs_of_the_text_end_a_stage(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = InternalKD(procedure="pid", epochs_per_layer=0.5, cosine_threshold=0.0)
    # Batches of 4 out of 16 sentences: two to a stage, whatever share of the budget is spent.
    models = dims(num_sentences=16)
    signals, aux = fake(method, models, batch_size=4), method.build_aux(models).double()
    stages = []
    for _ in range(6):
        with torch.no_grad():
            terms = method.loss(signals, aux, 0.9)
            stages.append((int(method.diagnostics(signals, aux)["layer_stage"]), bool(terms["final"] > 0)))
            method.after_step(signals, aux, 0.9)
    assert stages == [(1, False), (1, False), (2, False), (2, False), (3, True), (3, True)]


class Chain(nn.Module):
    """A student of three layers, each on top of the last, that ships the last one's state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, x_BS: Tensor) -> tuple[Tensor, Tensor]:
        states = []
        for layer in self.layers:
            x_BS = torch.tanh(layer(x_BS))
            states.append(x_BS)
        return torch.stack(states, dim=1), x_BS


@pytest.mark.parametrize(
    ("procedure", "stage", "reached", "heads"),
    [
        ("pid", 1, {0}, {0}),
        ("pid", 2, {0, 1}, {1}),
        ("pid", 3, {0, 1, 2}, {2}),
        ("sid", 1, {0}, {0}),
        ("sid", 2, {0, 1}, {0, 1}),
        ("sid", 3, {0, 1, 2}, {0, 1, 2}),
        ("pid", 4, {0, 1, 2}, set()),
        ("sid", 4, {0, 1, 2}, set()),
    ],
)
def test_nothing_above_a_stage_is_trained_and_all_below_is(
    procedure: Procedure,
    stage: int,
    reached: set[int],
    heads: set[int],
    dims: Callable[..., Dims],
    fake: Callable[..., Signals],
) -> None:
    models, method = dims((6, 3, 2)), InternalKD(procedure=procedure, attention_weight=0.0)
    torch.manual_seed(0)
    signals, aux, student = fake(method, models), method.build_aux(models).double(), Chain(6).double()
    layers_BLS, final_BS = student(draw(5, 6))
    batch = replace(signals, student_layers_BLS=layers_BLS, student_BS=final_BS)
    terms = method.loss(batch, aux, (stage - 0.5) / 4)
    torch.stack(list(terms.values())).sum().backward()

    def touched(parts: nn.ModuleList) -> set[int]:
        gradients = enumerate([parameter.grad for parameter in part.parameters()] for part in parts)
        return {place for place, found in gradients if any(g is not None and g.any() for g in found)}

    assert touched(student.layers) == reached
    assert touched(aux["hidden"]) == heads  # type: ignore[arg-type]
    assert any(bool(p.grad.any()) for p in aux["final"].parameters() if p.grad is not None) == (stage == 4)


def test_the_first_tokens_state_may_be_compared(dims: Callable[..., Dims]) -> None:
    assert InternalKD().needs(dims()).layer_pooling == "mean"
    assert InternalKD(state="cls").needs(dims()).layer_pooling == "cls"


@pytest.mark.parametrize("procedure", ["pid", "sid"])
def test_stages_ask_for_all_layers_at_once(procedure: Procedure, dims: Callable[..., Dims]) -> None:
    assert InternalKD(procedure=procedure).needs(dims()) == InternalKD().needs(dims())


@pytest.mark.parametrize("procedure", ["pid", "sid"])
def test_a_close_layer_ends_its_stage_early_in_a_short_budget_too(
    procedure: Procedure, dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    # 60 steps of 4 sentences out of a million, which no window of 100 000 fits into; every layer is close.
    method, models = InternalKD(procedure=procedure, cosine_threshold=3.0), dims(num_sentences=1_000_000)
    signals, aux = fake(method, models, batch_size=4), method.build_aux(models).double()
    stages = []
    for step in range(60):
        with torch.no_grad():
            stages.append(int(method.diagnostics(signals, aux)["layer_stage"]))
            method.after_step(signals, aux, step / 60)
    # A tenth of a stage's share is a thirtieth of the budget, two steps.
    assert stages[:7] == [1, 1, 1, 2, 2, 3, 3]
    never = InternalKD(procedure=procedure, cosine_threshold=0.0)
    aux = never.build_aux(models).double()
    with torch.no_grad():
        for step in range(20):
            never.after_step(signals, aux, step / 60)
    assert int(never.diagnostics(signals, aux)["layer_stage"]) == 1
