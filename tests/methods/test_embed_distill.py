"""EmbedDistill: vectors of queries and documents, scores and labels, by hand and against the paper's equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distilbench_methods.base import Dims, Signals
from distilbench_methods.embed_distill import EmbedDistill, one_hot_cross_entropy

Precision = tuple[torch.dtype, float]
IDENTITY = nn.ModuleDict({"projection": nn.Identity()})


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def test_all_terms_by_hand(precision: Precision) -> None:
    dtype, tolerance = precision
    signals = Signals(
        index_B=torch.arange(2),
        mask_BT=torch.ones(2, 1),
        student_BS=torch.tensor([[2, 0], [0, 1]], dtype=dtype),
        candidates_BKS=torch.tensor([[[1, 0]], [[0, 3]]], dtype=dtype),
        teacher_final_BD=torch.tensor([[0, 1], [0, 1]], dtype=dtype),
        teacher_candidates_BKD=torch.tensor([[[1, 0]], [[3, 5]]], dtype=dtype),
    )
    terms = EmbedDistill(temperature=1.0, query_weight=2.0).loss(signals, IDENTITY, 0.0)
    # The student's scores are the unit matrix.
    assert float(terms["contrastive"]) == pytest.approx(math.log1p(1 / math.e), abs=tolerance)
    # The teacher's are 0 and 5 / sqrt(34) for both queries; the student's log-probabilities differ by 1.
    second = 1 / (1 + math.exp(-5 / math.sqrt(34)))
    right, wrong = math.log1p(1 / math.e), math.log1p(math.e)
    expected = ((1 - second) * right + second * wrong + (1 - second) * wrong + second * right) / 2
    assert float(terms["score"]) == pytest.approx(expected, abs=tolerance)
    # Distances sqrt 2 and 0 of the queries, 0 and 5 of the documents.
    assert float(terms["query"]) == pytest.approx(2 * math.sqrt(2) / 2, abs=tolerance)
    assert float(terms["document"]) == pytest.approx(2.5, abs=tolerance)


@pytest.mark.parametrize("settings", [{}, {"num_candidates": 3, "teacher_temperature": 0.3, "metric": "squared"}])
def test_as_written(settings: dict[str, Any], dims: Callable[..., Dims], fake: Callable[..., Signals]) -> None:
    method = EmbedDistill(temperature=0.2, **settings)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    terms, size = method.loss(signals, aux, 0.0), 5
    documents = [signals.candidates_BKS[j, k] for k in range(method.num_candidates) for j in range(size)]
    taught = [signals.teacher_candidates_BKD[j, k] for k in range(method.num_candidates) for j in range(size)]

    labels, scores, query = [], [], []
    for i in range(size):
        of_student = [torch.cosine_similarity(signals.student_BS[i], text, dim=0) / 0.2 for text in documents]
        tau = method.teacher_temperature or 0.2
        of_teacher = [torch.cosine_similarity(signals.teacher_final_BD[i], text, dim=0) / tau for text in taught]
        log_p = torch.stack(of_student) - torch.stack(of_student).exp().sum().log()
        labels.append(-log_p[i])
        weights = torch.stack(of_teacher).exp()
        scores.append(-(weights / weights.sum() * log_p).sum())
    torch.testing.assert_close(terms["contrastive"], torch.stack(labels).mean())
    torch.testing.assert_close(terms["score"], torch.stack(scores).mean())

    def apart(student: Tensor, teacher: Tensor) -> Tensor:
        difference: Tensor = aux["projection"](student / student.norm()) - teacher
        return difference.square().sum() if method.metric == "squared" else difference.norm()

    query = [apart(*pair) for pair in zip(signals.student_BS, signals.teacher_final_BD, strict=True)]
    torch.testing.assert_close(terms["query"], torch.stack(query).mean())
    of_documents = [apart(*pair) for pair in zip(documents, taught, strict=True)]
    torch.testing.assert_close(terms["document"], torch.stack(of_documents).mean())


def test_both_sides_share_a_projection_that_is_dropped(dims: Callable[..., Dims]) -> None:
    method = EmbedDistill()
    aux = method.build_aux(dims())
    assert [tuple(parameter.shape) for parameter in aux.parameters()] == [(8, 6), (8,)]
    assert method.exported_head(aux) is None
    assert not list(method.build_aux(dims(student=(8, 2, 2))).parameters())


def test_lengths_of_the_students_vectors_change_nothing(
    dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    method = EmbedDistill(num_candidates=2)
    signals, aux = fake(method, dims()), method.build_aux(dims()).double()
    longer = replace(signals, student_BS=9 * signals.student_BS, candidates_BKS=0.1 * signals.candidates_BKS)
    one, other = (method.loss(batch, aux, 0.0) for batch in (signals, longer))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name])


def test_a_constant_for_each_anchor_changes_nothing_and_gradients_are_slopes() -> None:
    scores, shift = draw(3, 3, 2, grad=True), draw(3, 1, 1, seed=1)
    torch.testing.assert_close(one_hot_cross_entropy(scores + shift, 0.5), one_hot_cross_entropy(scores, 0.5))
    assert torch.autograd.gradcheck(lambda x: one_hot_cross_entropy(x, 0.5), (scores,))


def test_the_teacher_itself_costs_its_own_entropy_alone(
    dims: Callable[..., Dims], fake: Callable[..., Signals]
) -> None:
    method, equal = EmbedDistill(num_candidates=2, temperature=0.5), dims(student=(8, 2, 2))
    signals = fake(method, equal)
    taught = torch.nn.functional.normalize(signals.teacher_candidates_BKD, dim=-1)
    anchors = torch.nn.functional.normalize(signals.teacher_final_BD, dim=-1)
    ideal = replace(signals, student_BS=5 * anchors, candidates_BKS=taught)
    ideal = replace(ideal, teacher_final_BD=anchors, teacher_candidates_BKD=taught)
    terms = method.loss(ideal, method.build_aux(equal), 0.0)
    assert terms["query"].item() == pytest.approx(0, abs=1e-12)
    assert terms["document"].item() == pytest.approx(0, abs=1e-12)
    p = (anchors @ taught.flatten(0, 1).T / 0.5).softmax(-1)
    torch.testing.assert_close(terms["score"], -(p * p.log()).sum(-1).mean())


def test_asks_for_what_its_terms_read(dims: Callable[..., Dims]) -> None:
    def asked(**settings: Any) -> tuple[int, bool, int]:
        needs = EmbedDistill(**settings).needs(dims())
        return needs.candidates, needs.teacher_final, needs.teacher_candidates

    assert asked() == (1, True, 1)
    assert asked(num_candidates=3) == (3, True, 3)
    assert asked(query_weight=0.0) == (1, True, 1)
    assert asked(query_weight=0.0, score_weight=0.0) == (1, False, 1)
    assert asked(document_weight=0.0, score_weight=0.0) == (1, True, 0)
    assert [EmbedDistill(num_candidates=count).negatives_per_step(8) for count in (1, 2)] == [7, 15]
    apart = EmbedDistill(contrastive_weight=0.0, score_weight=0.0)
    assert (apart.negatives_per_step(8), apart.coupled) == (0, "")
    assert not EmbedDistill(query_weight=0.0, document_weight=0.0).build_aux(dims())


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"contrastive_weight": 0.0, "score_weight": 0.0, "document_weight": 0.0}, "without documents it is mse"),
        ({"query_weight": -1.0}, "query_weight must not be negative"),
        ({"num_candidates": 0}, "num_candidates must be positive"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"teacher_temperature": 0.0}, "teacher_temperature must be positive"),
        ({"metric": "l1"}, "metric must be one of"),
    ],
)
def test_invalid_values_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        EmbedDistill(**settings)
