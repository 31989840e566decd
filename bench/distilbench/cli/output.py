"""What verbs print with, and the exit codes that they end with."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from distilbench.reporting.render import Table

FINE, REGRESSED, WRONG_USE, COULD_NOT_EVALUATE, OUR_ERROR, INTERRUPTED = 0, 1, 2, 3, 70, 130
"""1 is for what a gate found, and for a method that does not conform; 70 for an error of distilbench itself."""


def say(text: str) -> None:
    """Write a line to stderr."""
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")


def accept_all_letters(stream: TextIO) -> None:
    """Let a stream write letters that its encoding does not have as escapes, instead of raising an error."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def drop_unwritable(stream: TextIO | None) -> None:
    """Forget what a stream still holds and cannot write: when Python ends, it would try again and exit with 120."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def console() -> Console:
    """Where tables go."""
    from rich.console import Console

    class Strict(Console):
        def on_broken_pipe(self) -> None:
            # Rich would end the program with 1, which says that a gate found a regression.
            raise BrokenPipeError

    return Strict(highlight=False)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_rows(rows: list[dict[str, Any]], title: str) -> None:
    """A table of rows that have the same keys, at least one."""
    from rich.table import Table

    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console().print(table)


def print_tables(tables: Iterable[Table], *, as_json: bool) -> None:
    """Tables of the report."""
    from distilbench.reporting.render import to_json, to_rich

    for table in tables:
        if as_json:
            sys.stdout.write(to_json(table))
        else:
            console().print(to_rich(table, len(table.text.columns)))
