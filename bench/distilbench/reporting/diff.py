"""The examples on which two runs differ most. Reads their records only.

A pair of an STS task is better placed the nearer the rank of its similarity is to the rank of its gold score, both as
shares of all pairs; a query is better answered the higher its main metric is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from distilbench.core.errors import UserError, one_of
from distilbench.records.frames import PLACE, read_examples
from distilbench.records.record import EXAMPLES_FILE, SLICES, Record, read_run


@dataclass(frozen=True)
class Difference:
    """Two runs' examples side by side."""

    first: Record
    second: Record
    examples: pd.DataFrame
    """task, split, example, gold, first, second (similarity, or the main metric), gain: how much better the second run
    places or answers it, as a fraction. Those that differ most come first."""
    left_out: dict[str, str]
    """Task -> why it is not compared."""

    def summary(self) -> pd.DataFrame:
        """One row per task: both scores (x100), and how many examples are better, worse and the same in the second."""
        rows = []
        for task, part in self.examples.groupby("task", sort=False):
            scores = [100 * record.scores[str(task)]["main_score"] for record in (self.first, self.second)]
            gains = part["gain"]
            counts = {
                "better": int((gains > 0).sum()),
                "worse": int((gains < 0).sum()),
                "same": int((gains == 0).sum()),
            }
            rows.append({"task": task, "first": scores[0], "second": scores[1], **counts})
        return pd.DataFrame(rows)


def diff(first: Path, second: Path, tasks: list[str] | None = None) -> Difference:
    """Compare two runs' folders, `results/<study>/<run_id>`, on the tasks that both were scored on with the same data.

    Raises `UserError` for folders that are no sound records of completed runs, and when there is nothing to compare.
    """
    records = _read(first), _read(second)
    shared = [task for task in records[0].scores if task in records[1].scores]
    for task in tasks or []:
        if task not in shared:
            raise UserError(one_of("task of both runs:", task, shared))
    left_out = {
        task: "the two runs were scored on different data, or in another precision"
        for task in shared
        if len({(facts["data_sha256"], facts["precision"]) for facts in (one.tasks[task] for one in records)}) > 1
    }
    wanted = [task for task in tasks or shared if task not in left_out]
    if not wanted:
        raise UserError(f"{first} and {second} share no task with the same data; there is nothing to compare")
    sides = [_values(folder, record, wanted) for folder, record in zip((first, second), records, strict=True)]
    merged = sides[0].merge(sides[1], on=[*PLACE, "gold"], suffixes=("_first", "_second"))
    if len(merged) < max(map(len, sides)):
        raise UserError(f"{first} and {second} do not hold the same examples; run them again")
    merged["gain"] = merged["quality_second"] - merged["quality_first"]
    order = merged["gain"].abs().sort_values(ascending=False, kind="stable").index
    compared = merged.rename(columns={"value_first": "first", "value_second": "second"}).loc[order]
    return Difference(*records, compared[[*PLACE, "gold", "first", "second", "gain"]].reset_index(drop=True), left_out)


def shown_examples(
    difference: Difference, top: int, texts: Mapping[tuple[str, str, str], str] | None = None
) -> list[dict[str, Any]]:
    """The first examples as plain values, with their texts where they are given by task, split and example."""
    rows = []
    for row in difference.examples.head(top).to_dict("records"):
        place = (row["task"], row["split"], row["example"])
        values = {key: round(float(row[key]), 4) for key in ("first", "second")}
        gold = {} if pd.isna(row["gold"]) else {"gold": row["gold"]}
        text = {} if texts is None else {"text": texts.get(place, "")}
        rows.append(
            {"task": row["task"], "example": row["example"], **values, "gain": round(100 * row["gain"], 2)}
            | gold
            | text
        )
    return rows


def _read(folder: Path) -> Record:
    record = read_run(folder)
    if not (folder / EXAMPLES_FILE).is_file():
        raise UserError(f"{folder} holds no examples (its status is {record.status}); choose a completed run")
    return record


def _values(folder: Path, record: Record, tasks: list[str]) -> pd.DataFrame:
    """PLACE, gold, value, and quality: higher is better."""
    examples = read_examples([record], folder.parent).drop(columns=["run_id", SLICES])
    parts = []
    for task in tasks:
        part = examples[examples["task"] == task]
        if part["value"].isna().any():
            metric = record.tasks[task]["main_metric"]
            raise UserError(f"{folder} has no {metric} of single queries of {task}; run the study again")
        ranks = part.groupby("split")[["value", "gold"]].rank(pct=True)
        are_pairs = part["gold"].notna().all()
        parts.append(part.assign(quality=-(ranks["value"] - ranks["gold"]).abs() if are_pairs else part["value"]))
    return pd.concat(parts, ignore_index=True)
