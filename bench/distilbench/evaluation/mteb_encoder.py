"""The encoder that mteb sees: distinct texts once, in length order, and never under another model's name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType
from numpy.typing import NDArray

from distilbench.data.tokens import TokenCache, Tokens, tokenised
from distilbench.evaluation.collapse import check_vectors
from distilbench.models.embed import batches, embed_tokens
from distilbench.models.encoder import Encoder
from distilbench.study.sections.training import Precision

SIMILARITIES = {"cosine": ScoringFunction.COSINE, "dot": ScoringFunction.DOT_PRODUCT}


def prompt_of(model: Encoder, task: TaskMetadata, side: PromptType | None) -> str:
    """What mteb and sentence-transformers between them put before the texts of a task, or of one of its sides.

    The prompt named after task and side, the task, its type and side, its type, or the side; without a side, else the
    model's default one.
    """
    name = get_prompt_name(model.prompts, task, side)
    if name is None:
        return model.default_prompt if side is None else ""
    return model.prompts[name]


def in_precision(model: Encoder, precision: Precision) -> Encoder:
    """The model, its transformer in the precision of an evaluation; its head stays in float32."""
    if precision == "bf16":
        model.backbone.to(torch.bfloat16)
    return model


def meta_of(name: str, revision: str, **more: Any) -> ModelMeta:
    """What mteb is told of a model. `revision` must identify all that decides its vectors."""
    known = {"similarity_fn_name": ScoringFunction.COSINE, "modalities": ["text"]}
    return ModelMeta.create_empty(overwrites={"name": f"distilbench/{name}", "revision": revision, **known, **more})


class BenchEncoder(AbsEncoder):  # type: ignore[misc]
    """An encoder under mteb's protocol. `revision` must identify weights, tokenizer and structure."""

    def __init__(
        self, model: Encoder, tokenizer: Any, name: str, revision: str, token_cache: TokenCache | None = None
    ) -> None:
        self.model = model
        self._tokenizer, self._token_cache = tokenizer, token_cache
        self._known: dict[str, NDArray[np.float32]] = {}
        self.mteb_model_meta = meta_of(
            name,
            revision,
            similarity_fn_name=SIMILARITIES[model.similarity],
            embed_dim=model.output_width(),
            max_tokens=model.max_length,
        )

    def encode(
        self, inputs: Any, *, task_metadata: TaskMetadata, prompt_type: PromptType | None = None, **_: Any
    ) -> NDArray[np.float32]:
        """Vectors of all texts of a data loader, [texts, width], float32, with the prompt of their side before each.

        Texts seen before are not run again. Raises `CollapseError` for vectors that are not finite, or the same for
        different texts.
        """
        before = prompt_of(self.model, task_metadata, prompt_type)
        # Row by row, as the loader would give them, they come ten times as slowly.
        texts = [before + text for text in inputs.dataset["text"]]
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            self._embed(new)
        return np.stack([self._known[text] for text in texts])

    def tokens(self, texts: list[str]) -> Tokens:
        """Token ids of texts, special ones included, cut at the model's maximum length."""
        how = self._token_cache.tokenised if self._token_cache else tokenised
        return how(self._tokenizer, texts, self.model.max_length)

    def batches(self, lengths_N: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Which texts pass the model together, by their numbers of tokens."""
        return batches(lengths_N, self.model.device)

    def _embed(self, texts: list[str]) -> None:
        tokens = self.tokens(texts)
        vectors = embed_tokens(self.model, self._tokenizer, tokens, self.batches(tokens.lengths()))
        check_vectors(vectors, tokens)
        self._known.update(zip(texts, vectors, strict=True))
