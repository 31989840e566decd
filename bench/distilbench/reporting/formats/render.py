"""One table as Markdown, JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TextIO

import pandas as pd

from distilbench.core.errors import UserError, one_of
from distilbench.core.escape import escape_csv, escape_markdown

Emphasis = Literal["best", "second"]
PLUS_MINUS = " ± "
MARKDOWN: dict[Emphasis, str] = {"best": "**{}**", "second": "*{}*"}


@dataclass(frozen=True)
class Table:
    """What all formats show; all texts are raw and escaped by the format."""

    name: str
    """File name without ending."""
    caption: str
    text: pd.DataFrame
    """Cells as shown."""
    order: pd.DataFrame
    """Same shape: numbers by which a reader may sort; columns without numbers are sorted as text."""
    notes: list[str]
    mark: str | None
    """Shown before anything else when these are no results."""
    emphasis: Mapping[tuple[int, str], Emphasis] = field(default_factory=dict)
    """(line, column) -> how a cell stands out."""

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether it holds numbers (and is aligned to the right)."""
        return [bool(pd.api.types.is_numeric_dtype(self.order[name])) for name in self.order]


def with_columns(table: Table, names: Sequence[str]) -> Table:
    """The table with these columns alone, in this order. Raises `UserError` for a column that it does not have."""
    known = {str(name).casefold(): str(name) for name in table.text}
    for name in names:
        if name.casefold() not in known:
            raise UserError(f"--columns: {one_of('column', name, list(known.values()))}")
    chosen = [known[name.casefold()] for name in dict.fromkeys(names)]
    return replace(table, text=table.text[chosen], order=table.order[chosen])


def with_digits(table: Table, digits: int) -> Table:
    """The table with at most so many decimals in each column of numbers: values from all of theirs, errors as shown."""
    text = table.text.copy()
    for name, numeric in zip(table.text, table.numeric, strict=True):
        if numeric:
            pairs = zip(table.text[name].astype(str), table.order[name], strict=True)
            text[name] = [_shorter(shown, float(value), digits) for shown, value in pairs]
    return replace(table, text=text)


def _shorter(shown: str, value: float, digits: int) -> str:
    """`shown` with fewer decimals, where it is a number, or one and its error, that has more."""
    number, _, error = shown.partition(PLUS_MINUS)
    if pd.isna(value) or len(number.partition(".")[2]) <= digits:
        return shown
    return f"{value:,.{digits}f}" + (f"{PLUS_MINUS}{float(error):.{digits}f}" if error else "")


def to_markdown(table: Table) -> str:
    """A pipe table under its caption, notes below."""
    body = _pipes(_cells(table, escape_markdown, MARKDOWN), table.numeric)
    mark = [f"**{escape_markdown(table.mark)}**"] if table.mark else []
    notes = "\n".join(f"- {escape_markdown(note)}" for note in table.notes)
    return "\n\n".join([f"### {escape_markdown(table.caption)}", *mark, body, notes]).rstrip() + "\n"


def markdown_rows(names: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    """A pipe table of raw texts."""
    return _pipes([[escape_markdown(cell) for cell in row] for row in (names, *rows)], numeric) + "\n"


def _pipes(cells: list[list[str]], numeric: Sequence[bool]) -> str:
    """A pipe table of escaped cells, the headings first."""
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(cells[0]))]
    rule = [("-" * (width - 1) + ":") if right else "-" * width for width, right in zip(widths, numeric, strict=True)]
    lines = [[_pad(*item) for item in zip(row, widths, numeric, strict=True)] for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in [lines[0], rule, *lines[1:]])


def to_json(table: Table) -> str:
    """Caption, notes, and the lines twice: as shown, and as unrounded numbers."""
    content = {
        "name": table.name,
        "caption": table.caption,
        "mark": table.mark,
        "notes": table.notes,
        "shown": table.text.to_dict(orient="records"),
        "values": json.loads(table.order.to_json(orient="records", double_precision=15)),
    }
    return json.dumps(content, indent=2) + "\n"


def write_csv(frame: pd.DataFrame, path: Path | TextIO) -> None:
    """Write a frame without its index. Texts of others are no formulas of a spreadsheet; numbers stay numbers."""

    def cell(value: Any) -> Any:
        return escape_csv(value) if isinstance(value, str) else value

    frame.rename(columns=cell).map(cell).to_csv(path, index=False)


def _cells(table: Table, escape: Callable[[str], str], emphasis: Mapping[Emphasis, str]) -> list[list[str]]:
    """The headings and all lines, escaped; cells that stand out in their format's way."""
    rows = [[escape(str(name)) for name in table.text]]
    for line, values in enumerate(table.text.itertuples(index=False)):
        marks = [table.emphasis.get((line, str(name))) for name in table.text]
        texts = [escape(str(value)) for value in values]
        rows.append([emphasis[m].format(text) if m else text for text, m in zip(texts, marks, strict=True)])
    return rows


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
