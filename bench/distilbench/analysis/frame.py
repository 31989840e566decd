"""Records as frames. Every frame of runs is indexed by run_id, every frame of rows by the row's key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from distilbench.analysis import comparable, stats
from distilbench.core.errors import UserError
from distilbench.records.record import ROLE_ORDER, Record
from distilbench.records.schema import MAIN

OVERALL, BY_TYPE = "Mean (Task)", "Mean (TaskType)"
"""The means of mteb's leaderboard: over tasks, and over the means of the task types."""
ALPHA, MARGIN, RESAMPLES = 0.05, 0.005, 2000
"""Family-wise error; the difference below which two methods count as equivalent, as a fraction; bootstrap resamples."""
TYPE_ORDER = {"STS": 0, "Retrieval": 1}
ROLE_NAME = {"ceiling": "teacher", "floor": "student before training", "reference": "static student, not trained"}


@dataclass(frozen=True)
class SeedSummary:
    """Over the completed seeds of each row (rows x columns); not-a-number where a run lacks the value or n is short."""

    mean: pd.DataFrame
    sd: pd.DataFrame
    half_width: pd.DataFrame

    def percent(self, key: str, column: str) -> tuple[float, float]:
        """Mean and half-width of one cell, x100."""
        return self.mean[column].loc[key] * 100, self.half_width[column].loc[key] * 100


@dataclass(frozen=True)
class HalfWidths:
    """Rows x (tasks and groups)."""

    scores: pd.DataFrame
    gaps: pd.DataFrame
    """Of the shares of the gap closed."""


@dataclass(frozen=True)
class StudyFrames:
    """All that tables and figures show, scores and shares as fractions."""

    name: str
    records: dict[str, Record]
    """run_id -> record."""
    runs: pd.DataFrame
    """key, role, label, row (the name shown), letters, seed, status, limit."""
    tasks: pd.DataFrame
    """task -> type, metric; in the order of the columns of `scores`."""
    scores: pd.DataFrame
    """Completed runs x tasks: main score."""
    averages: pd.DataFrame
    """Completed runs x task groups; not-a-number when the run lacks one of the group's tasks."""
    gaps: pd.DataFrame
    """Completed runs x (tasks and groups): share of the gap closed between floor (0) and ceiling (1)."""
    costs: pd.DataFrame
    """Completed runs x ledger entries; seconds as `seconds_<part>`."""
    differences: dict[str, dict[str, str]]
    """Setting in which rows of different letters differ -> letter -> its value as JSON; empty without letters."""
    margin: float = MARGIN
    """Below it two methods count as equivalent."""
    half_widths: HalfWidths | None = None
    """Of the intervals over seeds and examples, where examples are known."""

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One line per row of every table: ceiling, methods by mean overall score, floor. Columns role, label, row."""
        rows = self.runs.groupby("key").first()[["role", "label", "row"]]
        rows["order"] = rows["role"].map(ROLE_ORDER)
        rows["overall"] = -self.average.mean[OVERALL].reindex(rows.index)
        return rows.sort_values(["order", "overall", "row"])[["role", "label", "row"]]

    @cached_property
    def score(self) -> SeedSummary:
        """Of `scores`."""
        return _with_examples(over_seeds(self.runs, self.scores), self.half_widths.scores if self.half_widths else None)

    @cached_property
    def average(self) -> SeedSummary:
        """Of `averages`."""
        return _with_examples(
            over_seeds(self.runs, self.averages), self.half_widths.scores if self.half_widths else None
        )

    @cached_property
    def gap(self) -> SeedSummary:
        """Of `gaps`."""
        return _with_examples(over_seeds(self.runs, self.gaps), self.half_widths.gaps if self.half_widths else None)


def make_study(name: str, records: Sequence[Record], margin: float = MARGIN) -> StudyFrames:
    """Gather the records of one study. Raises `UserError` when two of them have one run_id."""
    by_id = {record.run_id: record for record in records}
    if len(by_id) < len(records):
        twice = pd.Series([record.run_id for record in records])
        raise UserError(f"{name} has two records of run {twice[twice.duplicated()].iloc[0]}; delete one of them")
    letters, differences = comparable.split(records)
    runs = pd.DataFrame([_run(record, letters[record.run_id]) for record in records]).set_index("run_id")
    tasks = _tasks(records)
    completed = [record for record in records if record.status == "completed"]
    ids = pd.Index([record.run_id for record in completed], name="run_id")
    scores = _of_metric(completed, tasks, MAIN)
    averages = pd.DataFrame({name: _average(scores, weights) for name, weights in groups(tasks).items()})
    gaps = _gaps(completed, pd.concat([scores, averages], axis=1))
    costs = pd.DataFrame([_costs(record.ledger) for record in completed], index=ids).sort_index(axis=1)
    return StudyFrames(name, by_id, runs, tasks, scores, averages, gaps, costs, differences, margin)


def of_metric(study: StudyFrames, metric: str) -> pd.DataFrame:
    """Completed runs x tasks: a metric of the records; not-a-number where a task does not have it."""
    completed = [study.records[str(run_id)] for run_id in study.scores.index]
    return _of_metric(completed, study.tasks, metric)


def _of_metric(completed: Sequence[Record], tasks: pd.DataFrame, metric: str) -> pd.DataFrame:
    ids = pd.Index([record.run_id for record in completed], name="run_id")
    found = [{task: scores.get(metric) for task, scores in record.scores.items()} for record in completed]
    return pd.DataFrame(found, index=ids, columns=list(tasks.index), dtype="float64")


def row_names(study: StudyFrames, role: str) -> dict[str, str]:
    """Key -> name shown of the rows of one role, in the order of the tables."""
    rows = study.rows[study.rows["role"] == role]
    return dict(zip(map(str, rows.index), map(str, rows["row"]), strict=True))


def records_of(study: StudyFrames, key: str) -> list[Record]:
    """The records of a row, one a seed."""
    return [study.records[str(run_id)] for run_id in study.runs.index[study.runs["key"] == key]]


def median_costs(study: StudyFrames) -> pd.DataFrame:
    """Rows x ledger entries: medians over seeds, since a busy machine's times have outliers."""
    medians = study.costs.groupby(study.runs["key"].reindex(study.costs.index)).median()
    return medians.reindex(study.runs["key"].unique())


