"""What git knows of a baseline: whether it lost or changed scores that no blessing tells of.

The file's own sum refuses what was edited by accident. Who seals it again is seen here, and by who reviews the commit.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from distilbench.core.stored_json import parsed, read_object

MOST_VERSIONS = 20
TIMEOUT_S = 10


def unexplained(baseline: Path) -> list[str]:
    """A sentence where scores differ from a committed version's without an entry in the history; else nothing.

    A blessing adds an entry for every mean that it changes, and keeps the older ones. Nothing where there is no git, or
    the file is in no repository.
    """
    try:
        now = read_object(baseline)
        for commit, before in _versions(baseline):
            if what := _difference(before, now):
                return [
                    f"{baseline} differs from its version in commit {commit[:10]} in {what}, without an entry in its "
                    f"history; see git log -p {baseline.name}."
                ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, subprocess.SubprocessError):
        return []
    return []


def _versions(baseline: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Commit and content, the newest first; those that are no baseline are left out."""
    for commit in _git(baseline, "log", f"-{MOST_VERSIONS}", "--format=%H", "--", baseline.name).decode().split():
        try:
            content = parsed(_git(baseline, "show", f"{commit}:./{baseline.name}"))
        except (ValueError, subprocess.SubprocessError):
            continue
        if isinstance(content, dict) and "runs" in content:
            yield commit, content


def _git(baseline: Path, *arguments: str) -> bytes:
    folder = baseline.resolve().parent
    asked = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, timeout=TIMEOUT_S, check=True)
    return asked.stdout


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What lacks an entry, in a few words."""
    older, newer = before.get("history", []), now.get("history", [])
    if newer[: len(older)] != older:
        return "entries that are gone"
    if len(newer) > len(older):
        return ""
    old, new = _means(before), _means(now)
    changed = [place for place, value in old.items() if new.get(place) != value]
    if not changed:
        return ""
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    return f"{changed[0][0]} on {changed[0][1]}{more}"


def _means(content: dict[str, Any]) -> dict[tuple[str, str], float]:
    """(row, task) -> mean over its runs."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in content["runs"].values():
        for task, score in run["scores"].items():
            found.setdefault((run["label"], task), []).append(score)
    return {place: fmean(scores) for place, scores in found.items()}
