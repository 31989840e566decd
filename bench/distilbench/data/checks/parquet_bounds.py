"""Parquet that is far larger unpacked than it lies on disk: measured page by page before any page is unpacked.

A page says how many bytes it becomes. A text that repeats lies in a dictionary, and is read so: a number for each row.
Every fault is a `ValueError` that names rows and column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distilbench.core.bounds import CELL_BYTES, LONGEST_LINE, check_table_size, largest_table
from distilbench.data.checks.parquet_pages import pages
from distilbench.data.sentences import AT_ONCE, BUFFER_BYTES

LARGEST_PAGE = 2**28
LARGEST_CHUNK = 2**29
"""Bytes of a column in a row group of the Hub, where looking at each page would fetch all of them."""
BATCH_BYTES = 2**27
MOST_VALUES = 2**16
"""Of a list in a row, on average; a vector is shorter."""
BATCH_VALUES = 2**24
MANY = 2**24
"""Rows from which on a file is looked at for having too many."""
SHARING = "DELTA_BYTE_ARRAY"
ROWS_PER_BYTE = 16
VALUES_PER_BYTE = 1000


@dataclass(frozen=True)
class BoundedParquet:
    """An open file whose row groups are read in batches that memory holds."""

    file: pq.ParquetFile
    path: Path | None
    """None of a file on the Hub."""

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return list(self.file.schema_arrow.names)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of some columns, at most some thousand at once. Text is dictionaries, in lists too."""
        before = 0
        self._check_rows()
        for group, (at_once, _) in enumerate(self._groups(columns)):
            # A reader that goes through several groups keeps memory for all of them.
            for batch in self.file.iter_batches(at_once, row_groups=[group], columns=list(columns)):
                for name, values in zip(batch.schema.names, batch.columns, strict=True):
                    _check_cells(name, values, before)
                before += len(batch)
                yield batch

    def check_fits(self, columns: Sequence[str]) -> None:
        """Raise where some columns are too large for this machine's memory, all of their rows together."""
        self._check_rows()
        if sum(most for _, most in self._groups(columns)) <= largest_table():
            # Most files need no closer look.
            return
        size = 0
        for batch in self.batches(columns):
            size += sum(map(_decoded_bytes, batch.columns))
            check_table_size(size)

    def _check_rows(self) -> None:
        meta = self.file.metadata
        stored = sum(
            meta.row_group(group).column(place).total_compressed_size
            for group in range(meta.num_row_groups)
            for place in range(meta.num_columns)
        )
        if meta.num_rows > max(MANY, ROWS_PER_BYTE * stored):
            raise ValueError(f"has {meta.num_rows} rows in {stored} bytes, which no texts have; write it anew")

    def _chunks(self, group: int, columns: Sequence[str]) -> list[Any]:
        meta = self.file.metadata.row_group(group)
        chunks = [meta.column(place) for place in range(meta.num_columns)]
        return [chunk for chunk in chunks if _is_within(chunk.path_in_schema, columns)]

    def _groups(self, columns: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Of each row group, how many rows to read at once, and the most bytes that its values can take."""
        before = 0
        for group in range(self.file.num_row_groups):
            rows, at_once, most = self.file.metadata.row_group(group).num_rows, AT_ONCE, 0
            where = f"rows {before + 1} to {before + rows}" if rows > 1 else f"row {before + 1}"
            for chunk in self._chunks(group, columns):
                name = f"{where}, column {chunk.path_in_schema!r}"
                values = -(-chunk.num_values // max(1, rows))
                dense = chunk.num_values > max(BATCH_VALUES, VALUES_PER_BYTE * chunk.total_compressed_size)
                if values > MOST_VALUES or (values > 1 and dense):
                    raise ValueError(
                        f"{name}: has {chunk.num_values} values in lists; shorten the lists, or leave them out"
                    )
                mean, longest = self._value_bytes(chunk, name)
                at_once = max(1, min(at_once, BATCH_VALUES // max(1, values), BATCH_BYTES // max(1, mean * values)))
                most += chunk.num_values * max(CELL_BYTES, longest)
            before += rows
            yield at_once, most

    def _value_bytes(self, chunk: Any, name: str) -> tuple[int, int]:
        """Bytes of a value in the page where they are longest on average, and of the longest that there can be."""
        if self.path is None:
            if chunk.total_uncompressed_size > LARGEST_CHUNK:
                raise ValueError(
                    f"{name}: unpacks to {chunk.total_uncompressed_size} bytes; run distilbench prefetch, and read it "
                    "from the mirror"
                )
            size = int(chunk.total_uncompressed_size)
            return size // max(1, chunk.num_values), size
        mean = largest = 0
        for page in pages(self.path, chunk):
            if page.size > LARGEST_PAGE:
                raise ValueError(
                    f"{name}: a part of it unpacks to {page.size} bytes, more than {LARGEST_PAGE}; shorten what is so "
                    "long, or leave it out"
                )
            mean, largest = max(mean, page.size // max(1, page.values)), max(largest, page.size)
        # Of a text that begins like the one before it, or lies in a dictionary, that much is not stored.
        shared = SHARING in chunk.encodings or (chunk.has_dictionary_page and not _can_be_dictionary(chunk))
        return (largest if shared else mean), largest


@contextmanager
def opened_parquet(source: Path | IO[bytes], columns: Iterable[str] | None = None) -> Iterator[BoundedParquet]:
    """A file, or a stream of the Hub. Text in some columns, or in all, is read as dictionaries."""
    wanted = None if columns is None else list(columns)
    # Without a buffer, a column of a whole row group were read at once.
    with pq.ParquetFile(source, buffer_size=BUFFER_BYTES) as file:
        leaves = [file.schema.column(place) for place in range(len(file.schema))]
        groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
        texts = [
            leaf.path
            for place, leaf in enumerate(leaves)
            if _is_text(leaf)
            and _is_within(leaf.path, wanted)
            and all(_can_be_dictionary(group.column(place)) for group in groups)
        ]
        if not texts:
            yield BoundedParquet(file, source if isinstance(source, Path) else None)
            return
        if not isinstance(source, Path):
            source.seek(0)
        with pq.ParquetFile(source, buffer_size=BUFFER_BYTES, read_dictionary=texts) as in_dictionaries:
            yield BoundedParquet(in_dictionaries, source if isinstance(source, Path) else None)


def values_of(part: pa.Array) -> list[Any]:
    """The values of a batch's column; of a text that repeats, one copy for all rows."""
    if not pa.types.is_dictionary(part.type):
        return list(part.to_pylist())
    distinct, places = distinct_texts(part)
    texts = distinct.to_pylist()
    return [None if place is None else texts[place] for place in places.to_pylist()]


def distinct_texts(part: pa.DictionaryArray) -> tuple[pa.Array, pa.Array]:
    """The texts that the rows of a batch have, each once, and the place of each row's among them.

    The dictionary itself is of all batches so far: whoever went through it for each would read a file in a time that
    grows with the square of its rows.
    """
    rows = part.indices.dictionary_encode()
    return part.dictionary.take(rows.dictionary), rows.indices


def _is_text(leaf: Any) -> bool:
    return bool(leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type != "DECIMAL")


def _can_be_dictionary(chunk: Any) -> bool:
    """Whether pyarrow can read what is stored so as a dictionary."""
    return not any(encoding.startswith("DELTA") for encoding in chunk.encodings)


def _is_within(path: str, columns: Sequence[str] | None) -> bool:
    """Whether a leaf belongs to one of some columns, whose names may have dots."""
    return columns is None or any(path == name or path.startswith(f"{name}.") for name in columns)


def _check_cells(name: str, values: pa.Array, before: int) -> None:
    in_dictionary = pa.types.is_dictionary(values.type)
    if not _is_of_bytes(values.type.value_type if in_dictionary else values.type):
        return
    lengths = _text_lengths(values) if in_dictionary else pc.binary_length(values)
    lengths_N = np.asarray(lengths.fill_null(0))
    if len(long := np.flatnonzero(lengths_N > LONGEST_LINE)):
        row, size = before + int(long[0]) + 1, lengths_N[long[0]]
        raise ValueError(f"row {row}, column {name!r}: has {size} bytes, more than {LONGEST_LINE}; leave it out")


def _text_lengths(values: pa.DictionaryArray) -> pa.Array:
    """Bytes of each row's text."""
    texts, places = distinct_texts(values)
    return pc.binary_length(texts).take(places)


def _is_of_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    texts = types.is_string(kind) or types.is_large_string(kind)
    return bool(texts or types.is_binary(kind) or types.is_large_binary(kind))


def _decoded_bytes(values: pa.Array) -> int:
    """Bytes that some values take when each has its text for itself."""
    if pa.types.is_dictionary(values.type) and _is_of_bytes(values.type.value_type):
        return int(pc.sum(_text_lengths(values)).as_py() or 0) + CELL_BYTES * len(values)
    if pa.types.is_struct(values.type):
        return sum(_decoded_bytes(part) for part in values.flatten())
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or pa.types.is_fixed_size_list(values.type):
        return CELL_BYTES * len(values) + _decoded_bytes(values.flatten())
    return max(int(values.nbytes), CELL_BYTES * len(values))
