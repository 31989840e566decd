"""Every run of a study: a table of all, and what the record of each states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from distilbench.analysis.frame import OVERALL, StudyFrames
from distilbench.records.record import Record
from distilbench.reporting.cells import Cell, decimal_cell, number, study_table
from distilbench.reporting.formats.render import Table

DETAILS = (
    "hyperparameters",
    "scores",
    "ledger",
    "response",
    "vectors",
    "speed",
    "contamination",
    "budget",
    "text",
    "train",
    "student",
    "teacher",
    "identity",
    "environment",
)


@dataclass(frozen=True)
class ShownRun:
    """One run."""

    run_id: str
    place: int
    """Of its row in the study, by which filters know it."""
    summary: str
    error: str | None
    details: dict[str, dict[str, str]]
    """Heading -> name -> value, as texts."""


def run_table(study: StudyFrames) -> Table:
    """One line per run."""
    overall, seconds = study.averages[OVERALL] * 100, study.costs.get("seconds_train", pd.Series(dtype="float64"))
    lines: list[Mapping[str, Cell]] = [
        {
            "Method": run["row"],
            "Seed": (str(run["seed"]), run["seed"]),
            "Status": run["status"],
            OVERALL: decimal_cell(overall.get(run_id, math.nan)),
            "Training (s)": (number(seconds.get(run_id, math.nan)), seconds.get(run_id, math.nan)),
            "Run": str(run_id),
        }
        for run_id, run in study.runs.iterrows()
    ]
    return study_table(study, "runs", "every run", lines, [])


def shown_runs(study: StudyFrames) -> list[ShownRun]:
    """All runs, those without scores first."""
    places = {str(key): place for place, key in enumerate(study.rows.index)}
    records = sorted(study.records.values(), key=lambda record: record.status == "completed")
    return [_run(study, record, places[str(study.runs.at[record.run_id, "key"])]) for record in records]


def _run(study: StudyFrames, record: Record, place: int) -> ShownRun:
    row = str(study.runs["row"].loc[record.run_id])
    details = {name: getattr(record, name) for name in DETAILS}
    details["response"] = {f"{row['share']:.4g} of the budget": row["score"] for row in record.response}
    shown = {name: {str(key): _plain(value) for key, value in values.items()} for name, values in details.items()}
    return ShownRun(
        record.run_id,
        place,
        f"{row}, seed {record.seed}: {record.status}",
        record.error,
        {name: values for name, values in shown.items() if values},
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(part)}" for key, part in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)
