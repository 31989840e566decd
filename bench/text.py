"""Reading unlabelled training text: one sentence per line or row, damaged lines named."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.errors import UserError, one_of
from bench.identity import file_sha256, key_of
from bench.study import TextSpec

EMBEDDED = "embedded"
MIRROR_PREFIX = "mirror:"
MAX_CHARACTERS = 100_000
PLAIN_ENDINGS = (".txt", ".text", "")
UNDECODABLE = re.compile("[\udc80-\udcff]")
"""What surrogateescape makes of bytes that are not UTF-8."""
READABLE = (".txt", ".text", ".jsonl", ".csv", ".tsv", ".parquet")


def source_names(spec: TextSpec) -> list[str]:
    """The sources of a text, as written in the study."""
    return [spec.source] if isinstance(spec.source, str) else list(spec.source)


def source_key(spec: TextSpec, mirror: Path | None) -> str:
    """Hash of everything that decides which sentences the text has, found without reading them all."""
    parts = [embedded_key() if name == EMBEDDED else file_sha256(resolve(name, mirror)) for name in source_names(spec)]
    return key_of(sources=parts, column=spec.column, sentences=spec.sentences, on_bad_line=spec.on_bad_line)


def embedded_key() -> str:
    """Hash of the installed packages whose docstrings make the embedded text, and of the code that reads them."""
    from importlib.metadata import packages_distributions, version

    from bench.embedded import docstrings

    owners = packages_distributions()
    read = (*docstrings.TRAIN_PACKAGES, *docstrings.EVAL_PACKAGES)
    versions = {name: version(owners[name][0]) for name in read if name in owners}
    return key_of(code=file_sha256(Path(docstrings.__file__)), packages=versions)


def resolve(name: str, mirror: Path | None) -> Path:
    """The file that a source names. Raises `UserError` when it cannot be there."""
    if name.startswith(MIRROR_PREFIX):
        if mirror is None:
            raise UserError(f"text.source {name!r} needs a mirror; give --mirror DIR or set DISTILBENCH_MIRROR")
        path = mirror / name.removeprefix(MIRROR_PREFIX)
    else:
        path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"text.source: there is no file {path}; give a text file, or {EMBEDDED!r}")
    if path.suffix not in (*PLAIN_ENDINGS, *READABLE):
        raise UserError(f"text.source: {path} is none of {', '.join(READABLE)}; convert it to one of them")
    return path


def read_sentences(spec: TextSpec, mirror: Path | None) -> Iterator[str]:
    """Distinct sentences in the order of the sources. Raises `UserError` naming file and line for damaged text."""
    seen: set[int] = set()
    for name in source_names(spec):
        lines = _embedded() if name == EMBEDDED else _checked(resolve(name, mirror), spec)
        for sentence in lines:
            mark = hash(sentence)
            if mark not in seen:
                seen.add(mark)
                yield sentence


def _embedded() -> Iterator[str]:
    from bench.embedded.docstrings import training_sentences

    yield from training_sentences()


def _checked(path: Path, spec: TextSpec) -> Iterator[str]:
    for number, line in enumerate(_lines(path, spec.column), start=1):
        fault = _fault(line)
        if fault is None:
            yield " ".join(line.split())
        elif spec.on_bad_line == "error":
            raise UserError(
                f"text.source: {path} line {number} {fault}; mend the file, or set text.on_bad_line=skip to leave "
                "such lines out"
            )


def _fault(line: str) -> str | None:
    if UNDECODABLE.search(line):
        return "is not valid UTF-8"
    if "\0" in line:
        return "holds a NUL byte"
    if not line.strip():
        return "is empty"
    if len(line) > MAX_CHARACTERS:
        return f"has {len(line)} characters (at most {MAX_CHARACTERS} are allowed)"
    return None


def _lines(path: Path, column: str) -> Iterator[str]:
    if path.suffix == ".parquet":
        yield from _parquet(path, column)
        return
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        if path.suffix == ".jsonl":
            yield from (_json_field(path, number, line, column) for number, line in enumerate(stream, start=1))
        elif path.suffix in (".csv", ".tsv"):
            reader = csv.DictReader(stream, delimiter="," if path.suffix == ".csv" else "\t")
            _require_column(path, column, list(reader.fieldnames or []))
            yield from (row[column] or "" for row in reader)
        else:
            yield from (line.rstrip("\r\n") for line in stream)


def _parquet(path: Path, column: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"text.source: {path} is not readable parquet: {str(error).splitlines()[0]}") from None
    _require_column(path, column, file.schema_arrow.names)
    for batch in file.iter_batches(columns=[column]):
        yield from (value or "" for value in batch.column(0).to_pylist())


def _json_field(path: Path, number: int, line: str, column: str) -> str:
    try:
        row: Any = json.loads(line)
    except ValueError:
        raise UserError(
            f"text.source: {path} line {number} is not JSON; each line is an object like {{{column!r}: ...}}"
        ) from None
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        raise UserError(f"text.source: {path} line {number} has no text under {column!r}; set text.column")
    return str(row[column])


def _require_column(path: Path, column: str, columns: list[str]) -> None:
    if column not in columns:
        raise UserError(f"text.source: {path}: {one_of('column', column, columns)}; set text.column")
