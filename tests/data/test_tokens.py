"""Padding from flat arrays against the tokenizer's own, and tokens that lie on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distilbench.data.tokenizer import load_tokenizer
from distilbench.data.tokens import TokenCache, Tokens, tokenised
from tests.conftest import sentences

TEXTS = [*sentences(40), "", "dog " * 100]
MAX_LENGTH = 32


@pytest.fixture(scope="module")
def tokenizer(teacher_folder: Path) -> Any:
    return load_tokenizer(teacher_folder)


@pytest.fixture(scope="module")
def lists(tokenizer: Any) -> list[list[int]]:
    rows: list[list[int]] = tokenizer(TEXTS, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    return rows


def test_the_tokens_are_the_tokenizers_own(tokenizer: Any, lists: list[list[int]]) -> None:
    tokens = tokenised(tokenizer, TEXTS, MAX_LENGTH)
    assert list(tokens) == lists
    assert tokens.lengths().tolist() == [len(row) for row in lists]
    assert len(tokens) == len(TEXTS)


def test_no_texts_have_no_tokens(tokenizer: Any) -> None:
    assert list(tokenised(tokenizer, [], MAX_LENGTH)) == []


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_are_padded_as_the_tokenizer_pads(tokenizer: Any, lists: list[list[int]], side: str) -> None:
    tokens = tokenised(tokenizer, TEXTS, MAX_LENGTH)
    before, tokenizer.padding_side = tokenizer.padding_side, side
    try:
        for part in (np.array([40]), np.array([3, 41, 40, 0]), np.arange(len(TEXTS))):
            ids, mask = tokens.batch(part, tokenizer)
            expected = tokenizer.pad({"input_ids": [lists[row] for row in part]}, return_tensors="pt")
            assert torch.equal(ids, expected["input_ids"])
            assert torch.equal(mask, expected["attention_mask"])
    finally:
        tokenizer.padding_side = before


def test_tokens_are_made_once_and_again_when_something_changes(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def count(tokenizer: Any, texts: list[str], max_length: int) -> Tokens:
        made.append(len(texts))
        return tokenised(tokenizer, texts, max_length)

    monkeypatch.setattr("distilbench.data.tokens.tokenised", count)
    cache = TokenCache(tmp_path, "a hash")
    first = list(cache.tokenised(tokenizer, TEXTS, MAX_LENGTH))
    assert list(TokenCache(tmp_path, "a hash").tokenised(tokenizer, TEXTS, MAX_LENGTH)) == first
    assert len(made) == 1
    cache.tokenised(tokenizer, TEXTS, MAX_LENGTH - 1)
    cache.tokenised(tokenizer, TEXTS[:-1], MAX_LENGTH)
    # The same characters, cut into texts in another place.
    cache.tokenised(tokenizer, ["a dog", "a cat"], MAX_LENGTH)
    cache.tokenised(tokenizer, ["a doga", " cat"], MAX_LENGTH)
    TokenCache(tmp_path, "another hash").tokenised(tokenizer, TEXTS, MAX_LENGTH)
    assert len(made) == 6
    for file in tmp_path.rglob("tokens.npy"):
        file.write_bytes(file.read_bytes()[:-4] + b"\7\0\0\0")
    assert list(cache.tokenised(tokenizer, TEXTS, MAX_LENGTH)) == first
    assert len(made) == 7
