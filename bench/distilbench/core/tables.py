"""Tables of text, read the same way wherever they are read: rows of CSV and TSV, objects of JSON lines.

Every fault is a `ValueError` that begins with the line it is in.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from distilbench.core.bounds import (
    CELL_BYTES,
    MOST_COLUMNS,
    ROW_BYTES,
    Lines,
    check_json_lines,
    check_table_size,
    lines,
)
from distilbench.core.errors import one_of

if TYPE_CHECKING:
    import pandas as pd

FIELD_LIMIT = 2**31 - 1
"""Characters of a CSV field before reading fails; far above those of a text, so that a long field can be skipped."""
QUOTES = {
    "unexpected end of data": "begins a text with a quotation mark that nothing closes",
    "',' expected after '\"'": "has text after the quotation mark that closes a field",
}
"""What the csv library says of them -> in words."""
QUOTES_CURE = "put a text that begins with a quotation mark in quotes, and write each mark within twice"
OTHER_SEPARATORS = (";", "\t", "|", ",")
SURROGATES = re.compile("[\ud800-\udfff]")
"""What surrogateescape makes of bytes that are not UTF-8, and what JSON escapes can spell though UTF-8 cannot."""
ESCAPED_ASCII = re.compile(r"\\u00[2-7]")
"""By which JSON can spell a key in another way than it usually is."""


def opened(path: Path, errors: str = "surrogateescape") -> TextIO:
    """A file's text, unpacked, without a byte order mark. Bytes that are not UTF-8 become surrogates by default."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    return cast(TextIO, opener(path, "rt", encoding="utf-8-sig", errors=errors, newline=""))


def rows(stream: TextIO, tabs: bool) -> Iterator[tuple[int, list[str]]]:
    """The header, then each row with the line that it begins in; a row may be shorter than the header.

    No more of a row is read than `distilbench.core.bounds` allows.
    """
    csv.field_size_limit(FIELD_LIMIT)
    bounded = Lines(stream)
    # In a TSV, a quotation mark is a character like any other.
    reader = csv.reader(bounded, "excel-tab", quoting=csv.QUOTE_NONE) if tabs else csv.reader(bounded, strict=True)
    # A quoted field may hold line breaks: a row is named by its first line.
    start, width, header = 1, None, list[str]()
    try:
        for row in reader:
            bounded.begin_row()
            if width is None:
                width, header = len(row), row
                if any(map(SURROGATES.search, header)):
                    raise ValueError(f"line {start} is not valid UTF-8; save the file as UTF-8")
            if width > MOST_COLUMNS:
                raise ValueError(
                    f"line {start} has {width} columns, and a table at most {MOST_COLUMNS}; leave some out"
                )
            # One of these is a part of a text with a separator in it, and nobody knows which.
            if len(row) > width:
                check_separator(header)
                raise ValueError(
                    f"line {start} has {len(row)} fields, but the table {width} columns; put texts that hold the "
                    "separator in quotes"
                )
            yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        if what := QUOTES.get(str(error)):
            raise ValueError(f"line {start} {what}; {QUOTES_CURE}") from None
        raise ValueError(f"line {start} cannot be read as a table: {error}") from None


def place_of(column: str, columns: Sequence[str]) -> int:
    """Where a column is in a header. Raises `ValueError` for one that is not there, or twice."""
    if columns.count(column) == 1:
        return columns.index(column)
    if column in columns:
        raise ValueError(f"the column {column!r} is there {columns.count(column)} times; give each a name of its own")
    if len(columns) == 1 and any(column in columns[0].split(separator) for separator in OTHER_SEPARATORS):
        check_separator(columns)
    raise ValueError(one_of("column", column, columns))


def check_separator(columns: Sequence[str]) -> None:
    """Raise `ValueError` for a header that is one name with another separator in it."""
    for separator in OTHER_SEPARATORS:
        if len(columns) == 1 and separator in columns[0]:
            raise ValueError(
                f"the columns are separated by {separator!r}; separate them by commas in a .csv, by tabs in a .tsv"
            )


def as_numbers(values: Iterable[Any]) -> pd.Series:
    """Numbers, or what is written for them; NaN for all that is not finite, such as a date."""
    import pandas as pd

    # A text with half of a character in it fits no column of texts.
    found = values if isinstance(values, pd.Series) else pd.Series(list(values), dtype=object)
    if found.dtype.kind not in "iufb":
        found = found.astype(object)
        try:
            found = pd.to_numeric(found, errors="coerce")
        except OverflowError:
            # An integer that no float holds.
            found = found.map(lambda value: pd.to_numeric(pd.Series([str(value)]), errors="coerce")[0])
    return found.where(~found.isin([float("inf"), -float("inf")]))


def json_object(line: str, number: int, columns: Sequence[str]) -> dict[str, Any]:
    """The object in a line of JSON lines, in which no wanted column may be twice."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f"line {number} is not JSON; each line is an object like {{{columns[0]!r}: ...}}") from None
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is no object; each line is one like {{{columns[0]!r}: ...}}")
    escaped = ESCAPED_ASCII.search(line) is not None
    for column in columns:
        # Python keeps the last of two without a word.
        if escaped or sum(map(line.count, {json.dumps(column), json.dumps(column, ensure_ascii=False)})) > 1:
            names = [name for name, _ in json.loads(line, object_pairs_hook=list)]
            if names.count(column) > 1:
                raise ValueError(f"line {number} has the key {column!r} {names.count(column)} times; leave one")
    return row


def json_frame(path: Path, columns: Sequence[str], **options: Any) -> pd.DataFrame:
    """A file of JSON lines as pandas reads it with some options; no wanted column may be twice in a line."""
    import pandas as pd

    with opened(path) as stream:
        check_json_lines(stream, lambda line, number: _valid(json_object(line, number, columns), number, columns))
    try:
        # Cached scores are known by a hash of these numbers, of which Python reads the last digit otherwise.
        # Names and values stay what they are, though they look like numbers or dates.
        frame: pd.DataFrame = pd.read_json(path, lines=True, convert_axes=False, dtype=False, **options)
        return frame
    except ValueError:
        # A number beyond 64 bits, a byte order mark, or damage, of which the line is to be named.
        with opened(path) as stream:
            numbered = enumerate(lines(stream), start=1)
            return pd.DataFrame([json_object(line, number, columns) for number, line in numbered if line.strip()])


def _valid(row: dict[str, Any], number: int, columns: Sequence[str]) -> dict[str, Any]:
    for column in columns:
        if isinstance(value := row.get(column), str) and SURROGATES.search(value):
            raise ValueError(f"line {number} is not valid UTF-8; save the file as UTF-8")
    return row


def check_rows(path: Path, tabs: bool) -> None:
    """Raise for a table of rows that is too large to be held in memory, without holding it."""
    width, size = 0, 0
    with opened(path) as stream:
        for _, row in rows(stream, tabs):
            width = width or len(row)
            # Of a row that is too short, the missing cells take room as well.
            size += ROW_BYTES + CELL_BYTES * width + sum(map(len, row))
            check_table_size(size)
