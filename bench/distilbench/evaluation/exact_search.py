"""Exact search for mteb's retrieval tasks, in matrix products, with the ranked lists kept for the record."""

from __future__ import annotations

from typing import Any

import torch
from mteb._create_dataloaders import create_dataloader  # its rule of joining title and text is part of a score
from mteb.models.search_wrappers import SearchEncoderWrapper
from mteb.types import PromptType

QUERIES_AT_ONCE = 256

Ranked = dict[str, dict[str, float]]


class ExactSearch(SearchEncoderWrapper):  # type: ignore[misc]
    """Same lists as mteb's own exact search. `found` maps (subset, split) to query -> document -> score."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.found: dict[tuple[str, str], Ranked] = {}

    def search(self, queries: Any, *, top_ranked: Any = None, **options: Any) -> Ranked:
        """Rank the indexed corpus for each query, keeping `top_k` documents."""
        if top_ranked is not None:
            ranked: Ranked = super().search(queries, top_ranked=top_ranked, **options)
        else:
            ranked = self._rank(queries, self.task_corpus, **options)
        self.found[options["hf_subset"], options["hf_split"]] = ranked
        return ranked

    def _rank(self, queries: Any, corpus: Any, *, top_k: int, **options: Any) -> Ranked:
        documents = torch.as_tensor(self._encode(corpus, PromptType.document, **options))
        vectors = torch.as_tensor(self._encode(queries, PromptType.query, **options))
        document_ids = list(corpus["id"])
        ranked: Ranked = {}
        for names, part in zip(_chunks(list(queries["id"])), vectors.split(QUERIES_AT_ONCE), strict=True):
            scores = self.model.similarity(part, documents)
            best = torch.topk(scores, min(top_k, len(document_ids)), dim=1)
            for name, values, places in zip(names, best.values.tolist(), best.indices.tolist(), strict=True):
                ranked[name] = {document_ids[place]: value for place, value in zip(places, values, strict=True)}
        return ranked

    def _encode(
        self,
        texts: Any,
        prompt_type: PromptType,
        *,
        task_metadata: Any,
        encode_kwargs: Any,
        num_proc: Any = None,
        **_: Any,
    ) -> Any:
        loader = create_dataloader(
            texts, task_metadata=task_metadata, prompt_type=prompt_type, num_proc=num_proc, **encode_kwargs
        )
        return self.model.encode(loader, task_metadata=task_metadata, prompt_type=prompt_type)


def _chunks(names: list[str]) -> list[list[str]]:
    return [names[start : start + QUERIES_AT_ONCE] for start in range(0, len(names), QUERIES_AT_ONCE)]
