"""Reading unlabelled training text: one sentence per line or row, damaged lines named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from distilbench.core.bounds import check_table_size, lines, no_file
from distilbench.core.errors import UserError
from distilbench.core.hashes import file_sha256, folder_sha256, key_of
from distilbench.core.mirror import below, check
from distilbench.core.tables import SURROGATES, as_numbers, check_rows, json_frame, json_object, opened, place_of, rows
from distilbench.data.checks.parquet_bounds import distinct_texts, opened_parquet, values_of
from distilbench.data.hub import HubName, HubSplit, open_split
from distilbench.study.sections.texts import LabelledSpec, TextSpec

EMBEDDED = "embedded"
MIRROR_PREFIX = "mirror:"
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}
"""Of packages that are imported under another name than they are installed by. To look it up takes half a second."""
MAX_CHARACTERS = 100_000
PLAIN_ENDINGS = (".txt", ".text", "")
TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
READABLE = (".txt", ".text", *TABLES)
Source = Path | HubSplit


def source_names(spec: TextSpec) -> list[str]:
    """The sources of a text, as written in the study."""
    return [spec.source] if isinstance(spec.source, str) else list(spec.source)


def source_key(spec: TextSpec, mirror: Path | None) -> str:
    """Hash of everything that decides which sentences the text has, found without reading them all."""
    parts = [part_key(name, spec, mirror, "text") for name in source_names(spec)]
    return key_of(sources=parts, column=spec.column, sentences=spec.sentences, on_bad_line=spec.on_bad_line)


def part_key(name: str, spec: TextSpec | LabelledSpec, mirror: Path | None, section: str) -> str:
    """Hash of what decides the content of one source of a section of the study."""
    if name == EMBEDDED:
        return embedded_key()
    source = open_source(name, spec, mirror, section)
    return source.key() if isinstance(source, HubSplit) else _sha256(source, section)


def embedded_key() -> str:
    """Hash of the installed packages whose docstrings make the embedded text, and of the code that reads them."""
    from importlib.metadata import PackageNotFoundError, version

    from distilbench.data.embedded import docstrings

    versions = {}
    for name in (*docstrings.TRAIN_PACKAGES, *docstrings.EVAL_PACKAGES):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(DISTRIBUTIONS.get(name, name))
    return key_of(code=folder_sha256(Path(docstrings.__file__).parent, ("*.py",)), packages=versions)


def open_source(name: str, spec: TextSpec | LabelledSpec, mirror: Path | None, section: str) -> Source:
    """The file, or the split of a data set, that a source names. Raises `UserError` for what cannot be read."""
    on_hub = HubName.of(name, section, mirror)
    if on_hub is None:
        return resolve(name, mirror, section)
    if on_hub.file is not None and mirror is not None and on_hub.in_mirror is not None:
        check(on_hub.in_mirror, mirror)
        return resolve(str(on_hub.in_mirror), mirror, section)
    split = open_split(on_hub, spec.config, spec.split)
    known = split.columns()
    for column in [spec.column] if isinstance(spec, TextSpec) else spec.columns:
        _place(split, section, column, known)
    return split


def resolve(name: str, mirror: Path | None, section: str = "text") -> Path:
    """The file that a source of a section of the study names. Raises `UserError` when it cannot be there."""
    if name.startswith(MIRROR_PREFIX):
        if mirror is None:
            raise UserError(f"{section}.source {name!r} needs a mirror; give --mirror DIR or set DISTILBENCH_MIRROR")
        path = below(mirror, name.removeprefix(MIRROR_PREFIX), f"{section}.source")
    else:
        path = _home_filled_in(name, section)
    try:
        there = path.is_file()
    except OSError as error:
        raise _unreadable(path, error, section) from None
    if not there:
        raise UserError(f"{section}.source: {no_file(path)}; give a text file, or {EMBEDDED!r}")
    if path.suffix not in (*PLAIN_ENDINGS, *READABLE):
        raise UserError(f"{section}.source: {path} is none of {', '.join(READABLE)}; convert it to one of them")
    return path


def _home_filled_in(name: str, section: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"{section}.source: {name} names the home folder of a user that is not known here") from None


def _sha256(path: Path, section: str) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise _unreadable(path, error, section) from None


def _unreadable(path: Path, error: OSError, section: str) -> UserError:
    return UserError(
        f"{section}.source: {path} cannot be read ({error.strerror or error}); check the file and its rights"
    )


def changed(section: str, names: list[str]) -> UserError:
    """What to say of sources that are others than those that were hashed."""
    return UserError(f"{section}.source {', '.join(names)} was changed while it was read; run the same command again")


def read_sentences(spec: TextSpec, mirror: Path | None) -> Iterator[str]:
    """Sentences in the order of the sources, some perhaps more than once.

    Raises `UserError` naming file and line for damaged text.
    """
    for name in source_names(spec):
        yield from _embedded() if name == EMBEDDED else _checked(open_source(name, spec, mirror, "text"), spec)


def _embedded() -> Iterator[str]:
    from distilbench.data.embedded.docstrings import training_sentences

    yield from training_sentences()


def _checked(source: Source, spec: TextSpec) -> Iterator[str]:
    for number, line in _lines(source, spec.column, "text"):
        fault = _fault(line)
        if fault is None:
            yield " ".join(line.split())
        elif spec.on_bad_line == "error":
            raise UserError(
                f"text.source: {source} line {number} {fault}; mend the file, or set text.on_bad_line=skip to leave "
                "such lines out"
            )


def _column_key(section: str) -> str:
    return "text.column" if section == "text" else f"{section}.columns"


def read_column(source: Source, column: str, section: str, *, as_written: bool = False) -> Iterator[str]:
    """Every text of a column, repeated ones too, with single spaces unless `as_written`.

    Raises `UserError` naming file and line for damaged text.
    """
    if isinstance(source, Path) and source.suffix in PLAIN_ENDINGS:
        raise UserError(f"{section}.source: {source} has no columns; give one of {', '.join(TABLES)}")
    for number, line in _lines(source, column, section):
        if fault := _fault(line):
            raise UserError(f"{section}.source: {source} line {number}, column {column!r}, {fault}; mend the file")
        yield line if as_written else " ".join(line.split())


def check_fits(source: Source, columns: list[str], section: str) -> None:
    """Raise `UserError` for columns that this machine's memory does not hold, which are to be read whole."""
    if isinstance(source, HubSplit):
        source.check_fits(columns)
        return
    try:
        if source.suffix != ".parquet":
            check_table_size(source.stat().st_size)
            return
        with opened_parquet(source, columns) as file:
            file.check_fits([column for column in columns if column in file.names])
    except OSError as error:
        raise _unreadable(source, error, section) from None
    except ValueError as error:
        raise UserError(f"{section}.source: {source} {str(error).splitlines()[0]}") from None


