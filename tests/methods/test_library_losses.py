"""The losses of sentence-transformers as oracles, where a method follows the library."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.cross_encoder.losses import ListMLELoss, ListNetLoss
from sentence_transformers.sentence_transformer.losses import (
    DistillKLDivLoss,
    EmbedDistillLoss,
    GlobalOrthogonalRegularizationLoss,
    MarginMSELoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor, nn

from distilbench_methods.base import Signals
from distilbench_methods.distill_kl import score_divergence
from distilbench_methods.dual_supervision import in_batch_margin_error
from distilbench_methods.embed_distill import EmbedDistill
from distilbench_methods.functional import candidate_scores, in_batch_scores
from distilbench_methods.margin_mse import margin_error
from distilbench_methods.match_nce_gor import (
    MatchNCEGOR,
    global_orthogonality,
    hardness_weighted_info_nce,
    second_moment,
)
from distilbench_methods.matryoshka import Matryoshka
from distilbench_methods.mse import METRICS, Metric
from distilbench_methods.rankcse import list_mle
from distilbench_methods.simdist import similarity_cross_entropy


class Given(nn.Module):
    """A model whose vectors are its input."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(features)

    def get_embedding_dimension(self) -> int:
        return 4


def given() -> SentenceTransformer:
    return SentenceTransformer(modules=[Given()], device="cpu")


class GivenScores(nn.Module):
    """A cross-encoder whose scores of queries and documents, named by their numbers, are given."""

    num_labels, device = 1, torch.device("cpu")

    def __init__(self, scores_BK: Tensor) -> None:
        super().__init__()
        self.scores_BK = scores_BK

    def preprocess(self, pairs: list[tuple[int, int]], **_: object) -> dict[str, Tensor]:
        return {"scores": torch.stack([self.scores_BK[pair] for pair in pairs])}

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def columns() -> list[dict[str, Tensor]]:
    return [{"sentence_embedding": draw(5, 4, seed=seed)} for seed in range(4)]


def scored(columns: list[dict[str, Tensor]]) -> Tensor:
    anchor, *candidates = (column["sentence_embedding"] for column in columns)
    return candidate_scores(anchor, torch.stack(candidates, 1), "dot")


@pytest.mark.parametrize("metric", ["mse", "l2", "cosine"])
def test_vector_regression(metric: Metric, columns: list[dict[str, Tensor]]) -> None:
    student, teacher = columns[0]["sentence_embedding"], draw(5, 4, seed=9)
    theirs = EmbedDistillLoss(given(), distance_metric=metric)
    torch.testing.assert_close(METRICS[metric](student, teacher), theirs(columns[:1], teacher))


def test_margin_error(columns: list[dict[str, Tensor]]) -> None:
    teacher = draw(5, 3, seed=9)
    theirs = MarginMSELoss(given())
    torch.testing.assert_close(margin_error(scored(columns), teacher), theirs(columns, teacher))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_score_divergence(temperature: float, columns: list[dict[str, Tensor]]) -> None:
    teacher = draw(5, 3, seed=9)
    theirs = DistillKLDivLoss(given(), temperature=temperature)
    torch.testing.assert_close(score_divergence(scored(columns), teacher, temperature), theirs(columns, teacher))


@pytest.mark.parametrize("hardness", [0.0, 5.0])
@pytest.mark.parametrize("texts", [2, 3])
def test_contrast_with_hard_negatives(texts: int, hardness: float, columns: list[dict[str, Tensor]]) -> None:
    mode = "hard_negatives" if hardness else None
    theirs = MultipleNegativesRankingLoss(given(), scale=50.0, hardness_mode=mode, hardness_strength=hardness)
    anchor, positive, negative = (column["sentence_embedding"] for column in columns[:3])
    found = hardness_weighted_info_nce(anchor, positive, negative if texts == 3 else None, 0.02, hardness)
    torch.testing.assert_close(found, theirs(columns[:texts], None))


