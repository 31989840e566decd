"""Token ids of many texts in one flat array, and batches of them, padded without a loop over tokens.

Shapes: N texts, B of them in a batch, T tokens of the longest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilbench.core.cache import find_or_make
from distilbench.core.hashes import PROTOCOL, key_of

TOKENIZE_AT_ONCE = 4096
FLAT_FILE, OFFSETS_FILE = "tokens.npy", "offsets.npy"


@dataclass(frozen=True)
class Tokens:
    """Token ids of N texts, special ones included."""

    flat: NDArray[Any]
    """The ids of all texts, one text after the other."""
    offsets: NDArray[np.int64]
    """[N + 1] where each text begins."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[list[int]]:
        flat = self.flat.tolist()
        return (flat[start:stop] for start, stop in pairwise(self.offsets.tolist()))

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, [N]."""
        return np.diff(self.offsets)

    def batch(self, rows_B: NDArray[np.int64], tokenizer: Any) -> tuple[Tensor, Tensor]:
        """Token ids and mask of some texts, each [B, T], padded as the tokenizer pads."""
        left = tokenizer.padding_side == "left"
        return padded(self.flat, self.offsets, rows_B, tokenizer.pad_token_id or 0, left=left)


def padded(
    flat: NDArray[Any], offsets: NDArray[np.int64], rows_B: NDArray[np.int64], pad_id: int, *, left: bool = False
) -> tuple[Tensor, Tensor]:
    """Token ids and mask of some rows of a flat array, each [B, T] of int64, padded to the longest."""
    starts_B = offsets[rows_B]
    lengths_B = offsets[rows_B + 1] - starts_B
    width = int(lengths_B.max())
    places_T = np.arange(width)
    mask_BT = places_T >= width - lengths_B[:, None] if left else places_T < lengths_B[:, None]
    ids_BT = np.full((len(rows_B), width), pad_id, dtype=np.int64)
    # Both sides go through the real tokens in the same order: row by row, from the left.
    ids_BT[mask_BT] = flat[(starts_B[:, None] + places_T)[places_T < lengths_B[:, None]]]
    return torch.from_numpy(ids_BT), torch.from_numpy(mask_BT.astype(np.int64))


def tokenised(tokenizer: Any, texts: list[str], max_length: int) -> Tokens:
    """Token ids of texts, cut at some length."""
    parts: list[NDArray[np.int32]] = []
    lengths: list[int] = []
    for start in range(0, len(texts), TOKENIZE_AT_ONCE):
        rows = token_rows(tokenizer, texts[start : start + TOKENIZE_AT_ONCE], max_length)
        lengths.extend(map(len, rows))
        parts.append(_flat(rows))
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    return Tokens(np.concatenate([np.empty(0, np.int32), *parts]), offsets)


def token_rows(tokenizer: Any, texts: list[str], max_length: int) -> list[list[int]]:
    """Token ids of some texts, as lists."""
    found = tokenizer(
        texts, truncation=True, max_length=max_length, return_attention_mask=False, return_token_type_ids=False
    )
    rows: list[list[int]] = found["input_ids"]
    return rows


def _flat(rows: Iterable[list[int]]) -> NDArray[np.int32]:
    return np.fromiter((token for row in rows for token in row), dtype=np.int32)


class TokenCache:
    """Token ids of evaluation texts on disk, shared by all models with one tokenizer.

    tokens/<key>/   see `Tokens`; the key is a hash of the tokenizer, the texts and where they are cut
    """

    def __init__(self, cache: Path, tokenizer_sha256: str) -> None:
        self._folder = cache / "tokens"
        self._tokenizer = tokenizer_sha256

    def tokenised(self, tokenizer: Any, texts: list[str], max_length: int) -> Tokens:
        """As the function of this name; what is there already is mapped from disk."""
        key = key_of(
            protocol=PROTOCOL,
            tokenizer=self._tokenizer,
            library=version("tokenizers"),
            max_length=max_length,
            texts=_texts_sha256(texts),
        )

        def write(folder: Path) -> None:
            tokens = tokenised(tokenizer, texts, max_length)
            np.save(folder / FLAT_FILE, tokens.flat)
            np.save(folder / OFFSETS_FILE, tokens.offsets)

        folder = find_or_make(self._folder / key, write, "the tokens")
        return Tokens(*(np.load(folder / name, mmap_mode="r") for name in (FLAT_FILE, OFFSETS_FILE)))


def _texts_sha256(texts: list[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