def numbers(source: Source, column: str, section: str, key: str = "scores") -> list[float]:
    """A column of scores, which the study names under `key`.

    Raises `UserError` for a column that is not there or holds anything but finite numbers.
    """
    try:
        table = _hub_values(source, column) if isinstance(source, HubSplit) else _values(source, column)
    except OSError as error:
        raise UserError(
            f"{section}.{key}: {source} cannot be read ({error.strerror or error}); mend the file"
        ) from None
    except ValueError as error:
        raise UserError(f"{section}.{key}: {source}: {str(error).splitlines()[0]}; mend the file") from None
    values = as_numbers(table)
    bad = values.isna()
    if bad.any():
        raise UserError(
            f"{section}.{key}: {source} row {int(bad.argmax()) + 1} has no number under {column!r}; mend the file"
        )
    return [float(value) for value in values]


def _hub_values(split: HubSplit, column: str) -> list[Any]:
    place_of(column, split.columns())
    return split.values(column)


def _values(path: Path, column: str) -> Any:
    """The values of a column, numbers or what is written for them. Raises `ValueError` for one that is not there."""
    if path.suffix == ".parquet":
        with opened_parquet(path, [column]) as file:
            place_of(column, file.names)
            file.check_fits([column])
            return [value for batch in file.batches([column]) for value in values_of(batch.column(0))]
    if path.suffix == ".jsonl":
        frame = json_frame(path, [column])
        return frame.iloc[:, place_of(column, list(frame.columns))]
    check_rows(path, tabs=path.suffix == ".tsv")
    with opened(path) as stream:
        found = rows(stream, tabs=path.suffix == ".tsv")
        place = place_of(column, next(found, (1, []))[1])
        return [row[place] if place < len(row) else "" for _, row in found if row]


