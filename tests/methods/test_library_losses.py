"""The losses of sentence-transformers as oracles, where a method follows the library."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, EmbedDistillLoss, MarginMSELoss
from torch import Tensor, nn

from distilbench_methods.distill_kl import score_divergence
from distilbench_methods.functional import candidate_scores
from distilbench_methods.margin_mse import margin_error
from distilbench_methods.mse import METRICS, Metric


class Given(nn.Module):
    """A model whose vectors are its input."""

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
    theirs = EmbedDistillLoss(SentenceTransformer(modules=[Given()], device="cpu"), distance_metric=metric)
    torch.testing.assert_close(METRICS[metric](student, teacher), theirs(columns[:1], teacher))


def test_margin_error(columns: list[dict[str, Tensor]]) -> None:
    teacher = draw(5, 3, seed=9)
    theirs = MarginMSELoss(SentenceTransformer(modules=[Given()], device="cpu"))
    torch.testing.assert_close(margin_error(scored(columns), teacher), theirs(columns, teacher))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_score_divergence(temperature: float, columns: list[dict[str, Tensor]]) -> None:
    teacher = draw(5, 3, seed=9)
    theirs = DistillKLDivLoss(SentenceTransformer(modules=[Given()], device="cpu"), temperature=temperature)
    torch.testing.assert_close(score_divergence(scored(columns), teacher, temperature), theirs(columns, teacher))
