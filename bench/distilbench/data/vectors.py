"""Vectors that lie in files, found by the text that each is of: what an API returned, or `distilbench encode` wrote.

FILE.parquet, or a folder of them   a column of texts, one of vectors, and perhaps one of sides (null: of none)
FILE.npy, or a folder of one        [N, width]; line n of FILE.jsonl beside it has the text of row n, and perhaps a side

vectors/<key>/values.npy   [N, width] float32, in the cache
              keys.npy     uint64 [N, 2], the first half of the SHA-256 of each text's UTF-8 and of its side
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distilbench.core.bounds import lines, no_file
from distilbench.core.cache import find_or_make
from distilbench.core.errors import UserError, one_of
from distilbench.core.hashes import PROTOCOL, file_sha256, key_of
from distilbench.data.checks.parquet_bounds import opened_parquet, values_of
from distilbench.data.sentences import AT_ONCE, chunks
from distilbench.study.sections.models import TeacherSpec

KEY_BYTES = 16
WIDEST = 2**16
"""Numbers of a vector."""
NUMBERS_AT_ONCE = 2**25
LONGEST_HEAD = 10_000
"""Bytes of the head of a .npy file, as numpy has it."""
SidedText = tuple[str, str | None]
"""A text, and the side of a search that it is on."""
Batch = tuple[list[Any], list[Any], NDArray[Any]]
"""Texts, their sides or None, and their vectors, [B, width]."""


def text_key(text: str, side: str | None) -> bytes:
    """What a vector is found by: the text alone, or with its side."""
    # As texts are read: any white space is one blank.
    digest = hashlib.sha256(" ".join(text.split()).encode("utf-8", "surrogatepass"))
    if side is not None:
        digest.update(b"\0" + side.encode())
    return digest.digest()[:KEY_BYTES]


@dataclass(frozen=True)
class TextVectors:
    """The vectors of some files, mapped from the cache."""

    source: str
    sha256: str
    """Of the files' content."""
    columns: tuple[str, str, str | None]
    """Of texts, vectors and sides."""
    values_NW: NDArray[np.float32]
    keys_N2: NDArray[np.uint64]

    @property
    def has_sides(self) -> bool:
        return self.columns[2] is not None

    @property
    def width(self) -> int:
        return int(self.values_NW.shape[1])

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self.keys_N2[:, 0], kind="stable")

    def rows_of(self, texts: Iterable[SidedText]) -> NDArray[np.int64]:
        """Where the vectors of some texts are, -1 where there is none; sides count where the files have some."""
        raw = b"".join(text_key(text, side if self.has_sides else None) for text, side in texts)
        asked_T2 = np.frombuffer(raw, dtype=np.uint64).reshape(-1, 2)
        sorted_N = self.keys_N2[self._order, 0]
        places_T = np.searchsorted(sorted_N, asked_T2[:, 0]).clip(max=len(sorted_N) - 1)
        rows_T = self._order[places_T]
        there_T = (self.keys_N2[rows_T] == asked_T2).all(axis=1)
        return np.where(there_T, rows_T, -1)


def open_vectors(spec: TeacherSpec, cache: Path) -> TextVectors:
    """The vectors that a study names. Raises `UserError` for files that are not there, or say nothing clear."""
    files = _files(spec)
    try:
        sha256 = key_of(files=[file_sha256(path) for path in files])
    except OSError as error:
        raise UserError(f"{_named(spec)}: {error.filename} cannot be read ({error.strerror}); write it anew") from None
    columns = (spec.text, spec.vector, spec.side)
    key = key_of(protocol=PROTOCOL, sha256=sha256, columns=columns)
    folder = find_or_make(cache / "vectors" / key, lambda path: _write(path, spec, files), "the vectors")
    return TextVectors(
        source=str(spec.vectors),
        sha256=sha256,
        values_NW=np.load(folder / "values.npy", mmap_mode="r"),
        keys_N2=np.load(folder / "keys.npy", mmap_mode="r"),
        columns=columns,
    )


def _named(spec: TeacherSpec) -> str:
    return f"teacher.vectors {spec.vectors}"


def _files(spec: TeacherSpec) -> list[Path]:
    path = Path(str(spec.vectors)).expanduser()
    if path.is_dir():
        if files := sorted(path.glob("*.parquet")):
            return files
        tables = list(path.glob("*.npy"))
        if len(tables) != 1:
            raise UserError(f"teacher.vectors {path} has neither .parquet files nor one .npy file; give one with some")
        path = tables[0]
    if not path.is_file():
        raise UserError(f"teacher.vectors: {no_file(path)}; give a file, or a folder of .parquet files")
    if path.suffix == ".npy":
        texts = path.with_suffix(".jsonl")
        if not texts.is_file():
            raise UserError(f"teacher.vectors {path} has no {texts.name} beside it; give one with a text for each row")
        return [path, texts]
    if path.suffix != ".parquet":
        raise UserError(f"teacher.vectors {path} is neither .parquet nor .npy; give a file of one of these kinds")
    return [path]


