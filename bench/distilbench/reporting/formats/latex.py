"""Tables as LaTeX that fits its page: booktabs rules, numbers aligned at their points, long tables in parts.

A table that is wider than its place is made smaller until it fits. Nothing is set wider than the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from distilbench.core.escape import escape_latex
from distilbench.reporting import Layout
from distilbench.reporting.formats.render import PLUS_MINUS, Emphasis, Table

PACKAGES = "% needs the packages adjustbox, booktabs and siunitx"
ROWS = 40
"""Of one table: more would not fit on a page with caption and notes."""
ONE_COLUMN_SIGNS = 44
"""Signs in a line of a table that fit beside another column of text."""
NUMBER = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?")
MINUS = re.compile(r"(?:(?<=^)|(?<=[\s(\[]))-(\d)")
"""A sign before a number, at the beginning of a cell or within it; ranges, dates and names have their hyphens."""
LONG = 24
"""Signs of a word that may not fit in what is left of a line."""
BREAKABLE = re.compile(r"(\\_|[/=:.,-])(?=[^\s\\]{4})")
EMPHASIS: dict[Emphasis, str] = {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}


def to_latex(table: Table, layout: Layout = "one-column") -> str:
    """Floating tables of at most `ROWS` rows, in two columns across both where one would be too narrow."""
    columns = [_Column(table, place) for place in range(table.text.shape[1])]
    widest = max((sum(map(len, row)) for row in table.text.astype(str).itertuples(index=False)), default=0)
    name = "table*" if layout == "two-column" and widest > ONE_COLUMN_SIGNS else "table"
    starts = range(0, max(len(table.text), 1), ROWS)
    parts = [_part(table, columns, range(start, min(start + ROWS, len(table.text))), name) for start in starts]
    return "\n".join([PACKAGES, *parts])


class _Column:
    """How one column is set: numbers by siunitx, what follows their ± in a column of its own."""

    def __init__(self, table: Table, place: int) -> None:
        self.cells = [str(cell) for cell in table.text.iloc[:, place]]
        self.heading = escape_latex(str(table.text.columns[place]))
        self.marks = [table.emphasis.get((line, str(table.text.columns[place]))) for line in range(len(self.cells))]
        found = [_number(cell) for cell in self.cells]
        self.numbers = found if any(found) and table.numeric[place] else [None] * len(found)
        self.has_errors = any(number is not None and number[1] for number in self.numbers)
        self.right = table.numeric[place]

    @property
    def letters(self) -> str:
        known = [number[0] for number in self.numbers if number is not None]
        if not known:
            return "r" if self.right else "l"
        whole = max(len(number.lstrip("-").partition(".")[0]) for number in known)
        digits = max(len(number.partition(".")[2]) for number in known)
        sign = "-" if any(number.startswith("-") for number in known) else ""
        return f"S[table-format={sign}{whole}.{digits}]" + (r"@{\,}l" if self.has_errors else "")

    def headed(self) -> str:
        if self.has_errors:
            return rf"\multicolumn{{2}}{{c}}{{{self.heading}}}"
        return f"{{{self.heading}}}"

    def cell(self, line: int) -> str:
        number, mark = self.numbers[line], self.marks[line]
        if number is None:
            text = _text(self.cells[line])
            text = EMPHASIS[mark].format(text) if mark else text
            if not any(self.numbers):
                return text
            return rf"\multicolumn{{2}}{{r}}{{{text}}}" if self.has_errors else f"{{{text}}}"
        value, error = number
        # Text in braces is set as it is: siunitx has no underlined numbers.
        shown = f"{{{EMPHASIS[mark].format(_text(value))}}}" if mark else value
        if not self.has_errors:
            return shown
        return rf"{shown} & $\pm$ {error}" if error else f"{shown} &"


def _part(table: Table, columns: Sequence[_Column], lines: range, name: str) -> str:
    more = " (continued)" if lines.start else ""
    label = re.sub("[^a-z]", "-", table.name) + (f"-{lines.start // ROWS + 1}" if lines.start else "")
    rows = [" & ".join(column.cell(line) for column in columns) + r" \\" for line in lines]
    return "\n".join(
        [
            rf"\begin{{{name}}}[tbp]",
            r"\centering",
            rf"\caption{{{_breakable(table.caption + more)}}}",
            rf"\label{{tab:{label}}}",
            *([rf"\textbf{{{_breakable(table.mark)}}}\par"] if table.mark else []),
            r"\begin{adjustbox}{max width=\linewidth}",
            rf"\begin{{tabular}}{{{''.join(column.letters for column in columns)}}}",
            r"\toprule",
            " & ".join(column.headed() for column in columns) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{adjustbox}",
            *(_notes(table) if lines.stop == len(table.text) else []),
            rf"\end{{{name}}}",
            "",
        ]
    )


def _notes(table: Table) -> Iterator[str]:
    if table.notes:
        yield r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize\raggedright"
        yield from (_breakable(note) + r"\par" for note in table.notes)
        yield r"\end{minipage}"


def _number(text: str) -> tuple[str, str] | None:
    """A number and its error as siunitx reads them; None for any other text."""
    value, _, error = text.partition(PLUS_MINUS)
    if NUMBER.fullmatch(value) is None or (error and NUMBER.fullmatch(error) is None):
        return None
    return value.replace(",", ""), error


def _text(text: str) -> str:
    # A number's minus is longer than a hyphen.
    return MINUS.sub(r"$-$\1", escape_latex(text))


def _breakable(text: str) -> str:
    """Text whose long words may be broken behind their signs."""
    words = escape_latex(text).split(" ")
    return " ".join(BREAKABLE.sub(r"\1\\allowbreak{}", word) if len(word) > LONG else word for word in words)