def _fault(line: str) -> str | None:
    if SURROGATES.search(line):
        return "is not valid UTF-8"
    if "\0" in line:
        return "holds a NUL byte"
    if not line.strip():
        return "is empty"
    if len(line) > MAX_CHARACTERS:
        return f"has {len(line)} characters (at most {MAX_CHARACTERS} are allowed)"
    return None


def _lines(source: Source, column: str, section: str) -> Iterator[tuple[int, str]]:
    """(line of the file, or row of a parquet file or a split, from 1; text). What is missing is an empty text."""
    if isinstance(source, HubSplit):
        yield from enumerate(_texts(source, source.column_parts(column), column, section), start=1)
        return
    path = source
    try:
        if path.suffix == ".parquet":
            yield from enumerate(_parquet(path, column, section), start=1)
            return
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            if path.suffix in (".csv", ".tsv"):
                yield from _table(path, stream, column, section)
            elif path.suffix == ".jsonl":
                yield from (
                    (at, _json_field(path, at, line, column, section)) for at, line in enumerate(lines(stream), start=1)
                )
            else:
                yield from enumerate((line.rstrip("\r\n") for line in lines(stream)), start=1)
    except ValueError as error:
        raise UserError(f"{section}.source: {path} {error}") from None
    except OSError as error:
        raise _unreadable(path, error, section) from None


def _table(path: Path, stream: TextIO, column: str, section: str) -> Iterator[tuple[int, str]]:
    found = rows(stream, tabs=path.suffix == ".tsv")
    try:
        _, header = next(found, (1, []))
        place = _place(path, section, column, header)
        for start, row in found:
            yield start, row[place] if place < len(row) else ""
    except ValueError as error:
        raise UserError(f"{section}.source: {path} {error}") from None


def _parquet(path: Path, column: str, section: str) -> Iterator[str]:
    import pyarrow as pa

    try:
        with opened_parquet(path, [column]) as file:
            _place(path, section, column, file.names)
            yield from _texts(path, (batch.column(0) for batch in file.batches([column])), column, section)
    except pa.ArrowException as error:
        raise UserError(f"{section}.source: {path} is not readable parquet: {str(error).splitlines()[0]}") from None
    # What is too large, or damaged.
    except ValueError as error:
        raise UserError(f"{section}.source: {path} {error}") from None


def _texts(source: Source, parts: Iterator[Any], column: str, section: str) -> Iterator[str]:
    import pyarrow as pa

    for part in parts:
        _require_text(source, section, column, part.type)
        # Of a text that repeats, one copy for all rows.
        if pa.types.is_dictionary(part.type):
            distinct, places = distinct_texts(part)
            texts = _decoded(distinct)
            yield from ("" if place is None else texts[place] for place in places.to_pylist())
        else:
            yield from _decoded(part)


def _decoded(values: Any) -> list[str]:
    import pyarrow as pa

    # By way of bytes, since pyarrow cannot give out text that is not valid UTF-8.
    stored = values.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
    return [(value or b"").decode("utf-8", errors="surrogateescape") for value in stored]


def _require_text(source: Source, section: str, column: str, kind: Any) -> None:
    from pyarrow import types

    stored = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(stored) or types.is_large_string(stored) or types.is_string_view(stored)):
        raise UserError(
            f"{section}.source: {source}: the column {column!r} holds {kind}, not text; set {_column_key(section)}"
        )


def _json_field(path: Path, number: int, line: str, column: str, section: str) -> str:
    if not line.strip():
        return ""
    try:
        row = json_object(line, number, [column])
    except ValueError as error:
        raise UserError(f"{section}.source: {path} {error}") from None
    if not isinstance(row.get(column), str):
        raise UserError(
            f"{section}.source: {path} line {number} has no text under {column!r}; set {_column_key(section)}"
        )
    return str(row[column])


def _place(source: Source, section: str, column: str, columns: list[str]) -> int:
    try:
        return place_of(column, columns)
    except ValueError as error:
        raise UserError(f"{section}.source: {source}: {error}; set {_column_key(section)}") from None
