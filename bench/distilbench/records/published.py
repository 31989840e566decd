"""The papers' tables and MTEB's published figures as facts: how `published.json` beside this file is read.

`results/README.md` describes the fields. Imports neither torch nor mteb.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Literal

PUBLISHED_FILE = "published.json"


@dataclass(frozen=True, kw_only=True)
class PublishedTask:
    """One column of a table."""

    name: str
    """As mteb names the task, where mteb has it."""
    metric: str
    """As mteb names the metric, e.g. `cosine_spearman`."""
    examples: int | None
    """Pairs or queries that were scored; None when not stated."""
    own_set: str | None = None
    """The task here that holds exactly these examples, where the one of that name holds others."""
    content: str | None = None
    """Hash of the texts and scores with which the figure comes out here (`distilbench.evaluation.calibration`)."""
    ranked: bool = True
    """Whether the column enters averages and the order of the rows."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One model of a table."""

    label: str
    method: str | None
    """The method's name here; None when there is no such method, or the source does not settle which it is."""
    role: Literal["teacher", "student", "other"]
    student: str
    """The encoder that was trained. Only rows of one encoder are compared with each other."""
    parameters: int | None
    width: int | None
    scores: Mapping[str, float]
    """Task -> score x100."""
    average: float | None
    """As stated by the source."""
    average_follows: bool = True
    """Whether the stated average is that of the cells, up to rounding."""
    models: tuple[str, ...] = ()
    """Names under which a study may have this model as its teacher."""
    weights: str | None = None
    """Hash of its weights, as a record's `teacher.sha256`: it is this model under whatever name."""

    def mean(self, tasks: Sequence[str]) -> float:
        """Average of the cells of `tasks`, each of which the row must have; not-a-number without tasks."""
        return sum(self.scores[task] for task in tasks) / len(tasks) if tasks else float("nan")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the numbers of a table came about, in words; None where that is not stated."""

    family: str
    evaluation: str | None
    teacher: str | None
    student: str | None
    text: str | None
    supervised_stage: str | None
    budget: str | None
    selection: str | None
    """How hyperparameters and checkpoint were chosen."""
    seeds: str | None


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a table was published."""

    paper: str
    year: int | None
    arxiv: str | None

    def __str__(self) -> str:
        """The citation in one line."""
        parts = [self.paper, str(self.year or ""), f"arXiv:{self.arxiv}" if self.arxiv else ""]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One table of numbers with all that must be known to read it."""

    id: str
    kind: Literal["paper", "mteb"]
    title: str
    source: Source
    obtained: str
    """How the numbers came here: read in the paper, in a README, quoted by others."""
    caveats: tuple[str, ...]
    protocol: Protocol
    tasks: tuple[PublishedTask, ...]
    rows: tuple[PublishedRow, ...]

    def with_own_sets(self, scored: Collection[str]) -> PublishedTable:
        """The table with its tasks under the names of the very sets that were used, where those are among `scored`."""
        names = {task.name: task.own_set for task in self.tasks if task.own_set in scored}
        tasks = tuple(replace(task, name=names.get(task.name) or task.name) for task in self.tasks)
        rows = [
            replace(row, scores={names.get(task) or task: score for task, score in row.scores.items()})
            for row in self.rows
        ]
        return replace(self, tasks=tasks, rows=tuple(rows))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What was published of a model on a task."""

    model: str
    task: PublishedTask
    score: float
    """As a fraction."""
    source: str


def figures_of(model: str, weights: str) -> dict[str, Figure]:
    """Task -> mteb's figure of a model, which is known by one of its names or by the hash of its weights."""
    return {
        task.name: Figure(model=row.label, task=task, score=row.scores[task.name] / 100, source=str(table.source))
        for table in load_published()
        if table.kind == "mteb"
        for row in table.rows
        if model in row.models or weights == row.weights
        for task in table.tasks
        if task.name in row.scores
    }


def load_published() -> list[PublishedTable]:
    """All tables of the installed `published.json`, in its order."""
    values = json.loads(resources.files("distilbench.records").joinpath(PUBLISHED_FILE).read_text(encoding="utf-8"))
    return [_table(table) for table in values["tables"]]


def _table(values: dict[str, Any]) -> PublishedTable:
    parts = {
        "source": Source(**values["source"]),
        "caveats": tuple(values["caveats"]),
        "protocol": Protocol(**values["protocol"]),
        "tasks": tuple(PublishedTask(**task) for task in values["tasks"]),
        "rows": tuple(PublishedRow(**row | {"models": tuple(row.get("models", ()))}) for row in values["rows"]),
    }
    return PublishedTable(**(values | parts))
