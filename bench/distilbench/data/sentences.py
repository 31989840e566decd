"""Sentences on disk, in the column `text` of a parquet file: never more than some of them are in memory.

What is kept of each sentence while a text is read is eight bytes, its hash, to tell those that come twice.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

COLUMN = "text"
SCHEMA = pa.schema([(COLUMN, pa.string())])
AT_ONCE = 1 << 15
CHARACTERS_AT_ONCE = 1 << 26
BUFFER_BYTES = 1 << 20
MARKS_AT_ONCE = 1 << 20


def chunks(sentences: Iterable[str], size: int = AT_ONCE) -> Iterator[list[str]]:
    """Lists of so many sentences, the last one shorter; and of fewer where they are very long."""
    some: list[str] = []
    characters = 0
    for sentence in sentences:
        some.append(sentence)
        characters += len(sentence)
        if len(some) == size or characters >= CHARACTERS_AT_ONCE:
            yield some
            some, characters = [], 0
    if some:
        yield some


def distinct(sentences: Iterable[str]) -> Iterator[str]:
    """Each sentence where it comes first. Holds them all: for some of a text, not for all of it."""
    seen: set[str] = set()
    for sentence in sentences:
        if sentence not in seen:
            seen.add(sentence)
            yield sentence


@contextmanager
def sentence_writer(path: Path) -> Iterator[Callable[[list[str]], None]]:
    """What writes sentences into a new file, some at a time."""
    with pq.ParquetWriter(path, SCHEMA) as writer:
        yield lambda some: writer.write_table(pa.table({COLUMN: some}, schema=SCHEMA))


def stored_sentences(path: Path) -> Iterator[str]:
    """The sentences of a file, in order."""
    with pq.ParquetFile(path) as file:
        yield from (text for values in column_parts(file, COLUMN) for text in values.to_pylist())


def column_parts(file: pq.ParquetFile, column: str) -> Iterator[pa.Array]:
    """A column in parts, of which few are in memory."""
    for group in range(file.num_row_groups):
        # A reader that goes through several groups keeps memory for all of them.
        for batch in file.iter_batches(AT_ONCE, row_groups=[group], columns=[column]):
            yield batch.column(0)


def write_all(path: Path, sentences: Iterable[str]) -> NDArray[np.bool_]:
    """Write sentences into a file as they come, and tell which of them were not there before, [N]."""
    marks = array("q")
    with sentence_writer(path) as write:
        for some in chunks(sentences):
            marks.extend(map(hash, some))
            write(some)
    return ~repeated(np.frombuffer(marks, dtype=np.int64))


def repeated(marks_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some hashes were there before, [N]; looks at a share of the hashes at a time."""
    shares = len(marks_N) // MARKS_AT_ONCE + 1
    share_N = np.empty(len(marks_N), np.min_scalar_type(shares))
    np.remainder(marks_N, shares, out=share_N, casting="unsafe")
    found_N = np.zeros(len(marks_N), dtype=bool)
    for share in range(shares):
        rows = np.flatnonzero(share_N == share)
        found_N[rows] = pd.Series(marks_N[rows]).duplicated()
    return found_N
