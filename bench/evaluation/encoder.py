"""The encoder that mteb sees: distinct texts once, in length order, and never under another model's name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from numpy.typing import NDArray

from bench.encoder import Encoder
from bench.evaluation.collapse import check_vectors
from bench.store import length_batches

TOKENS_PER_PASS = 2048
BATCH_RULE = f"distinct texts by length, at most {TOKENS_PER_PASS} padded tokens a batch"


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
        self._embed([text for text in dict.fromkeys(texts) if text not in self._known])
        return np.stack([self._known[text] for text in texts])

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts, special ones included, cut at the model's maximum length."""
        rows: list[list[int]] = self._tokenizer(texts, truncation=True, max_length=self.model.max_length)["input_ids"]
        return rows

    def batches(self, lengths_N: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Which texts pass the model together, by their numbers of tokens."""
        return length_batches(np.arange(len(lengths_N)), lengths_N, TOKENS_PER_PASS)

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> None:
        if not texts:
            return
        rows = self.tokens(texts)
        for part in self.batches(np.array([len(row) for row in rows])):
            batch = self._tokenizer.pad({"input_ids": [rows[i] for i in part]}, return_tensors="pt").to(
                self.model.device
            )
            vectors = self.model(batch["input_ids"], batch["attention_mask"]).final.float().cpu().numpy()
            self._known.update(zip((texts[i] for i in part), vectors, strict=True))
        check_vectors(np.stack([self._known[text] for text in texts]), rows)
