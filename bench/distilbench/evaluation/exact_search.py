"""Exact search for mteb's retrieval tasks, in matrix products, with the ranked lists kept for the record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mteb._create_dataloaders import create_dataloader  # its rule of joining title and text is part of a score
from mteb.models.search_wrappers import SearchEncoderWrapper
from mteb.types import PromptType
from torch import Tensor

from distilbench.evaluation.vectors.centred import centred, mean_of, unit

QUERIES_AT_ONCE = 256
CENTRED_DOCUMENTS = 100

Ranked = dict[str, dict[str, float]]


class ExactSearch(SearchEncoderWrapper):  # type: ignore[misc]
    """Same lists as mteb's own exact search. `found` maps (subset, split) to query -> document -> score."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.found: dict[tuple[str, str], Ranked] = {}
        self.centred: dict[tuple[str, str], Ranked] = {}
        """Likewise, of the first `CENTRED_DOCUMENTS` by vectors less the documents' mean; not of candidate lists."""
        self.mean_lengths: dict[tuple[str, str], float] = {}
        """(subset, split) -> length of the mean of the documents' unit vectors."""

    def search(self, queries: Any, *, top_ranked: Any = None, **options: Any) -> Ranked:
        """Rank the indexed corpus for each query, keeping `top_k` documents."""
        if top_ranked is not None:
            ranked: Ranked = super().search(queries, top_ranked=top_ranked, **options)
        else:
            ranked = self._rank(queries, self.task_corpus, **options)
        self.found[options["hf_subset"], options["hf_split"]] = ranked
        return ranked

    def _rank(self, queries: Any, corpus: Any, *, top_k: int, **options: Any) -> Ranked:
        documents = self._encode(corpus, PromptType.document, **options)
        vectors = self._encode(queries, PromptType.query, **options)
        ids, names = list(corpus["id"]), list(queries["id"])
        near = unit(documents)
        mean = mean_of(near)
        at = options["hf_subset"], options["hf_split"]
        self.mean_lengths[at] = float(np.linalg.norm(mean))
        index = torch.from_numpy(centred(near, mean)).T
        around = torch.from_numpy(centred(unit(vectors), mean))
        self.centred[at] = _best(lambda part: part @ index, around, names, ids, min(top_k, CENTRED_DOCUMENTS))
        found = torch.as_tensor(documents)
        return _best(lambda part: self.model.similarity(part, found), torch.as_tensor(vectors), names, ids, top_k)

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


def _best(
    similarity: Callable[[Tensor], Tensor], queries_QS: Tensor, names: list[str], ids: list[str], top_k: int
) -> Ranked:
    """The most similar documents of each query, as many as are asked for and there are."""
    ranked: Ranked = {}
    parts = zip(range(0, len(names), QUERIES_AT_ONCE), queries_QS.split(QUERIES_AT_ONCE), strict=True)
    for start, part_QS in parts:
        best = torch.topk(similarity(part_QS), min(top_k, len(ids)), dim=1)
        chunk = zip(names[start : start + QUERIES_AT_ONCE], best.values.tolist(), best.indices.tolist(), strict=True)
        for name, values, places in chunk:
            ranked[name] = {ids[place]: value for place, value in zip(places, values, strict=True)}
    return ranked
