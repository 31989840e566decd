"""The encoder that mteb sees: distinct texts once, in length order, and never under another model's name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from numpy.typing import NDArray

from bench.embed import batches, embed_rows, token_rows
from bench.encoder import Encoder
from bench.evaluation.collapse import check_vectors


class BenchEncoder(AbsEncoder):  # type: ignore[misc]
    """An encoder under mteb's protocol. `revision` must identify weights, tokenizer and structure."""

    def __init__(self, model: Encoder, tokenizer: Any, name: str, revision: str) -> None:
        self.model = model
        self._tokenizer = tokenizer
        self._known: dict[str, NDArray[np.float32]] = {}
        self.mteb_model_meta = ModelMeta.create_empty(
            overwrites={
                "name": f"distilbench/{name}",
                "revision": revision,
                "similarity_fn_name": ScoringFunction.COSINE,
                "embed_dim": model.output_width(),
                "max_tokens": model.max_length,
                "modalities": ["text"],
            }
        )

    def encode(self, inputs: Any, **_: Any) -> NDArray[np.float32]:
        """Vectors of all texts of a data loader, [texts, width], float32. Texts seen before are not run again.

        Raises `CollapseError` for vectors that are not finite, or the same for different texts.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            self._embed(new)
        return np.stack([self._known[text] for text in texts])

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts, special ones included, cut at the model's maximum length."""
        return token_rows(self.model, self._tokenizer, texts)

    def batches(self, lengths_N: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Which texts pass the model together, by their numbers of tokens."""
        return batches(lengths_N)

    def _embed(self, texts: list[str]) -> None:
        rows = self.tokens(texts)
        parts = self.batches(np.array([len(row) for row in rows]))
        vectors = embed_rows(self.model, self._tokenizer, rows, parts)
        check_vectors(vectors, rows)
        self._known.update(zip(texts, vectors, strict=True))
