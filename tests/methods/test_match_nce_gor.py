"""Embedding matching, InfoNCE and the spread-out term as one: by hand, against the papers' equations, invariances."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distilbench_methods.base import Dims, Signals
from distilbench_methods.functional import hard_negative_info_nce
from distilbench_methods.match_nce_gor import (
    MatchNCEGOR,
    global_orthogonality,
    hardness_weighted_info_nce,
    second_moment,
)

Precision = tuple[torch.dtype, float]
IDENTITY = nn.ModuleDict({"projection": nn.Identity()})
GEMMA: dict[str, Any] = {"hardness": 5.0, "match_negatives": True, "matching_weight": 1.0}


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def cosine(one: Tensor, other: Tensor) -> float:
    return float((one @ other / (one.norm() * other.norm())).detach())


def test_all_three_terms_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    anchors = torch.tensor([[1, 0], [0, 1]], dtype=dtype)
    candidates = torch.tensor([[[2, 0], [0, -1]], [[3, 4], [-1, 0]]], dtype=dtype)
    signals = Signals(
        index_B=torch.arange(2),
        mask_BT=torch.ones(2, 1),
        student_BS=anchors,
        candidates_BKS=candidates,
        teacher_final_BD=torch.tensor([[1, 0], [0, -1]], dtype=dtype),
        teacher_candidates_BKD=torch.tensor([[[0, 1]], [[3, 4]]], dtype=dtype),
    )
    terms = MatchNCEGOR(temperature=1.0, spread_weight=3.0).loss(signals, IDENTITY, 0.0)
    # Cosines with the positives, then the negatives: 1, .6, 0, -1 for the first anchor, 0, .8, -1, 0 for the second.
    rows = [(1.0, [1, 0.6, 0, -1]), (0.8, [0, 0.8, -1, 0])]
    contrast = sum(math.log(sum(map(math.exp, cosines))) - own for own, cosines in rows) / 2
    assert terms["contrastive"].item() == pytest.approx(contrast, abs=tolerance)
    # The anchors are 0 and 2 from the teacher's vectors, the positives 1 and 0: means of 1 and 1/2, twice their sum.
    assert terms["matching"].item() == pytest.approx(3.0, abs=tolerance)
    # Anchors are orthogonal; the cosine of the positives is .6.
    assert terms["spread"].item() == pytest.approx(3 * 0.36, abs=tolerance)


@pytest.mark.parametrize("settings", [{}, GEMMA, {"spread_form": "gor", "metric": "l2", "hard_negatives": False}])
def test_as_written(settings: dict[str, Any], dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = MatchNCEGOR(**settings)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    terms, size = method.loss(signals, aux, 0.0), 5
    anchors, texts = signals.student_BS, signals.candidates_BKS

    contrast = 0.0
    for i in range(size):
        scores = [cosine(anchors[i], texts[j, 0]) / 0.02 for j in range(size)]
        if method.hard_negatives:
            hard = [cosine(anchors[i], texts[j, 1]) for j in range(size)]
            scores += [hard[j] / 0.02 + (method.hardness * hard[j] if i == j else 0) for j in range(size)]
        largest = max(scores)
        contrast += largest + math.log(sum(math.exp(score - largest) for score in scores)) - scores[i]
    assert terms["contrastive"].item() == pytest.approx(contrast / size)

    matching = 0.0
    for i in range(size):
        pairs = [(anchors[i], signals.teacher_final_BD[i])]
        pairs += [(texts[i, k], signals.teacher_candidates_BKD[i, k]) for k in range(1 + method.match_negatives)]
        for student, teacher in pairs:
            mapped = aux["projection"](student / student.norm())
            matching += 1 - cosine(mapped, teacher) if method.metric == "cosine" else (mapped - teacher).norm().item()
    assert terms["matching"].item() == pytest.approx(method.matching_weight * matching / size)

    spread = 0.0
    for vectors in (anchors, texts[:, 0]):
        cosines = [cosine(vectors[i], vectors[j]) for i in range(size) for j in range(size) if i != j]
        moments = [sum(cosines) / 20, sum(value**2 for value in cosines) / 20]
        spread += moments[1] if method.spread_form == "second-moment" else moments[0] ** 2 + max(0, moments[1] - 1 / 6)
    assert terms["spread"].item() == pytest.approx(spread)


def test_without_hardness_it_is_the_supervised_contrast() -> None:
    texts = draw(4, 3), draw(4, 3, seed=1), draw(4, 3, seed=2)
    torch.testing.assert_close(hardness_weighted_info_nce(*texts, 0.5, 0.0), hard_negative_info_nce(*texts, 0.5))


def test_hardness_raises_the_share_of_hard_negatives_alone() -> None:
    anchor, positive, negative = draw(4, 3), draw(4, 3, seed=1), draw(4, 3, seed=2)
    # Negatives at a right angle weigh 1, whatever the hardness; nearer ones more, farther ones less.
    orthogonal = torch.linalg.cross(anchor, positive)
    values = [hardness_weighted_info_nce(anchor, positive, orthogonal, 0.5, hardness) for hardness in (0.0, 5.0)]
    torch.testing.assert_close(*values)
    for negatives, grows in ((anchor + 0.1 * negative, True), (0.1 * negative - anchor, False)):
        values = [hardness_weighted_info_nce(anchor, positive, negatives, 0.5, hardness) for hardness in (0.0, 5.0)]
        assert (values[1] > values[0]) == grows


def test_hardness_has_no_gradient_of_its_own() -> None:
    anchor, positive, negative = draw(4, 3, grad=True), draw(4, 3, seed=1), draw(4, 3, seed=2)
    (found,) = torch.autograd.grad(hardness_weighted_info_nce(anchor, positive, negative, 0.5, 2.0), anchor)
    own = torch.cosine_similarity(anchor.detach(), negative, dim=-1)
    cosines = torch.cosine_similarity(anchor[:, None], torch.cat([positive, negative])[None], dim=-1)
    weights = torch.cat([torch.ones(4, 4), 1 + torch.diag(torch.expm1(2 * own))], dim=1)
    denominator = (weights * (cosines / 0.5).exp()).sum(1)
    (expected,) = torch.autograd.grad((denominator.log() - cosines.diagonal() / 0.5).mean(), anchor)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("loss", [second_moment, global_orthogonality])
def test_gradients_are_slopes(loss: Callable[[Tensor], Tensor]) -> None:
    # Half of a cone, so that the second moment is above that of evenly spread vectors.
    x = (draw(5, 4) + torch.tensor([2.0, 0, 0, 0])).detach().requires_grad_()
    assert torch.autograd.gradcheck(loss, (x,))


def test_gradient_of_the_contrast() -> None:
    fixed = (draw(3, 4, seed=1), draw(3, 4, seed=2))
    contrast = hardness_weighted_info_nce
    assert torch.autograd.gradcheck(lambda x: contrast(x, *fixed, 0.5, 0.0), (draw(3, 4, grad=True),))


def test_spread_at_its_extremes() -> None:
    eye = torch.eye(6, dtype=torch.float64)
    assert float(second_moment(eye)) == float(global_orthogonality(eye)) == 0
    same = draw(1, 6).expand(5, 6)
    assert float(second_moment(same)) == pytest.approx(1)
    assert float(global_orthogonality(same)) == pytest.approx(1 + 1 - 1 / 6)
    # Opposite vectors are not spread out, though their cosines cancel.
    axis = torch.cat([same[:1], -same[:1], same[:1], -same[:1]])
    assert float(second_moment(axis)) == pytest.approx(1)
    even = draw(4000, 6)
    assert float(second_moment(even)) == pytest.approx(1 / 6, rel=0.01)


def test_lengths_and_rotations_of_the_students_space_change_nothing(
    dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    method = MatchNCEGOR(matching_weight=0.0, hardness=5.0)
    signals = fake(method, dims())
    rotation = torch.linalg.qr(draw(6, 6, seed=4)).Q
    turned = replace(signals, student_BS=7 * signals.student_BS @ rotation)
    turned = replace(turned, candidates_BKS=0.2 * signals.candidates_BKS @ rotation)
    one, other = (method.loss(batch, nn.ModuleDict(), 0.0) for batch in (signals, turned))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name])


def test_the_teachers_own_vectors_cost_no_matching(dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    equal = dims(student=(8, 2, 2))
    for metric in ("cosine", "l2", "mse", "squared"):
        method = MatchNCEGOR(metric=metric, match_negatives=True)
        signals = fake(method, equal)
        teacher = torch.nn.functional.normalize(signals.teacher_candidates_BKD, dim=-1)
        signals = replace(signals, student_BS=signals.teacher_final_BD, candidates_BKS=3 * teacher)
        signals = replace(signals, teacher_candidates_BKD=teacher)
        signals = replace(signals, teacher_final_BD=torch.nn.functional.normalize(signals.teacher_final_BD, dim=-1))
        value = method.loss(signals, method.build_aux(equal), 0.0)["matching"]
        assert value.item() == pytest.approx(0, abs=1e-12)


def test_asks_for_what_its_terms_read(dims: Callable[..., Dims]) -> None:
    def asked(**settings: Any) -> tuple[int, bool, int]:
        needs = MatchNCEGOR(**settings).needs(dims())
        return needs.candidates, needs.teacher_final, needs.teacher_candidates

    assert asked() == (2, True, 1)
    assert asked(match_negatives=True) == (2, True, 2)
    assert asked(hard_negatives=False, match_negatives=True) == (1, True, 1)
    assert asked(contrastive_weight=0.0) == (1, True, 1)
    assert asked(matching_weight=0.0) == (2, False, 0)
    assert MatchNCEGOR(matching_weight=0.0).build_aux(dims()).keys() == set()
    assert [MatchNCEGOR(hard_negatives=hard).negatives_per_step(8) for hard in (True, False)] == [15, 7]
    assert MatchNCEGOR(contrastive_weight=0.0).negatives_per_step(8) == 0
    ties = [
        MatchNCEGOR(contrastive_weight=contrast, spread_weight=spread).coupled
        for contrast in (1, 0)
        for spread in (1, 0)
    ]
    assert [bool(tie) for tie in ties] == [True, True, True, False]
    assert MatchNCEGOR().exported_head(MatchNCEGOR().build_aux(dims())) is None


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"contrastive_weight": 0.0, "matching_weight": 0.0, "spread_weight": 0.0}, "nothing would be trained"),
        ({"hardness": -1.0}, "hardness must not be negative"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"metric": "l1"}, "metric must be one of"),
        ({"spread_form": "third"}, "spread_form must be one of second-moment, gor"),
    ],
)
def test_invalid_values_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        MatchNCEGOR(**settings)
