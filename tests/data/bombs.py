"""Small files that stand for large ones, or promise them: of every format that users' data may have."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ZEROS = bytes(2**24)
LARGE = 2**31
LONG = "x" * 90_000
"""A text that is allowed."""
ROWS = 10**6


def packers() -> dict[str, Callable[[bytes], bytes]]:
    """Ending -> what packs bytes; what it packs may be repeated."""

    def zst(content: bytes) -> bytes:
        return bytes(pa.Codec("zstd").compress(content, asbytes=True))

    return {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zst}


def packed(path: Path, first: bytes, then: bytes = ZEROS, total: int = LARGE) -> None:
    """Write a beginning, and something that repeats until it is so large; packed as the path's ending says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(path.stem, "w") as stream:
            stream.write(first)
            for _ in range(total // len(then)):
                stream.write(then)
        return
    pack = packers()[path.suffix]
    path.write_bytes(pack(first) + pack(then) * (total // len(then)))


def sparse(path: Path, first: bytes, total: int = LARGE) -> None:
    """Write a beginning, and zeros up to a size, for which no disk is needed."""
    with path.open("wb") as stream:
        stream.write(first)
        stream.truncate(total)


def large_cell(path: Path, columns: dict[str, list[str]], size: int) -> None:
    """A table whose first column begins with a cell of so many bytes."""
    name, *_ = columns
    values = {**columns, name: ["x" * size, *columns[name][1:]]}
    pq.write_table(pa.table(values), path, compression="zstd", use_dictionary=False, write_statistics=False)


def repeated_cell(path: Path, names: list[str], text: str = LONG, rows: int = ROWS) -> None:
    """A table whose texts are all one text, which lies there once."""
    values = pa.DictionaryArray.from_arrays(np.zeros(rows, dtype=np.int32), pa.array([text]))
    pq.write_table(pa.table(dict.fromkeys(names, values)), path, compression="zstd")


def many_rows(path: Path, name: str, rows: int = 2**24 + 1) -> None:
    """A table of rows without anything in them."""
    pq.write_table(pa.table({name: pa.nulls(rows, pa.string())}), path)


def long_list(path: Path, name: str, count: int = 2**25) -> None:
    """A table of one row, with a vector of so many zeros."""
    vectors = pa.ListArray.from_arrays([0, count], pa.array(np.zeros(count, dtype=np.float32)))
    pq.write_table(pa.table({"text": ["a"], name: vectors}), path, compression="zstd")


def deep(path: Path, name: str, depth: int = 2**20) -> None:
    """A line of lists within lists."""
    path.write_text(f'{{"{name}": "a", "more": {"[" * depth}{"]" * depth}}}\n')


def many_keys(path: Path, name: str, rows: int = 20_000) -> None:
    """Lines of which each brings a key of its own: a table of as many columns as rows."""
    path.write_text("".join(f'{{"{name}": "a", "key{row}": 1}}\n' for row in range(rows)))


def short_rows(path: Path, names: list[str], columns: int = 9_000, rows: int = 2**15) -> None:
    """A wide header above rows of one cell, each of which a table fills up."""
    header = ",".join([*names, *(f"c{column}" for column in range(columns))])
    path.write_text(f"{header}\n" + "a\n" * rows)


def open_quote(path: Path, name: str, rows: int = 2**15) -> None:
    """A quotation mark that nothing closes, so that all lines are one row."""
    path.write_text(f'{name},b\n"' + f"{'text' * 250}\n" * rows)


def many_cells(path: Path, name: str, rows: int = 2**15) -> None:
    """Quoted fields with line breaks between them: one row, with no line that is long."""
    path.write_text(f"{name}\n" + f'"{"text" * 250}\n",' * rows)


def promised_rows(path: Path, rows: int = 10**12) -> None:
    """A .npy head that promises rows which are not there."""
    with path.open("wb") as stream:
        head = {"descr": "<f4", "fortran_order": False, "shape": (rows, 384)}
        np.lib.format.write_array_header_1_0(stream, head)
        stream.write(bytes(4 * 384))


def long_head(path: Path) -> None:
    """A .npy head of gigabytes."""
    sparse(path, np.lib.format.MAGIC_PREFIX + b"\2\0" + (2**31).to_bytes(4, "little"), 2**31 + 12)


def long_weights_head(path: Path) -> None:
    """A .safetensors head of gigabytes."""
    sparse(path, (2**31).to_bytes(8, "little") + b"{", 2**31 + 8)


def text_bombs(folder: Path) -> Iterator[Path]:
    """Files with a column, or lines, of text. Each is to be refused as a source of any section of a study."""
    sparse(folder / "line.txt", b"fine\n")
    sparse(folder / "line.csv", b"text,label\nfine,1\n")
    sparse(folder / "line.tsv", b"text\tlabel\nfine\t1\n")
    sparse(folder / "line.jsonl", b'{"text": "fine", "label": 1}\n')
    large_cell(folder / "page.parquet", {"text": ["", "b"], "label": ["1", "2"]}, 2**28 + 1)
    large_cell(folder / "cell.parquet", {"text": ["", "b"], "label": ["1", "2"]}, 2**24 + 1)
    repeated_cell(folder / "repeated.parquet", ["text", "label"], "x" * (2**24 + 1))
    many_rows(folder / "rows.parquet", "text")
    deep(folder / "deep.jsonl", "text")
    open_quote(folder / "quote.csv", "text")
    many_cells(folder / "cells.csv", "text")
    return iter(sorted(folder.iterdir()))
