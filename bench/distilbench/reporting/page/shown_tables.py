"""Tables as the page shows them: what each cell says, which method and task it is of, and how it stands out."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from distilbench.analysis.frame import OVERALL, StudyFrames
from distilbench.analysis.inference import Inference
from distilbench.analysis.verdicts import Verdict
from distilbench.reporting.cells import plus_minus
from distilbench.reporting.figures.drawn import scored_methods
from distilbench.reporting.figures.style import short
from distilbench.reporting.formats.render import Emphasis, Table, write_csv

SIGNS = {"better": "▲", "worse": "▼", "equivalent": "=", "undecided": "?"}
NAMED = ("Method", "Against")
"""Columns that name a row of the study."""
EQUAL_COSTS = ("Sentences", "Student passes")
"""Of the main table, what rows share under an equal budget: they are in its files, and in the table of costs."""
WORDS_FIT = 12
"""Rows up to which a matrix has words beside its signs."""


@dataclass(frozen=True)
class ShownCell:
    """One cell."""

    text: str
    order: float | None = None
    """By which a reader may sort; None for texts and unknown numbers."""
    emphasis: Emphasis | None = None
    verdict: Verdict | None = None
    shade: int | None = None
    """From 0 to 100: how much of the accent colour is behind the text."""
    title: str | None = None
    """More than fits, shown while the pointer is on the cell."""
    short: str | None = None
    """A sign that stands for the text where there is no room."""


@dataclass(frozen=True)
class ShownTable:
    """A table with all that the template asks for; texts are raw, and escaped by the template."""

    name: str
    caption: str
    headings: list[str]
    numeric: list[bool]
    lines: list[list[ShownCell]]
    notes: list[str]
    mark: str | None
    kind: Literal["plain", "matrix", "heat"] = "plain"
    names: Mapping[str, int] = field(default_factory=dict)
    """Name shown -> place of the row in the study: what filters know it by."""
    tasks: Mapping[str, str] = field(default_factory=dict)
    """Heading -> task."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Ending -> data URI of the table in that format."""

    @property
    def longest(self) -> int:
        """Room for the longest name of a line, in digits: letters are narrower, and there is some space beside it."""
        return max((len(line[0].text) for line in self.lines), default=0) * 9 // 10 + 3

    def places(self, line: Sequence[ShownCell]) -> str:
        """The rows of the study that a line is of, for filters."""
        named = (cell.text for heading, cell in zip(self.headings, line, strict=True) if heading in NAMED)
        return " ".join(str(self.names[name]) for name in named if name in self.names)


def shown_table(table: Table, study: StudyFrames | None = None, folder: Path | None = None) -> ShownTable:
    """Any table, line for line; `folder` holds its files, where it has some."""
    numeric = table.numeric
    lines = []
    for place, (texts, orders) in enumerate(
        zip(table.text.itertuples(index=False), table.order.itertuples(index=False), strict=True)
    ):
        lines.append(
            [
                _cell(str(text), order, right, table.emphasis.get((place, str(heading))))
                for heading, text, order, right in zip(table.text, texts, orders, numeric, strict=True)
            ]
        )
    caption = table.caption.removeprefix(f"{study.name}: ") if study else table.caption
    headings = list(map(str, table.text))
    tasks = {f"{task} ({metric})": str(task) for task, metric in study.tasks["metric"].items()} if study else {}
    return ShownTable(
        table.name, caption[:1].upper() + caption[1:], headings, numeric, lines, table.notes, table.mark,
        names=names(study) if study else {}, tasks=tasks, files=_files(table, folder),
    )  # fmt: skip


def names(study: StudyFrames) -> dict[str, int]:
    """Name shown -> place in `study.rows`."""
    return {str(name): place for place, name in enumerate(study.rows["row"])}


def main_on_page(study: StudyFrames, inference: Inference, table: Table, folder: Path | None = None) -> ShownTable:
    """The main table without what all rows share, and with what can be said of each row against the first."""
    status = table.text["Status"]
    whole = status.str.fullmatch(r"\d+/\d+ completed").all()
    left_out = [name for name in (*EQUAL_COSTS, *(["Status"] if whole else [])) if name in table.text]
    kept = replace(table, text=table.text.drop(columns=left_out), order=table.order.drop(columns=left_out))
    made = shown_table(kept, study, folder)
    methods = list(scored_methods(study))
    if not (methods and inference.comparisons()):
        return made
    first = methods[0]
    place = made.headings.index(OVERALL) + 1
    lines = [
        [*line[:place], _against(study, inference, str(key), first), *line[place:]]
        for key, line in zip(study.rows.index, made.lines, strict=True)
    ]
    heading = f"Against {short(str(study.rows.at[first, 'row']))}"
    return replace(
        made,
        headings=[*made.headings[:place], heading, *made.headings[place:]],
        numeric=[*made.numeric[:place], False, *made.numeric[place:]],
        lines=lines,
    )


