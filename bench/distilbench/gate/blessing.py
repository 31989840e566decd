"""Putting a candidate in the baseline's place: what changes is said, a drop needs a reason, and both are kept.

A baseline's `history` has an entry for each change: time, commit, candidate, verdict against the one before, the
reason that was given for a drop, and row -> task -> [score before, score after], means over the runs, null where there
is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from distilbench.core.errors import UserError
from distilbench.gate.baseline import Scores, bless, read_baseline
from distilbench.gate.check import CheckResult, check
from distilbench.gate.history import commit
from distilbench.gate.output import headline

Changes = dict[str, dict[str, list[float | None]]]
"""Row -> task -> score before and after."""


@dataclass(frozen=True)
class Blessing:
    """What became of it."""

    changes: list[str]
    """A sentence for each score that changes."""
    notes: list[str] = field(default_factory=list)
    refused: str | None = None
    """Why the baseline was left as it was."""


def replace_baseline(
    scores: Scores, path: Path, candidate: str, margin: float, alpha: float, why: str | None, *, as_models: bool
) -> Blessing:
    """Write a candidate as the baseline, unless it is shown to be worse than the one there and no reason is given.

    What is there and cannot be read is replaced. `as_models` as of `distilbench.gate.check.check`.
    """
    before = _there(path)
    if before is None:
        bless(scores, path)
        return Blessing([])
    changes = changes_between(before, scores)
    said = [_sentence(row, task, *pair) for row, tasks in changes.items() for task, pair in tasks.items()]
    compared = check(scores, before, margin, alpha, as_models=as_models)
    if compared.verdict == "regressed" and why is None:
        return Blessing(said, refused=headline(compared))
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "candidate": candidate,
        "verdict": compared.verdict,
        "why": why or "",
        "scores": changes,
    }
    bless(replace(scores, history=[*before.history, *([entry] if changes else [])]), path)
    return Blessing(said, _notes(compared))


def _there(path: Path) -> Scores | None:
    try:
        return read_baseline(path) if path.is_file() else None
    except UserError:
        return None


def changes_between(before: Scores, after: Scores) -> Changes:
    """Where the means of a row's runs on a task differ."""
    old, new = _means(before), _means(after)
    found: Changes = {}
    for row in sorted({*old.index} | {*new.index}):
        for task in sorted({*old.columns} | {*new.columns}):
            pair = [_value(side, row, task) for side in (old, new)]
            if pair[0] != pair[1]:
                found.setdefault(row, {})[task] = pair
    return found


def _means(side: Scores) -> pd.DataFrame:
    return side.scores.groupby(side.runs["label"].map(str)).mean()


def _value(means: pd.DataFrame, row: str, task: str) -> float | None:
    return float(means[task][row]) if row in means.index and task in means.columns else None


def _sentence(row: str, task: str, before: float | None, after: float | None) -> str:
    shown = ["none" if value is None else f"{value * 100:.2f}" for value in (before, after)]
    change = "" if before is None or after is None else f" ({(after - before) * 100:+.2f})"
    return f"{row} on {task}: {shown[0]} -> {shown[1]}{change}"


def _notes(compared: CheckResult) -> list[str]:
    not_judged = ("not comparable", "not evaluated", "inconclusive")
    told: dict[str, Any] = dict.fromkeys(compared.notes)
    return [f"against the baseline before: {headline(compared)}", *told] if compared.verdict in not_judged else []
