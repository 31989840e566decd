"""The static student: what model2vec prescribes, and that it survives export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from model2vec.distill import distill_from_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer

from distilbench.data.tokenizer import load_tokenizer
from distilbench.models.encoder import Encoder
from distilbench.models.export import export
from distilbench.models.finding import PACKAGED_NAME, find_model
from distilbench.models.model_folder import load_encoder
from distilbench.models.static_student import distil_static, rarity, reduce, static_encoder
from distilbench.study.budget import Ledger
from distilbench.study.sections.models import StaticSpec
from tests.conftest import sentences
from tests.models.families import FAMILIES, WIDTH


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


def test_the_ledger_has_the_tokens_that_passed(teacher: Encoder, teacher_folder: Path) -> None:
    ledger, tokenizer = Ledger(), load_tokenizer(teacher_folder)
    distil_static(teacher, tokenizer, StaticSpec(width=5), ledger)
    # Of the five special tokens, the unknown one and the padding are kept.
    assert ledger.teacher_sentences_online == len(tokenizer) - 3
    assert ledger.teacher_flops_online == teacher.forward_flops(len(tokenizer) - 3, 3)


def with_placeholders(tokenizer: Any, places: tuple[int, ...]) -> Any:
    """A word-piece tokenizer with placeholders of BERT's in between."""
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    for number, place in enumerate(places):
        tokens.insert(place, f"[unused{number}]")
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["model"]["vocab"] = {token: number for number, token in enumerate(tokens)}
    for added in content["added_tokens"]:
        added["id"] = tokens.index(added["content"])
    processor = content["post_processor"]["special_tokens"]
    for name in processor:
        processor[name]["ids"] = [tokens.index(name)]
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return hf.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)), **names)


@pytest.mark.parametrize("family", ["bert", "placeholders", "mpnet"])
@pytest.mark.parametrize("width", [12, 32])
def test_it_is_what_model2vec_makes(family: str, width: int, tmp_path: Path) -> None:
    tokenizer = FAMILIES["bert" if family == "placeholders" else family].tokenizer()
    if family == "placeholders":
        tokenizer = with_placeholders(tokenizer, (1, 3, 4, 50, 51, 52, 200))
    model = FAMILIES["bert" if family == "placeholders" else family].build(tokenizer)
    SentenceTransformer(modules=_modules(model, tokenizer, tmp_path), device="cpu").save(str(tmp_path / "teacher"))
    ours = distil_static(load_encoder(tmp_path / "teacher"), tokenizer, StaticSpec(width=width), Ledger())
    theirs = distill_from_model(model, tokenizer, device="cpu", pca_dims=width, quantize_to="float32")
    texts = [*sentences(40, seed=5), "☃ snow 7 unknown ☃", "a", "The Cat, the dog."]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = ours(batch["input_ids"], batch["attention_mask"]).final
    expected = torch.from_numpy(theirs.encode(texts)).to(found.dtype)
    # Principal components have no sign of their own, and theirs are computed in single precision.
    torch.testing.assert_close(found @ found.T, expected @ expected.T, atol=3e-5, rtol=0)


@pytest.mark.thorough
def test_the_packaged_teachers_is_what_model2vec_makes() -> None:
    folder = find_model(PACKAGED_NAME).folder
    teacher, tokenizer = load_encoder(folder), load_tokenizer(folder)
    ours = distil_static(teacher, tokenizer, StaticSpec(), Ledger())
    theirs = distill_from_model(hf.AutoModel.from_pretrained(folder), tokenizer, device="cpu", quantize_to="float32")
    texts = ["A plane is taking off.", "Naïve café-goers, 24/7: isn't it?", "The cat sat on the mat.", "2 + 2 = 4"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = ours(batch["input_ids"], batch["attention_mask"]).final
    expected = torch.from_numpy(theirs.encode(texts)).to(found.dtype)
    torch.testing.assert_close(found @ found.T, expected @ expected.T, atol=1e-5, rtol=0)


def _modules(model: Any, tokenizer: Any, folder: Path) -> list[Any]:
    model.save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")
    return [Transformer(str(folder / "backbone"), max_seq_length=64), Pooling(WIDTH, "mean")]


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