def _write(folder: Path, spec: TeacherSpec, files: list[Path]) -> None:
    keys = bytearray()
    width: int | None = None
    raw = folder / "values.raw"
    with raw.open("wb") as stream:
        for texts, sides, values in _batches(spec, files):
            before = len(keys) // KEY_BYTES
            for row, (text, side) in enumerate(zip(texts, sides, strict=True), before + 1):
                if not isinstance(text, str) or not isinstance(side, str | None):
                    raise UserError(f"{_named(spec)}: row {row} has no text, or a side that is no text; mend it")
                keys += text_key(text, side)
            if width not in (None, values.shape[1]):
                raise UserError(
                    f"{_named(spec)} has vectors of {width} and of {values.shape[1]} numbers; give all one width"
                )
            width = values.shape[1]
            with np.errstate(over="ignore"):
                values = np.ascontiguousarray(values, dtype=np.float32)
            if not np.isfinite(values).all():
                row = before + 1 + int((~np.isfinite(values)).any(axis=1).argmax())
                raise UserError(f"{_named(spec)}: the vector of row {row} is not finite; leave it out")
            values.tofile(stream)
    if not keys or not width:
        raise UserError(f"{_named(spec)} has no vectors; give a file with some")
    keys_N2 = np.frombuffer(keys, dtype=np.uint64).reshape(-1, 2)
    values_NW = np.memmap(raw, dtype=np.float32, mode="r", shape=(len(keys_N2), width))
    _check_repeats(spec, values_NW, keys_N2)
    np.save(folder / "values.npy", values_NW)
    np.save(folder / "keys.npy", keys_N2)
    raw.unlink()


def _check_repeats(spec: TeacherSpec, values_NW: NDArray[np.float32], keys_N2: NDArray[np.uint64]) -> None:
    """A text may come again, with the same vector."""
    order = np.lexsort(keys_N2.T)
    same = np.flatnonzero((keys_N2[order[1:]] == keys_N2[order[:-1]]).all(axis=1))
    for place in same:
        first, again = sorted((int(order[place]), int(order[place + 1])))
        if not np.array_equal(values_NW[first], values_NW[again]):
            raise UserError(
                f"{_named(spec)}: rows {first + 1} and {again + 1} have one text, white space aside, and two vectors; "
                "leave one of them out"
            )


def _batches(spec: TeacherSpec, files: list[Path]) -> Iterator[Batch]:
    try:
        if files[0].suffix == ".npy":
            yield from _from_npy(spec, *files)
            return
        for path in files:
            yield from _from_parquet(spec, path)
    except (pa.ArrowException, OSError, EOFError, ValueError, RecursionError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{_named(spec)} cannot be read: {why}; write it anew") from None


def _from_parquet(spec: TeacherSpec, path: Path) -> Iterator[Batch]:
    names = [name for name in (spec.text, spec.vector, spec.side) if name is not None]
    with opened_parquet(path, names) as file:
        for name in names:
            if name not in file.names:
                raise UserError(f"teacher.vectors {path}: {one_of('column', name, file.names)}")
        for part in file.batches(names):
            vectors = part.column(spec.vector)
            kind = vectors.type
            if not _is_of_numbers(kind):
                raise UserError(f"teacher.vectors {path}: the column {spec.vector} holds {kind}, not lists of numbers")
            lengths = np.asarray(pc.list_value_length(vectors).fill_null(0))
            if len(lengths) and (lengths.min() != lengths.max() or vectors.null_count):
                raise UserError(
                    f"teacher.vectors {path} has vectors of {lengths.min()} and of {lengths.max()} numbers; give all "
                    "one width"
                )
            values = np.asarray(vectors.flatten().cast(pa.float32(), safe=False)).reshape(len(part), -1)
            sides = values_of(part.column(spec.side)) if spec.side else [None] * len(part)
            yield values_of(part.column(spec.text)), sides, values


def _is_of_numbers(kind: pa.DataType) -> bool:
    types = pa.types
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(lists and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)))


def _check_head(path: Path) -> None:
    """Raise for a head that numpy would read whole, however long it says that it is."""
    with path.open("rb") as stream:
        if stream.read(6) == np.lib.format.MAGIC_PREFIX:
            length = 2 if stream.read(2)[:1] == b"\1" else 4
            if int.from_bytes(stream.read(length), "little") > LONGEST_HEAD:
                raise ValueError("its head is too long")


def _from_npy(spec: TeacherSpec, path: Path, texts_file: Path) -> Iterator[Batch]:
    # Of pickled objects and of archives it knows nothing, where `np.load` does.
    _check_head(path)
    values = np.lib.format.open_memmap(path, mode="r")
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise UserError(f"teacher.vectors {path} holds no table of floating-point numbers; give one row for each text")
    if (width := values.shape[1]) > WIDEST:
        raise UserError(f"teacher.vectors {path} has vectors of {width} numbers, more than {WIDEST}; give shorter ones")
    start = 0
    with texts_file.open(encoding="utf-8") as stream:
        at_once = max(1, min(AT_ONCE, NUMBERS_AT_ONCE // max(1, width)))
        for some in chunks((line for line in lines(stream) if line.strip()), at_once):
            rows = [json.loads(line) for line in some]
            texts = [row.get(spec.text) if isinstance(row, dict) else None for row in rows]
            sides = [row.get(spec.side) if spec.side else None for row in rows]
            if start + len(rows) > len(values):
                break
            yield texts, sides, values[start : start + len(rows)]
            start += len(rows)
        else:
            if start == len(values):
                return
    raise UserError(f"teacher.vectors {path} has {len(values)} rows, and {texts_file.name} another number of lines")
