"""What the gate said over time: a file of JSON lines that only grows, its change points, and a figure of it."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from distilbench.core.errors import UserError
from distilbench.gate.check import CheckResult

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
    # One write of one line: two jobs that add at the same time do not cut into each other.
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry, allow_nan=False) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All checks, the oldest first. Raises `UserError` for a line that is not one of them."""
    if not path.is_file():
        raise UserError(f"there is no history {path}; distilbench check --history {path} begins one")
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            (
                [(item["label"], item["column"], item["candidate"]) for item in entry["lines"]],
                entry["commit"],
                entry["time"],
            )
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{path} line {number} is not a check; remove it") from None
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
