"""Vectors of any texts: in length order, so that little is padded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distilbench.data.batches import length_batches
from distilbench.data.tokens import Tokens, tokenised
from distilbench.models.encoder import Encoder

TOKENS_PER_PASS = 2048
"""On a CPU 1024 to 4096 are about equally fast; with more, memory is asked of the system anew in every pass."""
TOKENS_PER_PASS_ON_A_GPU = 32768
"""With few tokens a GPU mostly waits for its next kernel."""


def tokens_per_pass(device: torch.device | str) -> int:
    """Padded tokens that pass a model together where no gradient is wanted."""
    return TOKENS_PER_PASS if torch.device(device).type == "cpu" else TOKENS_PER_PASS_ON_A_GPU


def batch_rule(device: torch.device | str) -> str:
    """What passes a model together, in words; it decides the last bits of vectors."""
    return f"distinct texts by length, at most {tokens_per_pass(device)} padded tokens a batch"


def embed(model: Encoder, tokenizer: Any, texts: list[str], prompt: str | None = None) -> NDArray[np.float32]:
    """The vectors that ship, [texts, width], in the order of the texts; before each stands a prompt, if not another
    then the model's default one."""
    before = model.default_prompt if prompt is None else prompt
    tokens = tokenised(tokenizer, [before + text for text in texts], model.max_length)
    return embed_tokens(model, tokenizer, tokens, batches(tokens.lengths(), model.device))


def batches(lengths_N: NDArray[np.int64], device: torch.device) -> Iterator[NDArray[np.int64]]:
    """Which texts pass a model together, by their numbers of tokens."""
    return length_batches(np.arange(len(lengths_N)), lengths_N, tokens_per_pass(device))


@torch.inference_mode()
def embed_tokens(
    model: Encoder, tokenizer: Any, tokens: Tokens, parts: Iterable[NDArray[np.int64]]
) -> NDArray[np.float32]:
    """Vectors of tokenised texts, [texts, width], those of each part in one pass.

    A text without a token does not pass the transformer: what its head makes of zeros is its vector.
    """
    vectors = np.empty((len(tokens), model.output_width()), dtype=np.float32)
    lengths_N = tokens.lengths()
    vectors[lengths_N == 0] = model.of_nothing().float().cpu().numpy()
    for part in parts:
        if len(rows := part[lengths_N[part] > 0]):
            ids, mask = (tensor.to(model.device) for tensor in tokens.batch(rows, tokenizer))
            vectors[rows] = model(ids, mask).final.float().cpu().numpy()
    return vectors
