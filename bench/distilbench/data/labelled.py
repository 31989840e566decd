"""Labelled text: rows of an anchor and its candidates, for methods that learn from which texts belong together.

The texts of all columns lie in one tokenised corpus, each once; a row is a list of places in it.

corpora/<key>/            as in `distilbench.data.corpus`
              rows.npy    [R, C] where the texts of each row are
              scores.npy  [R, C - 1] scores of the candidates, where the text has some
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from distilbench.core.errors import UserError
from distilbench.core.hashes import PROTOCOL, key_of
from distilbench.data.corpus import SAMPLE_SEED, Corpus, made, open_corpus, write_corpus
from distilbench.data.stored_model import tokenizer_sha256
from distilbench.data.text import EMBEDDED, changed, check_fits, numbers, open_source, part_key, read_column
from distilbench.data.tokenizer import TextReader
from distilbench.study.sections.texts import LabelledSpec

Section = Literal["labelled", "dev"]
"""Sections of a study that name rows of texts: to train on, and to watch the students by."""


@dataclass(frozen=True)
class LabelledText:
    """R rows of C texts: an anchor, the text that fits it, and texts that fit it less."""

    corpus: Corpus
    rows_RC: NDArray[np.int64]
    scores: NDArray[np.float32] | None
    """[R, C - 1]: how well each candidate fits its anchor, as the text's own columns say."""

    @property
    def columns(self) -> int:
        """Texts in each row."""
        return int(self.rows_RC.shape[1])

    def __len__(self) -> int:
        return len(self.rows_RC)

    def sentences(self, rows_B: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """The first `count` texts of some rows, [B, count]."""
        if count > self.columns:
            raise ValueError(f"the rows of this text have {self.columns} texts, not {count}")
        return self.rows_RC[rows_B, :count]

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row's longest text, [R]."""
        longest: NDArray[np.int64] = self.corpus.lengths()[self.rows_RC].max(axis=1)
        return longest


Text = Corpus | LabelledText


@dataclass(frozen=True)
class RowsRequest:
    """A labelled text that is asked for."""

    spec: LabelledSpec
    section: Section
    """Of the study, for messages; a text to train on must fill a batch."""
    max_length: int
    """Tokens of a text, special tokens included; what is longer is cut."""
    batch_size: int
    limit: int | None
    """Most rows, for a smoke run."""
    mirror: Path | None


def labelled_key(request: RowsRequest, reader: TextReader) -> str:
    """Hash of all that decides the rows."""
    spec = request.spec
    return key_of(
        protocol=PROTOCOL,
        source=part_key(spec.source, spec, request.mirror, request.section),
        # The key of the source is also of its configuration and split.
        labelled=spec.model_dump(exclude={"source", "config", "split", "points", "evaluation_text"}),
        tokenizer=reader.tokenizer_sha256,
        prompts=[reader.prompt(side) for side in sides_of(spec)],
        max_length=request.max_length,
        limit=request.limit,
    )


def build_or_open(request: RowsRequest, reader: TextReader, key: str, cache: Path) -> LabelledText:
    """The tokenised rows that are asked for, made if they are not there yet.

    `key` is its `labelled_key`. Raises `UserError` for text that is unreadable or no longer the one that the key is of,
    and for text to train on with fewer rows than a batch.
    """
    spec = request.spec

    def make(folder: Path) -> None:
        table = _sample(spec, request.limit, _read(spec, request.mirror, request.section))
        texts, sides, rows_RC = _distinct(table[[*range(columns_of(spec))]].to_numpy(dtype=object), sides_of(spec))
        write_corpus(folder, texts, reader.tokenizer(), request.max_length, map(reader.prompt, sides))
        np.save(folder / "rows.npy", rows_RC)
        if spec.scores:
            np.save(folder / "scores.npy", table[spec.scores].to_numpy(dtype=np.float32))
        if labelled_key(request, replace(reader, tokenizer_sha256=tokenizer_sha256(reader.folder))) != key:
            raise changed(request.section, [spec.source])

    folder = made(cache, key, make)
    text = LabelledText(
        corpus=open_corpus(folder, key, spec.source),
        rows_RC=np.load(folder / "rows.npy"),
        scores=np.load(folder / "scores.npy") if spec.scores else None,
    )
    if request.section == "labelled" and len(text) < request.batch_size:
        raise UserError(
            f"labelled.source {spec.source} gives {len(text)} rows, fewer than train.batch_size {request.batch_size}; "
            "give more text or choose a smaller batch size"
        )
    return text


def columns_of(spec: LabelledSpec) -> int:
    """Texts in each row."""
    return 3 if spec.source == EMBEDDED else len(spec.columns)


def sides_of(spec: LabelledSpec) -> list[str | None]:
    """The side of each column's texts."""
    return [*spec.sides] or [None] * columns_of(spec)


def _read(spec: LabelledSpec, mirror: Path | None, section: Section) -> pd.DataFrame:
    """The texts in columns 0 to C - 1, and the scores under their names."""
    if spec.source == EMBEDDED:
        from distilbench.data.embedded.docstrings import training_triples

        return pd.DataFrame(training_triples())
    source = open_source(spec.source, spec, mirror, section)
    check_fits(source, [*spec.columns, *spec.scores], section)
    texts = pd.DataFrame({place: list(read_column(source, name, section)) for place, name in enumerate(spec.columns)})
    for column in spec.scores:
        texts[column] = numbers(source, column, section)
    return texts.drop_duplicates(ignore_index=True)


def _sample(spec: LabelledSpec, limit: int | None, table: pd.DataFrame) -> pd.DataFrame:
    sizes = (spec.rows, limit, len(table))
    wanted = min(size for size in sizes if size is not None)
    chosen = np.random.default_rng(SAMPLE_SEED).permutation(len(table))[:wanted]
    return table.iloc[np.sort(chosen)]


def _distinct(
    texts_RC: NDArray[np.object_], sides: list[str | None]
) -> tuple[list[str], list[str | None], NDArray[np.int64]]:
    """The distinct texts of each side with their sides, and where those of each row are among them."""
    numbers = [sides.index(side) for side in sides]
    keys: dict[tuple[str, int], int] = {}
    places = np.empty(texts_RC.shape, dtype=np.int64)
    for row, column in np.ndindex(texts_RC.shape):
        places[row, column] = keys.setdefault((str(texts_RC[row, column]), numbers[column]), len(keys))
    return [text for text, _ in keys], [sides[number] for _, number in keys], places
