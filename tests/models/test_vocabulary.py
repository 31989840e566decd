"""Models with fewer token vectors: what is left reads and gives as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from distilbench.core.errors import UserError
from distilbench.data.tokenizer import load_tokenizer
from distilbench.models.embed import embed
from distilbench.models.model_folder import StoredModel, load_encoder
from distilbench.models.vocabulary import write_pruned
from tests.conftest import sentences
from tests.models.families import FAMILIES, Family, make_family, wordpiece

# WordPiece, bytes, bytes without special tokens and padded on the left, pieces of words, positions after the padding.
PRUNED = ["bert", "mpnet", "roberta", "qwen3", "xlm-roberta", "t5", "albert"]
ODD = ["Zebras quiz", "ünïcode 🦓", "", "x"]
WORDS = sentences(1)[0].split()[:5]
SEEN = [" ".join(WORDS[first:] + WORDS[:first]) for first in range(5)]
MANY = sentences(40)
UNSEEN = 6
"""Tokens, or more, that no family needs for `SEEN`."""


def pruned(name: str, tmp_path: Path, size: int, texts: list[str], **more: Any) -> tuple[Path, Path]:
    """The whole model and the pruned one; a negative size is that many tokens less than all."""
    whole = make_family(name, tmp_path / name, normalize=True, prompts={"query": "the "}, **more)
    tokenizer = SentenceTransformer(str(whole), device="cpu").tokenizer
    counts = np.bincount([token for text in texts for token in tokenizer(text)["input_ids"]])
    (tmp_path / "small").mkdir()
    write_pruned(StoredModel("whole", whole), counts, size if size > 0 else len(tokenizer) + size, tmp_path / "small")
    return whole, tmp_path / "small"


@pytest.mark.parametrize("name", PRUNED)
def test_texts_of_kept_tokens_have_the_vectors_they_had(name: str, tmp_path: Path) -> None:
    """Oracle: the whole model and the pruned one, both as sentence-transformers encodes with them."""
    whole, small = pruned(name, tmp_path, -UNSEEN, SEEN)
    before, after = (SentenceTransformer(str(folder), device="cpu") for folder in (whole, small))
    known, left = before.tokenizer.get_vocab(), after.tokenizer.get_vocab()
    assert len(left) == len(known) - UNSEEN
    assert after[0].model.get_input_embeddings().num_embeddings == len(left)
    np.testing.assert_allclose(after.encode(SEEN), before.encode(SEEN), atol=1e-5, rtol=0)
    for text in SEEN:
        pieces = [before.tokenizer.convert_ids_to_tokens(before.tokenizer(text)["input_ids"])]
        assert [after.tokenizer.convert_ids_to_tokens(after.tokenizer(text)["input_ids"])] == pieces
    assert after.prompts["query"] == "the "
    ours = embed(load_encoder(small), load_tokenizer(small), [*SEEN, *ODD])
    np.testing.assert_allclose(ours, after.encode([*SEEN, *ODD]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["bert", "roberta", "qwen3", "xlm-roberta"])
def test_tokens_that_fall_away_are_read_as_their_pieces(name: str, tmp_path: Path) -> None:
    size = {"bert": 75, "xlm-roberta": 45}.get(name, 270)
    whole, small = pruned(name, tmp_path, size, MANY)
    before, after = (load_tokenizer(folder) for folder in (whole, small))
    assert len(after) == size
    fallen = [text for text in MANY if len(after(text)["input_ids"]) > len(before(text)["input_ids"])]
    assert fallen
    for text in fallen:
        assert after.unk_token_id is None or after.unk_token_id not in after(text)["input_ids"]
        written = after.decode(after(text)["input_ids"], skip_special_tokens=True)
        assert written == before.decode(before(text)["input_ids"], skip_special_tokens=True)
    for text in ODD:
        assert max(after(text)["input_ids"], default=0) < size


@pytest.mark.parametrize(
    ("size", "expected"), [(5, "special tokens, letters and bytes that whole needs"), (5000, "leaves out none of")]
)
def test_sizes_that_cannot_be(size: int, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=expected):
        pruned("bert", tmp_path, size, SEEN)
    assert not list((tmp_path / "small").iterdir())


def test_positions_that_would_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A RoBERTa counts positions from its padding token's place."""

    def padded_late() -> Any:
        tokenizer = wordpiece()
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(60)
        return tokenizer

    monkeypatch.setitem(FAMILIES, "late", Family("RobertaConfig", padded_late))
    with pytest.raises(UserError, match="counts positions from its padding token"):
        pruned("late", tmp_path, 75, MANY, max_length=20)
