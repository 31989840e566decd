"""Text files of a data set, compressed or not, that are too large for the library which reads them: refused before.

It reads some thousand rows at once, and a line of any length. So the files are gone through first, little by little.
Every fault is a `ValueError`.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from io import BufferedReader, RawIOBase, TextIOWrapper
from pathlib import Path
from typing import IO, Any, cast

from distilbench.core.bounds import LONGEST_LINE, Lines
from distilbench.core.tables import FIELD_LIMIT

LONGEST_JSON = 2**28
"""Bytes of a line that may hold all rows of a file."""
BLOCK_LINES, BLOCK_BYTES = 10_000, 2**29
"""So many lines, which may be read at once, have at most so many bytes together."""
AT_ONCE = 2**20
LARGEST_WINDOW = 2**28
"""Bytes that unpacking may take for itself."""


def check_unpacked(path: Path, kind: str, source: IO[bytes] | None = None) -> int:
    """Bytes of a text file, unpacked where it is compressed; `kind` is csv, json or text.

    `source` gives what is in it where the path is no file of this machine. Raises for a line that is too long, and of
    CSV for a row.
    """
    total = 0
    with ExitStack() as stack:
        packed = stack.enter_context(path.open("rb") if source is None else source)
        for name, stream in _unpacked(packed, path.suffix, stack):
            try:
                total += _row_sizes(stream) if kind == "csv" else _line_sizes(stream, kind)
            except (ValueError, EOFError, OSError) as error:
                raise ValueError(f"{name}{error}") from None
    return total


def _unpacked(packed: IO[bytes], ending: str, stack: ExitStack) -> Iterator[tuple[str, IO[bytes]]]:
    """The streams in a file, each with what names it in a sentence."""
    if ending == ".zip":
        archive = stack.enter_context(zipfile.ZipFile(packed))
        for name in archive.namelist():
            yield f"{name} in it: ", stack.enter_context(archive.open(name))
    elif ending == ".xz":
        yield "", cast(IO[bytes], BufferedReader(_Xz(packed), AT_ONCE))
    elif ending == ".zst":
        import pyarrow as pa

        yield "", stack.enter_context(pa.input_stream(packed, compression="zstd"))
    else:
        opener: Any = {".gz": gzip.open, ".bz2": bz2.open}.get(ending)
        yield "", packed if opener is None else stack.enter_context(opener(packed, "rb"))


class _Xz(RawIOBase):
    """Unpacks without taking the memory that a file asks for, which `lzma.open` would."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._unpack = stream, lzma.LZMADecompressor(memlimit=LARGEST_WINDOW)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = b""
        while not found:
            if self._unpack.eof:
                # A file may be several of them, one after the other.
                rest = self._unpack.unused_data.lstrip(b"\0") or self._stream.read(AT_ONCE).lstrip(b"\0")
                if not rest:
                    return 0
                self._unpack = lzma.LZMADecompressor(memlimit=LARGEST_WINDOW)
            else:
                rest = self._stream.read(AT_ONCE) if self._unpack.needs_input else b""
                if self._unpack.needs_input and not rest:
                    raise EOFError("its end is missing")
            try:
                found = self._unpack.decompress(rest, len(buffer))
            except lzma.LZMAError as error:
                raise ValueError(f"it cannot be unpacked ({error})") from None
        buffer[: len(found)] = found
        return len(found)


def _line_sizes(stream: IO[bytes], kind: str) -> int:
    longest = LONGEST_JSON if kind == "json" else LONGEST_LINE
    total, number, used, block = 0, 1, 0, 0
    while chunk := stream.read(AT_ONCE):
        total += len(chunk)
        for place, part in enumerate(chunk.split(b"\n")):
            number += place > 0
            used = len(part) + (0 if place else used)
            block = len(part) + (0 if place and number % BLOCK_LINES == 0 else block)
            if used > longest:
                raise ValueError(f"line {number} is longer than {longest} bytes; break it up, or take it out")
            _check_block(block, f"line {number}")
    return total


def _row_sizes(stream: IO[bytes]) -> int:
    csv.field_size_limit(FIELD_LIMIT)
    before = 0
    # A character for each byte: what they mean is for others to say.
    with TextIOWrapper(cast(Any, stream), encoding="latin-1", newline="") as text:
        bounded = Lines(text)
        try:
            for number, _ in enumerate(csv.reader(bounded), start=1):
                bounded.begin_row()
                if number % BLOCK_LINES == 0:
                    _check_block(bounded.characters - before, f"row {number}")
                    before = bounded.characters
        except csv.Error as error:
            raise ValueError(f"is no CSV ({error})") from None
    _check_block(bounded.characters - before, "the end")
    return bounded.characters


def _check_block(size: int, before: str) -> None:
    if size > BLOCK_BYTES:
        raise ValueError(
            f"the {BLOCK_LINES} rows before {before} have more than {BLOCK_BYTES} bytes together; break them up, or "
            "take them out"
        )
