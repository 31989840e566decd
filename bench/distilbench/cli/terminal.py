"""Tables on stdout: for people as wide as their terminal, for programs in a format of their choice."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distilbench.cli.output import console, note, print_json, print_line
from distilbench.core.escape import visible, visible_lines

if TYPE_CHECKING:
    from distilbench.reporting.formats.render import Table

FORMATS = ("text", "tsv", "md", "json")
UNBOUNDED = 100_000
"""Columns of an output that is no terminal: a file or a pipe has none."""
BETWEEN, EDGE = 3, 1
"""Characters that a column takes beside its own, and the table beside its columns."""
READABLE = 100
"""Notes are no wider than this, however wide the terminal."""


def add_format(parser: argparse.ArgumentParser) -> None:
    """`--format`, `--json` for short, and `--wide`; what prints a table takes them from the arguments."""
    parser.add_argument(
        "--format", choices=FORMATS, default="text", help="text is for people, the others for programs (default: text)"
    )
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="short for --format json")
    parser.add_argument("--wide", action="store_true", help="all columns, however narrow the terminal")


@dataclass(frozen=True)
class Grid:
    """A table of texts as they are; escaped by each format."""

    title: str
    names: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    """Of each column, whether it is aligned to the right."""
    notes: list[str] = field(default_factory=list)
    bold: frozenset[tuple[int, int]] = frozenset()
    """(row, column) of cells that stand out."""

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]], title: str) -> Grid:
        """Of at least one mapping; what a row lacks is empty."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        numeric = [all(isinstance(row.get(name, 0), int | float) for row in rows) for name in names]
        cells = [[str(row.get(name, "")) for name in names] for row in rows]
        return cls(title, list(map(str, names)), cells, numeric)

    @classmethod
    def of_table(cls, table: Table) -> Grid:
        """Of a report's table."""
        names = [str(name) for name in table.text]
        rows = [[str(value) for value in row] for row in table.text.itertuples(index=False)]
        title = "\n".join(text for text in (table.mark, table.caption) if text is not None)
        bold = frozenset((line, names.index(name)) for (line, name), mark in table.emphasis.items() if mark == "best")
        return cls(title, names, rows, table.numeric, list(table.notes), bold)


def print_rows(
    rows: Sequence[Mapping[str, Any]], title: str, arguments: argparse.Namespace, values: Any = None
) -> None:
    """Rows that have the same keys, at least one; `values` is what JSON has in the place of them."""
    if arguments.format == "json":
        print_json(list(rows) if values is None else values)
    else:
        _print(Grid.of_rows(rows, title), arguments)


def print_tables(tables: Iterable[Table], arguments: argparse.Namespace) -> None:
    """Tables of the report, each after an empty line where there are several."""
    from distilbench.reporting.formats.render import to_json, to_markdown

    for place, table in enumerate(tables):
        if arguments.format == "json":
            sys.stdout.write(to_json(table))
            continue
        if place:
            sys.stdout.write("\n")
        if arguments.format == "md":
            sys.stdout.write(to_markdown(table))
        else:
            _print(Grid.of_table(table), arguments)


def print_between(arguments: argparse.Namespace) -> None:
    """What keeps the next table apart for programs, which would take it for more rows of the one before."""
    if arguments.format != "text":
        sys.stdout.write("\n")


def print_beside(text: str, arguments: argparse.Namespace) -> None:
    """Lines that belong to a table and are none of it: on stdout for people, else where no program reads them."""
    for line in text.split("\n"):
        if arguments.format == "text":
            print_line(line)
        else:
            note(line, arguments)


def _print(grid: Grid, arguments: argparse.Namespace) -> None:
    if arguments.format == "tsv":
        # Nothing is quoted: a cell holds neither a tab nor a line break.
        lines = ["\t".join(map(visible, row)) for row in (grid.names, *grid.rows)]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    elif arguments.format == "md":
        from distilbench.reporting.formats.render import markdown_rows

        sys.stdout.write(markdown_rows(grid.names, grid.rows, grid.numeric))
    else:
        _print_for_people(grid, UNBOUNDED if arguments.wide else room(), arguments)


def room() -> int:
    """Characters of a line: of the terminal, else what COLUMNS says, else as many as it takes."""
    bounded = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return shutil.get_terminal_size().columns if bounded else UNBOUNDED


def _print_for_people(grid: Grid, width: int, arguments: argparse.Namespace) -> None:
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cells = [[visible_lines(cell) for cell in row] for row in (grid.names, *grid.rows)]
    columns = [list(column) for column in zip(*cells, strict=True)]
    least = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    most = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
    widths = fitting(least, most, width)
    table = Table(box=box.SIMPLE)
    for name, right, wide in zip(cells[0], grid.numeric, widths, strict=False):
        table.add_column(Text(name), justify="right" if right else "left", overflow="fold", width=wide)
    for line, row in enumerate(cells[1:]):
        shown = enumerate(row[: len(widths)])
        table.add_row(*(Text(cell, "bold" if (line, place) in grid.bold else "") for place, cell in shown))
    out = console(width)
    out.print(Text(visible_lines(grid.title), "italic"))
    out.print(table)
    notes = console(min(width, READABLE) if width < UNBOUNDED else width)
    for text in grid.notes:
        notes.print(Text(visible_lines(text)))
    if hidden := grid.names[len(widths) :]:
        left_out = f"not shown, for want of room: {', '.join(hidden)}; --wide shows all columns, --format tsv too"
        note(left_out, arguments)


def fitting(least: Sequence[int], most: Sequence[int], width: int) -> list[int]:
    """Characters of the first columns, as many columns as fit into a line of `width`, one at the least.

    `least` is a column's longest word, `most` its longest line. No column is narrower than its longest word, but for a
    first one that alone is wider than the line. What room is left goes to the columns that lack least.
    """
    count, free = 0, width - EDGE
    for wanted in least:
        if count and wanted + BETWEEN > free:
            break
        free -= wanted + BETWEEN
        count += 1
    widths = [min(least[0], max(1, width - EDGE - BETWEEN)), *least[1:count]]
    lacking = sorted(range(count), key=lambda place: most[place] - widths[place])
    for number, place in enumerate(lacking):
        more = max(0, min(most[place] - widths[place], free // (count - number)))
        widths[place] += more
        free -= more
    return widths
