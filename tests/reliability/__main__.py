"""Torture: all campaigns of this folder one after the other, from one seed; prints their tallies as a table.

    python -m tests.reliability            # those of RELIABILITY.md, about three hours of one core
    python -m tests.reliability --share 0.02

Exits with 1 if one of them found something.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Campaign:
    """A script, how it is told how many trials to make, and which of its counts must come out as none."""

    script: str
    option: str
    trials: int
    none: tuple[str, ...]
    least: int
    more: tuple[str, ...] = ()


LOST = ("differing_files", "made_twice", "steps_too_many")
CAMPAIGNS = {
    "kills of a study": Campaign("kills", "--kills", 100, ("lost_completed_runs", "differing_files"), 2),
    "kills of other verbs": Campaign("verbs", "--kills", 100, ("stuck", "differing_files"), 10),
    "kills with two workers": Campaign("engines", "--kills", 40, LOST, 3, ("--engine", "local")),
    "kills on Ray": Campaign("engines", "--kills", 40, LOST, 4, ("--engine", "ray")),
    "changed bytes": Campaign("corruption", "--trials", 300, ("missed", "differing_files"), 18),
    "mutated files of results": Campaign("mutated", "--mutants", 500, ("tracebacks", "silent_uses", "unclear"), 60),
    "malformed studies and data": Campaign(
        "malformed", "--inputs", 300, ("tracebacks", "silent_uses", "unclear", "endless"), 40
    ),
    "special files": Campaign("special_files", "--uses", 400, ("tracebacks", "silent_uses", "unclear", "endless"), 50),
    "damaged mirrors": Campaign("mirrors", "--mirrors", 60, ("wrong",), 7),
}


def run(what: str, share: float, seed: int) -> tuple[dict[str, Any], int]:
    """What came of a campaign, and how many trials it was asked for."""
    campaign = CAMPAIGNS[what]
    count = max(campaign.least, round(share * campaign.trials))
    more = [*campaign.more, *(["--quick"] if campaign.script == "mutated" and share < 1 else [])]
    script = f"tests.reliability.{campaign.script}"
    command = [sys.executable, "-m", script, campaign.option, str(count), "--seed", str(seed), *more]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout.strip():
        sys.exit(f"{what}: no outcome")
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome, count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the trials of each campaign")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(CAMPAIGNS), choices=list(CAMPAIGNS))
    arguments = parser.parse_args()
    sys.stdout.write("| campaign | trials | outcome | seconds |\n|---|---|---|---|\n")
    found = False
    for what in arguments.only:
        if "ray" in CAMPAIGNS[what].more and find_spec("ray") is None:
            sys.stdout.write(f"| {what} | 0 | left out: Ray is not installed | 0 |\n")
            continue
        outcome, count = run(what, arguments.share, arguments.seed)
        values = {name: outcome[name] for name in CAMPAIGNS[what].none}
        counts = {name: len(value) if isinstance(value, list) else value for name, value in values.items()}
        said = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items())
        sys.stdout.write(f"| {what} | {count} | {said} | {outcome['seconds']:.0f} |\n")
        sys.stdout.flush()
        if any(counts.values()):
            found = True
            sys.stderr.write(f"{what}: {json.dumps(outcome, indent=1)}\n")
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