def diverged_runs(study: StudyFrames) -> dict[str, int]:
    """How many runs diverged, of the rows of which any did."""
    diverged = study.runs.loc[study.runs["status"] == "diverged", "key"]
    return {str(key): int(count) for key, count in diverged.value_counts(sort=False).items()}


def groups(tasks: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Name of an average -> weight of its tasks: one per task type, then the mean over tasks.

    Where there are several types, the mean over their means follows.
    """
    by_type = {
        str(kind): dict.fromkeys(map(str, part.index), 1 / len(part))
        for kind, part in tasks.groupby("type", sort=False)
    }
    means = {OVERALL: dict.fromkeys(map(str, tasks.index), 1 / max(len(tasks), 1))}
    if len(by_type) > 1:
        means[BY_TYPE] = {task: weight / len(by_type) for part in by_type.values() for task, weight in part.items()}
    return {**by_type, **means}


def over_seeds(runs: pd.DataFrame, values: pd.DataFrame) -> SeedSummary:
    """Mean, standard deviation and half-width of the interval of each column of `values` (runs x columns) per row."""
    parts = values.groupby(runs["key"].reindex(values.index))

    def apply(statistic: Callable[[stats.Array], stats.Array]) -> pd.DataFrame:
        by_row = {key: statistic(part.to_numpy()) for key, part in parts}
        frame = pd.DataFrame.from_dict(by_row, orient="index", columns=list(values.columns), dtype="float64")
        return frame.reindex(runs["key"].unique())

    return SeedSummary(apply(lambda part: part.mean(axis=0)), apply(stats.sample_sd), apply(stats.half_width))


def _average(scores: pd.DataFrame, weights: dict[str, float]) -> pd.Series[float]:
    """Not-a-number where a run lacks a task, and without tasks."""
    total = (scores[list(weights)] * list(weights.values())).sum(axis=1, skipna=False)
    return total if weights else total * np.nan


def _with_examples(summary: SeedSummary, wider: pd.DataFrame | None) -> SeedSummary:
    """With the intervals that cover the choice of examples too, where there are some."""
    if wider is None:
        return summary
    wider = wider.reindex(index=summary.half_width.index, columns=summary.half_width.columns)
    return replace(summary, half_width=wider.where(wider.notna(), summary.half_width))


def references(record: Record, role: str, completed: Sequence[Record]) -> list[str]:
    """run_ids of the comparable runs of `role` that `record` is measured against: of its seed if there is one."""
    mine = comparable.settings_of(record)
    fitting = [
        other
        for other in completed
        if other.role == role and not comparable.conflicts(mine, comparable.settings_of(other))
    ]
    same = [other for other in fitting if other.seed == record.seed]
    return [other.run_id for other in (same or fitting)]


def _run(record: Record, letters: str) -> dict[str, Any]:
    name = record.label
    if record.role in ROLE_NAME:
        name = f"{record.role} ({ROLE_NAME[record.role] if name == record.role else name})"
    return {
        "run_id": record.run_id,
        "key": f"{record.role}:{record.label}:{letters}",
        "role": record.role,
        "label": record.label,
        "row": f"{name} [{letters}]" if letters else name,
        "letters": letters,
        "seed": record.seed,
        "status": record.status,
        "limit": record.limit,
    }


def _tasks(records: Sequence[Record]) -> pd.DataFrame:
    known: dict[str, tuple[str, str]] = {}
    for record in records:
        for task in record.scores:
            facts = record.tasks[task]
            known.setdefault(task, (facts["type"], facts["main_metric"]))
    names = sorted(known, key=lambda task: (TYPE_ORDER.get(known[task][0], 2), known[task][0], task))
    return pd.DataFrame([known[name] for name in names], index=pd.Index(names), columns=["type", "metric"])


def _costs(ledger: dict[str, Any]) -> dict[str, float]:
    seconds = {f"seconds_{part}": value for part, value in ledger["seconds"].items()}
    counts = {name: value for name, value in ledger.items() if name != "seconds"}
    return {name: float(value) for name, value in (counts | seconds).items() if isinstance(value, int | float)}


def _gaps(completed: Sequence[Record], values: pd.DataFrame) -> pd.DataFrame:
    shares = {}
    for record in completed:
        floor, ceiling = (
            values.loc[references(record, role, completed)].mean(skipna=False).to_numpy()
            for role in ("floor", "ceiling")
        )
        shares[record.run_id] = stats.gap_share(values.loc[record.run_id].to_numpy(), floor, ceiling)
    return pd.DataFrame.from_dict(shares, orient="index", columns=list(values.columns), dtype=np.float64)