def test_spread_out_terms(columns: list[dict[str, Tensor]]) -> None:
    # Within a cone, where the second moment is above that of evenly spread vectors.
    cone = [{"sentence_embedding": column["sentence_embedding"] + 1} for column in columns[:2]]
    anchor, positive = (column["sentence_embedding"] for column in cone)
    whole = GlobalOrthogonalRegularizationLoss(given(), aggregation="sum")(cone)
    torch.testing.assert_close(global_orthogonality(anchor) + global_orthogonality(positive), sum(whole.values()))
    moment = GlobalOrthogonalRegularizationLoss(given(), mean_weight=0.0, aggregation="sum")(cone)
    assert whole.keys() - moment.keys() == {"gor_mean"}
    # The library counts from 1/4 on, that of evenly spread vectors of four entries.
    found = second_moment(anchor) + second_moment(positive)
    torch.testing.assert_close(found - 2 / 4, moment["gor_second_moment"])


def test_matching_and_contrast_and_spread(columns: list[dict[str, Tensor]]) -> None:
    anchor, *candidates = (column["sentence_embedding"] for column in columns[:3])
    teacher = draw(5, 3, 4, seed=9)
    signals = Signals(
        index_B=torch.arange(5),
        mask_BT=torch.ones(5, 1),
        student_BS=anchor,
        candidates_BKS=torch.stack(candidates, 1),
        teacher_final_BD=teacher[:, 0],
        teacher_candidates_BKD=teacher[:, 1:],
    )
    method = MatchNCEGOR(match_negatives=True, spread_form="gor")
    terms = method.loss(signals, nn.ModuleDict({"projection": nn.Identity()}), 0.0)
    torch.testing.assert_close(terms["matching"], 2 * 3 * EmbedDistillLoss(given())(columns[:3], teacher))
    torch.testing.assert_close(
        terms["contrastive"], MultipleNegativesRankingLoss(given(), scale=50.0)(columns[:3], None)
    )
    theirs = GlobalOrthogonalRegularizationLoss(given(), aggregation="sum")(columns[:2])
    torch.testing.assert_close(terms["spread"], sum(theirs.values()))


def test_in_batch_margins(columns: list[dict[str, Tensor]]) -> None:
    """Margin-MSE of the library, over rows whose negatives are those that lie so many rows further on."""
    anchor, positive, negative = (column["sentence_embedding"] for column in columns[:3])
    texts, teacher = torch.stack([positive, negative], 1), draw(5, 5, 2, seed=9)
    theirs, rows, losses = MarginMSELoss(given()), torch.arange(5), []
    for shift in range(1, 5):
        others = rows.roll(shift)
        for k in range(2):
            given_columns = [*columns[:2], {"sentence_embedding": texts[others, k]}]
            labels = torch.stack([teacher[rows, rows, 0], teacher[rows, others, k]], 1)
            losses.append(theirs(given_columns, labels))
    found = in_batch_margin_error(in_batch_scores(anchor, texts, "dot"), teacher)
    torch.testing.assert_close(found, torch.stack(losses).mean())


