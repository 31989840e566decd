"""Torture: all campaigns of this folder one after the other, from one seed; prints their tallies as a table.

    python -m tests.reliability            # those of RELIABILITY.md, about two hours of one core
    python -m tests.reliability --share 0.02

Exits with 1 if one of them found something.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CAMPAIGNS: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
    "kills of a study": ("kills", "--kills", 100, ("lost_completed_runs", "differing_files")),
    "kills of other verbs": ("verbs", "--kills", 100, ("stuck", "differing_files")),
    "changed bytes": ("corruption", "--trials", 300, ("missed", "differing_files")),
    "mutated files of results": ("mutated", "--mutants", 500, ("tracebacks", "silent_uses", "unclear")),
    "malformed studies and data": ("malformed", "--inputs", 300, ("tracebacks", "silent_uses", "unclear", "endless")),
    "damaged mirrors": ("mirrors", "--mirrors", 60, ("wrong",)),
}
"""What -> script, its option for how many, how many, and what must come out as none."""
LEAST = {"kills": 2, "verbs": 10, "corruption": 9, "mutated": 60, "malformed": 40, "mirrors": 7}


def run(what: str, share: float, seed: int) -> tuple[dict[str, Any], int]:
    """What came of a campaign, and how many trials it was asked for."""
    script, option, count, _ = CAMPAIGNS[what]
    count = max(LEAST[script], round(share * count))
    more = ["--quick"] if script == "mutated" and share < 1 else []
    command = [sys.executable, "-m", f"tests.reliability.{script}", option, str(count), "--seed", str(seed), *more]
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
        outcome, count = run(what, arguments.share, arguments.seed)
        values = {name: outcome[name] for name in CAMPAIGNS[what][3]}
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
