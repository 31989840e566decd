"""What the gate said over time: a file of JSON lines that only grows, its change points, and a figure of it; and what a
baseline was changed by.

A baseline's `history` has an entry for each change: time, commit, candidate, verdict against the one before, the
reason that was given for a drop, and row -> task -> [score before, score after], means over the runs, null where there
is none.
"""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri

from distilbench.core.errors import UserError
from distilbench.core.sealed import undisturbed
from distilbench.core.stored_json import Stored, check_shape, check_sum, parsed, summed
from distilbench.gate.baseline import Scores, bless, read_baseline
from distilbench.gate.check import CheckResult, check
from distilbench.gate.output import headline

SHORTEST = 3
"""Checks on each side of a change point, at least."""
LEVEL = 0.01
"""Chance of a change point in a series that has none, about."""
EQUAL = 1e-9

Array = npt.NDArray[np.float64]


def commit() -> str | None:
    """The commit that is checked: of the CI job, or of the working folder's repository."""
    if named := os.environ.get("GITHUB_SHA") or os.environ.get("CI_COMMIT_SHA"):
        return named
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    return asked.stdout.strip() or None


def append(path: Path, outcome: CheckResult, candidate: str, baseline: str) -> None:
    """Add one line for one check. Raises `OSError` when the file cannot be written."""
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "candidate": candidate,
        "baseline": baseline,
        "verdict": outcome.verdict,
        "margin": outcome.margin,
        "alpha": outcome.alpha,
        "lines": [
            {
                "label": line.label,
                "column": line.column,
                "verdict": line.verdict,
                "candidate": line.candidate,
                "half_width": line.half_width,
            }
            for line in outcome.lines
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_fifo():
        raise OSError(errno.EINVAL, "a pipe keeps no history", str(path))
    # One write of one line: two jobs that add at the same time do not cut into each other.
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(summed(entry), allow_nan=False) + "\n")


class _LineShape(Stored):
    label: str
    column: str
    verdict: str
    candidate: float | None
    half_width: float | None


class _CheckShape(Stored):
    """What a line of the history must hold."""

    time: str
    commit: str | None
    verdict: str
    lines: list[_LineShape]


def read(path: Path) -> list[dict[str, Any]]:
    """All checks, the oldest first. Raises `UserError` for a line that is not one of them, or was changed."""
    return undisturbed(path, lambda: _read_now(path))


def _read_now(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"there is no history {path}; distilbench check --history {path} begins one")
    entries = []
    # Other characters that end a line for Python may stand within a name.
    content = path.read_bytes().rstrip()
    for number, line in enumerate(content.split(b"\n") if content else [], start=1):
        try:
            entry = parsed(line)
            check_shape(_CheckShape, entry)
            check_sum(entry)
        except ValueError as error:
            raise UserError(f"{path} line {number} is not a check ({error}); restore it, or remove the line") from None
        entries.append(entry)
    return entries


def series(entries: list[dict[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """(row, column) -> its score at each check; not-a-number where it was not scored."""
    scores: dict[tuple[str, str], list[float]] = defaultdict(lambda: [math.nan] * len(entries))
    for place, entry in enumerate(entries):
        for line in entry["lines"]:
            if line["candidate"] is not None:
                scores[line["label"], line["column"]][place] = float(line["candidate"])
    return dict(scores)


def change_points(values: list[float]) -> list[int]:
    """Places from which the level is another than before. Not-a-numbers are passed over.

    The series is cut where the means of both sides differ most in units of their error, if that is more than noise
    would give at any of its places (Bonferroni), and the parts are cut in turn. Noise is taken from the differences
    between neighbours, which a few changes of level hardly touch: their median size over 0.954, the value for normal
    noise. Without noise any difference counts.
    """
    places = [place for place, value in enumerate(values) if math.isfinite(value)]
    y = np.array([values[place] for place in places])
    if len(y) < 2 * SHORTEST:
        return []
    noise = float(np.median(np.abs(np.diff(y)))) / (math.sqrt(2) * 0.6745)
    bound = float(ndtri(1 - LEVEL / (2 * len(y))))
    return [places[cut] for cut in sorted(_cuts(y, 0, noise, bound))]


def _cuts(y: Array, start: int, noise: float, bound: float) -> list[int]:
    """Cuts of one part, which begins at `start` of the whole."""
    places = range(SHORTEST, len(y) - SHORTEST + 1)
    if not places:
        return []
    sizes = [abs(y[:cut].mean() - y[cut:].mean()) / math.sqrt(1 / cut + 1 / (len(y) - cut)) for cut in places]
    best = int(np.argmax(sizes))
    if sizes[best] <= max(noise * bound, EQUAL):
        return []
    cut = places[best]
    return [*_cuts(y[:cut], start, noise, bound), start + cut, *_cuts(y[cut:], start + cut, noise, bound)]


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

    What is there and cannot be read is replaced, which is said. `as_models` as of `distilbench.gate.check.check`.
    """
    try:
        before = read_baseline(path) if os.path.lexists(path) else None
    except UserError as error:
        bless(scores, path)
        return Blessing([], [f"the baseline that was there was replaced without being compared: {error}"])
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


def changes_between(before: Scores, after: Scores) -> Changes:
    """Where the means of a row's runs on a task differ, but for the order in which they are summed."""
    old, new = _means(before), _means(after)
    found: Changes = {}
    for row in sorted({*old.index} | {*new.index}):
        for task in sorted({*old.columns} | {*new.columns}):
            pair = [_value(side, row, task) for side in (old, new)]
            if not _equal(*pair):
                found.setdefault(row, {})[task] = pair
    return found


def _means(side: Scores) -> pd.DataFrame:
    return side.scores.groupby(side.runs["label"].map(str)).mean()


def _value(means: pd.DataFrame, row: str, task: str) -> float | None:
    return float(means[task][row]) if row in means.index and task in means.columns else None


def _equal(before: float | None, after: float | None) -> bool:
    if before is None or after is None:
        return before is after
    return math.isclose(before, after, rel_tol=1e-12, abs_tol=1e-12)


def _sentence(row: str, task: str, before: float | None, after: float | None) -> str:
    shown = ["none" if value is None else f"{value * 100:.2f}" for value in (before, after)]
    change = "" if before is None or after is None else f" ({(after - before) * 100:+.2f})"
    return f"{row} on {task}: {shown[0]} -> {shown[1]}{change}"


def _notes(compared: CheckResult) -> list[str]:
    not_judged = ("not comparable", "not evaluated", "inconclusive")
    said = f"against the baseline before: {headline(compared)}"
    return [said, *compared.notes] if compared.verdict in not_judged else []
