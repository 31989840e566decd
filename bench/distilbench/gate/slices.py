"""Slices as columns of the check: which examples they have, the built-in ones and those of a user's own list.

A slice is compared on the average of its tasks of one type, each with the metric of the task. It stands guard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from distilbench.analysis.bootstrap import TaskExamples
from distilbench.analysis.examples import by_split
from distilbench.core.bounds import check_size
from distilbench.core.errors import UserError, one_of
from distilbench.gate.baseline import Scores
from distilbench.records.frames import PLACE
from distilbench.records.record import SLICES

FEWEST = 30
"""Examples of a task in a slice, from which its error can be told by a bootstrap."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
READERS = {
    ".csv": lambda path: pd.read_csv(path, dtype=str, keep_default_na=False),
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False).astype(str),
}


@dataclass(frozen=True)
class Slice:
    """A named set of examples on the tasks of one type."""

    column: str
    examples: dict[str, list[TaskExamples]]
    """Task -> its splits."""
    sizes: dict[str, int]
    """Task -> its examples in the slice, those of tasks that are left out too."""
    reason: str = ""
    """Why nothing can be told, where nothing can."""


def read_list(path: Path) -> pd.DataFrame:
    """A user's own slices: task, example, slice, and split where the file has it.

    Raises `UserError` for a file that cannot be read, lacks a column, is empty, or names a slice by more than a word.
    """
    if path.suffix not in READERS:
        raise UserError(f"--slices: {path} is none of {', '.join(READERS)}; it wants the columns task, example, slice")
    try:
        check_size(path)
        listed: pd.DataFrame = READERS[path.suffix](path)
    except (OSError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(f"--slices: {path} cannot be read ({why}); mend the file") from None
    for column in ("task", "example", "slice"):
        if column not in listed:
            raise UserError(f"--slices: {path}: {one_of('column', column, map(str, listed.columns))}")
    if listed.empty:
        raise UserError(f"--slices: {path} lists no example")
    for row, name in enumerate(listed["slice"], start=1):
        if not NAME.fullmatch(name):
            raise UserError(f"--slices: {path} row {row} has the slice {name!r}; name it by one word")
    return listed[[column for column in (*PLACE, "slice") if column in listed]]


def with_list(side: Scores, listed: pd.DataFrame) -> pd.DataFrame:
    """The examples of a side with a user's slices added to those that they are in.

    Raises `UserError` for tasks and examples that are not there, and for a name that is taken.
    """
    examples = side.examples
    for task in listed["task"].unique():
        if task not in side.tasks:
            raise UserError(f"--slices: the baseline has no scores of {task}; it has {', '.join(side.tasks)}")
    if taken := sorted(set(listed["slice"]) & _names(examples)):
        raise UserError(f"--slices: there is a slice {taken[0]} already; give yours another name")
    keys = [column for column in PLACE if column in listed]
    own = listed.drop_duplicates().groupby(keys)["slice"].agg(" ".join).rename("own").reset_index()
    known = own.merge(examples[keys].drop_duplicates(), how="left", on=keys, indicator="found")
    if len(missing := known[known["found"] != "both"]):
        first = " ".join(map(str, missing.iloc[0][keys]))
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(f"--slices: the baseline has no example {first}{more}; mend the list")
    joined = examples.merge(own, how="left", on=keys)
    names = (joined[SLICES] + " " + joined["own"].fillna("")).str.strip()
    return joined.assign(**{SLICES: names}).drop(columns="own")


def _names(examples: pd.DataFrame) -> set[str]:
    return {name for value in examples[SLICES].unique() for name in value.split()}


def members(baseline: Scores) -> pd.DataFrame:
    """The examples of each slice that the baseline was blessed with: task, split, example, slice."""
    once = baseline.examples.drop_duplicates(PLACE)
    listed = (
        once.assign(slice=once[SLICES].astype(object).fillna("").str.split()).explode("slice").dropna(subset="slice")
    )
    return listed[[*PLACE, "slice"]]


def slices(belongs: pd.DataFrame, examples: pd.DataFrame, kinds: dict[str, str], runs: list[str]) -> list[Slice]:
    """Every slice on every task type, in the order of their names.

    `belongs`: of `members`. `examples`: of all runs, with their names under run_id. `kinds`: task -> type, of those to
    look at.
    """
    made = []
    of_task = {str(task): part for task, part in examples.groupby("task")}
    for name in sorted(set(belongs["slice"])):
        mine = {str(task): part[PLACE] for task, part in belongs[belongs["slice"] == name].groupby("task")}
        for kind in dict.fromkeys(kinds.values()):
            parts = {task: mine[task] for task in kinds if task in mine and kinds[task] == kind}
            if parts:
                made.append(_slice(name, kind, parts, of_task, runs))
    return made


def _slice(
    name: str, kind: str, parts: dict[str, pd.DataFrame], examples: dict[str, pd.DataFrame], runs: list[str]
) -> Slice:
    sizes = {task: len(part) for task, part in parts.items()}
    large = {
        task: by_split(examples[task].merge(part, on=PLACE), runs)
        for task, part in parts.items()
        if sizes[task] >= FEWEST
    }
    usable = {task: splits for task, splits in large.items() if all(map(_can_be_ranked, splits))}
    named = list(usable or sizes)
    column = f"{named[0] if len(named) == 1 else kind}: {name}"
    reason = ""
    if not large:
        reason = f"{max(sizes.values())} examples are too few (it takes {FEWEST})"
    elif not usable:
        reason = "all its pairs have the same gold score: there is nothing to rank"
    return Slice(column, usable, sizes, reason)


def _can_be_ranked(examples: TaskExamples) -> bool:
    return examples.gold_N is None or bool(np.ptp(examples.gold_N) > 0)
