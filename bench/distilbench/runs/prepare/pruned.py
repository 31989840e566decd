"""The model that students start from, with the token vectors that a text needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distilbench.core.cache import find_or_make
from distilbench.core.hashes import PROTOCOL, key_of
from distilbench.models.model_folder import StoredModel
from distilbench.models.vocabulary import write_pruned
from distilbench.runs.prepare.texts import PlainText


def pruned(model: StoredModel, text: PlainText, size: int, cache: Path) -> StoredModel:
    """The model with at most `size` token vectors, made if it is not there yet; `text` is as the whole model reads it.

    Raises `UserError` where the tokenizer cannot be pruned to that.
    """
    corpus = text.corpus

    def write(folder: Path) -> None:
        write_pruned(model, np.bincount(corpus.tokens), size, folder)

    # The card of the model is written with it.
    card = model.folder / "README.md"
    stated = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else None
    key = key_of(protocol=PROTOCOL, model=model.hashes(), text=corpus.key, vocabulary=size, card=stated)
    return StoredModel(model.name, find_or_make(cache / "pruned" / key, write, "the pruned model"))
