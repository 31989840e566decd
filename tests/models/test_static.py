"""The static student: what model2vec prescribes, and that it survives export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distilbench.data.tokenizer import load_tokenizer
from distilbench.models.encoder import Encoder
from distilbench.models.export import export
from distilbench.models.model_folder import load_encoder
from distilbench.models.static_student import distil_static, rarity, reduce, static_encoder
from distilbench.study.budget import Ledger
from distilbench.study.sections.models import StaticSpec


@pytest.fixture
def teacher(teacher_folder: Path) -> Encoder:
    return load_encoder(teacher_folder)


def encode(model: Encoder, folder: Path, texts: list[str]) -> torch.Tensor:
    batch = load_tokenizer(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        final: torch.Tensor = model(batch["input_ids"], batch["attention_mask"]).final
    return final


def test_only_the_multiset_of_tokens_counts(teacher: Encoder, teacher_folder: Path) -> None:
    student = distil_static(teacher, load_tokenizer(teacher_folder), StaticSpec(width=8), Ledger())
    vectors = encode(student, teacher_folder, ["a dog sees the cat", "the cat sees a dog", "a dog sees the bird"])
    assert vectors.shape == (3, 8)
    torch.testing.assert_close(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0], vectors[2], atol=1e-3)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))


def test_the_vectors_are_the_teachers_reduced_and_weighted(teacher: Encoder, teacher_folder: Path) -> None:
    ledger, tokenizer = Ledger(), load_tokenizer(teacher_folder)
    student = distil_static(teacher, tokenizer, StaticSpec(width=5, smoothing=0.01), ledger)
    count = teacher.backbone.get_input_embeddings().num_embeddings
    ids = torch.tensor([[tokenizer.cls_token_id, token, tokenizer.sep_token_id] for token in range(count)])
    with torch.no_grad():
        vectors = teacher(ids, torch.ones_like(ids), layers=(4,)).layers[:, 0]
    expected = reduce(vectors, 5) * rarity(count, 0.01)[:, None]
    expected[torch.tensor(tokenizer.all_special_ids)] = 0
    torch.testing.assert_close(student.backbone.get_input_embeddings().weight.double(), expected, atol=1e-4, rtol=1e-3)
    assert ledger.teacher_sentences_online == count
    assert ledger.teacher_flops_online == teacher.forward_flops(count, 3)


def test_frequent_tokens_weigh_least() -> None:
    weights = rarity(1000, 1e-4)
    assert (weights.diff() > 0).all()
    share = 1 / (torch.arange(1000, dtype=torch.float64) + 2)
    torch.testing.assert_close(weights, 1e-4 / (1e-4 + share / share.sum()))


def test_reducing_to_full_width_keeps_distances() -> None:
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(torch.cdist(reduce(x, 6), reduce(x, 6)), torch.cdist(x, x))
    assert reduce(x, 2).var(0).sum() > 0.2 * x.var(0).sum()


def test_it_is_exported_as_sentence_transformers_reads_it(
    teacher: Encoder, teacher_folder: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    tokenizer = load_tokenizer(teacher_folder)
    student = distil_static(teacher, tokenizer, StaticSpec(width=8), Ledger())
    export(student, tokenizer, tmp_path / "model", "# static\n")
    texts = ["a dog sees the cat", "the old house"]
    own = encode(student, tmp_path / "model", texts)
    assert torch.equal(encode(load_encoder(tmp_path / "model"), tmp_path / "model", texts), own)
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(texts)
    torch.testing.assert_close(torch.from_numpy(theirs), own)


def test_it_has_no_transformer_to_pay_for() -> None:
    assert static_encoder(torch.zeros(5, 3), 16).forward_flops(8, 16) == 0