@pytest.mark.parametrize("metric", ["l2", "cosine", "mse"])
def test_matching_of_queries_and_documents_beside_scores(metric: Metric, columns: list[dict[str, Tensor]]) -> None:
    anchor, *candidates = (column["sentence_embedding"] for column in columns[:3])
    unit_columns = [
        {"sentence_embedding": nn.functional.normalize(column["sentence_embedding"], dim=-1)} for column in columns[:3]
    ]
    teacher = draw(5, 3, 4, seed=9)
    signals = Signals(
        index_B=torch.arange(5),
        mask_BT=torch.ones(5, 1),
        student_BS=anchor,
        candidates_BKS=torch.stack(candidates, 1),
        teacher_final_BD=teacher[:, 0],
        teacher_candidates_BKD=teacher[:, 1:],
    )
    method = EmbedDistill(num_candidates=2, metric=metric)
    terms = method.loss(signals, nn.ModuleDict({"projection": nn.Identity()}), 0.0)
    theirs = EmbedDistillLoss(given(), metric)
    torch.testing.assert_close(terms["query"], theirs(unit_columns[:1], teacher[:, 0]))
    torch.testing.assert_close(terms["document"], theirs(unit_columns[1:], teacher[:, 1:]))
    torch.testing.assert_close(
        terms["contrastive"], MultipleNegativesRankingLoss(given(), scale=20.0)(columns[:3], None)
    )
    # The library takes the teacher's entropy off, and has the squared temperature as a factor.
    cosines = torch.cosine_similarity(teacher[:, None, None, 0], teacher[None, :, 1:], dim=-1).flatten(1)
    documents = torch.stack([column["sentence_embedding"] for column in unit_columns[1:]], 1).flatten(0, 1)
    every = [unit_columns[0], *({"sentence_embedding": document.expand(5, 4)} for document in documents)]
    divergence = DistillKLDivLoss(given(), temperature=0.05)(every, cosines) / 0.05**2
    p = (cosines / 0.05).softmax(-1)
    torch.testing.assert_close(terms["score"], divergence - (p * (cosines / 0.05).log_softmax(-1)).sum(-1).mean())


@pytest.mark.parametrize("weights", [(), (0.3, 2.0)])
@pytest.mark.parametrize("metric", ["cosine", "l2", "mse"])
def test_several_widths_of_vector_regression(
    metric: Metric, weights: tuple[float, ...], columns: list[dict[str, Tensor]]
) -> None:
    teacher = draw(5, 4, seed=9)
    model = given()
    theirs = MatryoshkaLoss(model, EmbedDistillLoss(model, metric), [1, 3, 4], [*(weights or (1, 1)), 1])
    signals = Signals(
        index_B=torch.arange(5),
        mask_BT=torch.ones(5, 1),
        student_BS=columns[0]["sentence_embedding"],
        teacher_final_BD=teacher,
    )
    method = Matryoshka(base="mse", base_settings={"metric": metric}, widths=(1, 3), width_weights=weights)
    # The library shares one projection between widths: between equal widths there is none.
    aux = nn.ModuleDict({width: nn.ModuleDict({"projection": nn.Identity()}) for width in "134"})
    found = sum(method.loss(signals, aux, 0.0).values())
    torch.testing.assert_close(found, theirs(columns[:1], teacher))


@pytest.mark.parametrize("texts", [2, 3])
def test_several_widths_of_a_contrast(texts: int, columns: list[dict[str, Tensor]]) -> None:
    model = given()
    theirs = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), [2, 4])
    anchor, *candidates = (column["sentence_embedding"] for column in columns[:texts])
    signals = Signals(
        index_B=torch.arange(5),
        mask_BT=torch.ones(5, 1),
        student_BS=anchor,
        candidates_BKS=torch.stack(candidates, 1),
    )
    method = Matryoshka(base="simcse-supervised", base_settings={"hard_negatives": texts == 3}, widths=(2,))
    aux = nn.ModuleDict({width: nn.ModuleDict({"head": nn.Identity()}) for width in "24"})
    found = sum(method.loss(signals, aux, 0.0).values())
    torch.testing.assert_close(found, theirs(columns[:texts], None))


def test_the_teachers_order_and_distribution_over_lists() -> None:
    student, teacher = draw(5, 4), draw(5, 4, seed=9)
    inputs: list[list[object]] = [[*range(5)], [[*range(4)]] * 5]
    order = ListMLELoss(GivenScores(student / 0.2), respect_input_order=False)
    torch.testing.assert_close(list_mle(student, teacher, 0.2), order(inputs, list(teacher)))
    distribution = ListNetLoss(GivenScores(student / 0.2))
    expected = distribution(inputs, list(teacher / 0.5))
    torch.testing.assert_close(similarity_cross_entropy(student, teacher, 0.2, 0.5), expected)