def _against(study: StudyFrames, inference: Inference, key: str, first: str) -> ShownCell:
    if key == first:
        return ShownCell("highest mean of a method")
    item = inference.comparison(key, first)
    if item is None:
        return ShownCell("not compared")
    return _verdict_cell(item.verdict, _difference(item.difference.mean, item.half_width), None)


def matrix_on_page(study: StudyFrames, inference: Inference, table: Table, folder: Path | None = None) -> ShownTable:
    """The verdicts of rows against rows in words, with the difference of each for the pointer."""
    made = shown_table(table, study, folder)
    keys = {str(row): str(key) for key, row in study.rows["row"].items()}
    few = len(made.lines) <= WORDS_FIT
    lines = []
    for line in made.lines:
        cells = [line[0]]
        for other in made.headings[1:]:
            item = inference.comparison(keys[line[0].text], keys[other])
            if item is None:
                cells.append(ShownCell(""))
                continue
            told = _difference(item.difference.mean, item.half_width)
            title = f"{line[0].text} against {other}: {item.verdict}, {told}"
            cells.append(_verdict_cell(item.verdict, title, None if few else SIGNS[item.verdict]))
        lines.append(cells)
    signs = ", ".join(f"{sign} {verdict}" for verdict, sign in SIGNS.items())
    caption = f"{made.caption}: what the method of the line is against that of the column ({signs})"
    return replace(made, caption=caption, lines=lines, kind="matrix", notes=made.notes[1:])


def _verdict_cell(verdict: Verdict, title: str, short: str | None) -> ShownCell:
    return ShownCell(verdict, verdict=verdict, title=title, short=short)


def _difference(mean: float, half_width: float) -> str:
    return f"{plus_minus(mean * 100, half_width * 100, signed=True)} points"


def heat_on_page(study: StudyFrames) -> ShownTable | None:
    """The share of the gap that each method closed on each task, as shades; None without tasks and a gap."""
    methods = scored_methods(study)
    shares = study.gap.mean.reindex(list(methods))[list(study.tasks.index)].to_numpy() * 100
    if len(study.tasks) < 2 or not np.isfinite(shares).any():
        return None
    tasks = list(map(str, study.tasks.index))
    lines = [
        [ShownCell(name), *(_share(share, f"{name}, {task}") for share, task in zip(line, tasks, strict=True))]
        for name, line in zip(methods.values(), shares, strict=True)
    ]
    note = "0 is the student before training, 100 the teacher; below 0 is worse than before training."
    frame = pd.DataFrame(shares, index=list(methods.values()), columns=tasks).rename_axis("Method").reset_index()
    return ShownTable(
        "gap_by_task", "Share of the gap closed on each task (%)", ["Method", *tasks], [False, *[True] * len(tasks)],
        lines, [note], None, "heat", names(study), {task: task for task in tasks}, {"csv": _csv(frame)},
    )  # fmt: skip


def _share(share: float, of: str) -> ShownCell:
    if not np.isfinite(share):
        return ShownCell("—")
    return ShownCell(f"{share:z.0f}", float(share), shade=int(np.clip(share, 0, 100)), title=f"{of}: {share:z.1f} %")


def _cell(text: str, order: object, numeric: bool, emphasis: Emphasis | None) -> ShownCell:
    known = numeric and not pd.isna(order)  # type: ignore[call-overload]
    verdict: Verdict | None = text if text in get_args(Verdict) else None  # type: ignore[assignment]
    return ShownCell(text, float(order) if known else None, emphasis, verdict)  # type: ignore[arg-type]


def _files(table: Table, folder: Path | None) -> dict[str, str]:
    if folder is None:
        return {}
    kinds = {"csv": "text/csv", "md": "text/markdown", "tex": "text/x-tex"}
    paths = {ending: folder / f"{table.name}.{ending}" for ending in kinds}
    found = {ending: data_uri(kinds[ending], path.read_bytes()) for ending, path in paths.items() if path.is_file()}
    return {"csv": _csv(table.order), **found}


def _csv(frame: pd.DataFrame) -> str:
    text = io.StringIO()
    write_csv(frame, text)
    return data_uri("text/csv", text.getvalue().encode())


def data_uri(kind: str, content: bytes) -> str:
    """A file that is held by a link to it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
