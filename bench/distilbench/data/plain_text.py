"""The sentences that a study trains on: read, sampled and tokenised, with or without some of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distilbench.core.errors import UserError
from distilbench.core.hashes import PROTOCOL, key_of
from distilbench.data.corpus import SAMPLE_SEED, Corpus, made, open_corpus, texts_of, write_corpus
from distilbench.data.sentences import stored_sentences, write_all
from distilbench.data.stored_model import tokenizer_sha256
from distilbench.data.text import changed, read_sentences, source_key, source_names
from distilbench.data.tokenizer import TextReader
from distilbench.study.sections.texts import TextSpec


@dataclass(frozen=True)
class TextRequest:
    """A plain text that is asked for."""

    spec: TextSpec
    max_length: int
    """Tokens of a sentence, special tokens included; what is longer is cut."""
    batch_size: int
    """A text of fewer sentences is refused."""
    limit: int | None
    """Most sentences, for a smoke run."""
    mirror: Path | None


def corpus_key(request: TextRequest, reader: TextReader) -> str:
    """Hash of all that decides the tokens."""
    return key_of(
        protocol=PROTOCOL,
        text=source_key(request.spec, request.mirror),
        tokenizer=reader.tokenizer_sha256,
        prompt=reader.prompt(request.spec.side),
        max_length=request.max_length,
        limit=request.limit,
    )


def build_or_open(request: TextRequest, reader: TextReader, key: str, cache: Path) -> Corpus:
    """The tokenised text that is asked for, made if it is not there yet.

    `key` is its `corpus_key`. Raises `UserError` for text that is unreadable, has fewer sentences than a batch, or is
    no longer the one that the key is of.
    """

    def make(folder: Path) -> None:
        everything = folder / "everything.parquet"
        wanted_N = _sample(request, write_all(everything, read_sentences(request.spec, request.mirror)))
        _check_size(request, int(wanted_N.sum()))
        sentences = compress(stored_sentences(everything), wanted_N)
        write_corpus(folder, sentences, reader.tokenizer(), request.max_length, reader.prompt(request.spec.side))
        everything.unlink()
        if corpus_key(request, replace(reader, tokenizer_sha256=tokenizer_sha256(reader.folder))) != key:
            raise changed("text", source_names(request.spec))

    folder = made(cache, key, make)
    corpus = open_corpus(folder, key, ", ".join(source_names(request.spec)))
    # Also of a text that was there: how it is cut into batches is no part of its key.
    _check_size(request, len(corpus))
    return corpus


def without(
    request: TextRequest, reader: TextReader, key: str, rows: NDArray[np.int64], count: int, cache: Path
) -> tuple[str, Callable[[], Corpus]]:
    """A text of `count` sentences without some of them: its key, and how to make or open it.

    Opening raises `UserError` when fewer sentences than a batch are left.
    """
    if not len(rows):
        raise ValueError("a text without nothing is itself")
    shorter = key_of(text=key, without=hashlib.sha256(rows.tobytes()).hexdigest())

    def make(folder: Path) -> None:
        left_N = np.ones(count, dtype=bool)
        left_N[rows] = False
        _check_size(request, int(left_N.sum()), f"after {len(rows)} that are evaluation text were left out, ")
        left = compress(texts_of(cache, key), left_N)
        write_corpus(folder, left, reader.tokenizer(), request.max_length, reader.prompt(request.spec.side))

    def open_it() -> Corpus:
        corpus = open_corpus(made(cache, shorter, make), shorter, ", ".join(source_names(request.spec)))
        # Also of a text that was there: how it is cut into batches is no part of its key.
        _check_size(request, len(corpus), f"after {len(rows)} that are evaluation text were left out, ")
        return corpus

    return shorter, open_it


def _sample(request: TextRequest, distinct_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the sentences the text is made of, [N]."""
    count = int(distinct_N.sum())
    wanted = min(size for size in (request.spec.sentences, request.limit, count) if size is not None)
    if wanted == count:
        return distinct_N
    # The same prefix of one permutation for every size, so that a larger sample contains the smaller one.
    chosen = np.random.default_rng(SAMPLE_SEED).permutation(count)[:wanted]
    wanted_N = np.zeros(len(distinct_N), dtype=bool)
    wanted_N[np.flatnonzero(distinct_N)[chosen]] = True
    return wanted_N


def _check_size(request: TextRequest, count: int, before: str = "") -> None:
    if count >= request.batch_size:
        return
    source = f"text.source {', '.join(source_names(request.spec))}"
    what, cure = f"{source} has {count} distinct sentences", "give more text"
    for option, size in (("--limit", request.limit), ("text.sentences", request.spec.sentences)):
        if size == count:
            what, cure = f"{option} {count} takes {count} sentences of {source}", f"raise {option}"
    raise UserError(
        f"{before}{what}, fewer than train.batch_size {request.batch_size}; {cure} or choose a smaller batch size"
    )
