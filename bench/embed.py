"""Vectors of any texts: in length order, so that little is padded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.encoder import Encoder
from bench.store import length_batches

TOKENS_PER_PASS = 2048
BATCH_RULE = f"distinct texts by length, at most {TOKENS_PER_PASS} padded tokens a batch"


def embed(model: Encoder, tokenizer: Any, texts: list[str]) -> NDArray[np.float32]:
    """The vectors that ship, [texts, width], in the order of the texts."""
    rows = token_rows(model, tokenizer, texts)
    return embed_rows(model, tokenizer, rows, batches(np.array([len(row) for row in rows])))


def token_rows(model: Encoder, tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of texts, special ones included, cut at the model's maximum length."""
    rows: list[list[int]] = tokenizer(texts, truncation=True, max_length=model.max_length)["input_ids"]
    return rows


def batches(lengths_N: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Which texts pass the model together, by their numbers of tokens."""
    return length_batches(np.arange(len(lengths_N)), lengths_N, TOKENS_PER_PASS)


@torch.inference_mode()
def embed_rows(
    model: Encoder, tokenizer: Any, rows: list[list[int]], parts: Iterable[NDArray[np.int64]]
) -> NDArray[np.float32]:
    """Vectors of tokenised texts, [rows, width], those of each part in one pass."""
    found = np.empty((len(rows), model.output_width()), dtype=np.float32)
    for part in parts:
        batch = tokenizer.pad({"input_ids": [rows[place] for place in part]}, return_tensors="pt").to(model.device)
        found[part] = model(batch["input_ids"], batch["attention_mask"]).final.float().cpu().numpy()
    return found
