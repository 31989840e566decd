"""Vectors of any texts: in length order, so that little is padded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.batches import length_batches
from bench.encoder import Encoder
from bench.tokens import Tokens, tokenised

TOKENS_PER_PASS = 2048
BATCH_RULE = f"distinct texts by length, at most {TOKENS_PER_PASS} padded tokens a batch"


def embed(model: Encoder, tokenizer: Any, texts: list[str]) -> NDArray[np.float32]:
    """The vectors that ship, [texts, width], in the order of the texts."""
    tokens = tokenised(tokenizer, texts, model.max_length)
    return embed_tokens(model, tokenizer, tokens, batches(tokens.lengths()))


def batches(lengths_N: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Which texts pass the model together, by their numbers of tokens."""
    return length_batches(np.arange(len(lengths_N)), lengths_N, TOKENS_PER_PASS)


@torch.inference_mode()
def embed_tokens(
    model: Encoder, tokenizer: Any, tokens: Tokens, parts: Iterable[NDArray[np.int64]]
) -> NDArray[np.float32]:
    """Vectors of tokenised texts, [texts, width], those of each part in one pass."""
    found = np.empty((len(tokens), model.output_width()), dtype=np.float32)
    for part in parts:
        ids, mask = (tensor.to(model.device) for tensor in tokens.batch(part, tokenizer))
        found[part] = model(ids, mask).final.float().cpu().numpy()
    return found
