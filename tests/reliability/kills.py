"""Kill a study again and again, let it finish, and compare it with a twin that was left alone.

    python -m tests.reliability.kills --kills 100

Half of the kills come after a random time, half at a random access to a file of the cache or the results. Prints one
line of JSON and exits with 1 if a bit differs at the end or a completed run was lost on the way.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.reliability import workload

LONGEST_LIFE = 8.0
"""Seconds after which a process is killed at the latest."""
MOST_ACCESSES = 400
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree", "tempfile.mkdtemp"}


def run(study: Path, folder: Path, accesses: int | None = None, options: Sequence[str] = ()) -> int:
    """`start` for a study, with a checkpoint after every step."""
    results = str(folder / "results")
    return start(["run", str(study), "--out", results, "--checkpoint-seconds", "0", *options], folder, accesses)


def start(arguments: list[str], folder: Path, accesses: int | None = None) -> int:
    """Run a command in a child process, which ends itself at an access to a file below `folder` if asked to.

    Returns its id. The child leads a process group of its own; its cache, and what it says, are below the folder.
    """
    child = os.fork()
    if child:
        return child
    code = 99
    os.setpgid(0, 0)
    # A shell lets what it starts in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(BaseException):
        folder.mkdir(parents=True, exist_ok=True)
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["DISTILBENCH_CACHE"] = str(folder / "cache")
        # The first thread of a forked child makes torch's pool anew, and a second one beside it may find none.
        torch.set_num_threads(1)
        if accesses is not None:
            _die_at(accesses, str(folder))
        from distilbench.cli.app import main

        code = main(arguments)
    os._exit(code)


def _die_at(accesses: int, below: str) -> None:
    left = accesses

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in EVENTS and any(isinstance(item, str) and item.startswith(below) for item in map(str, arguments)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def killed(study: Path, folder: Path, rng: random.Random) -> bool:
    """Run the study until it is killed; False if it was complete before."""
    by_file = rng.random() < 0.5
    child = run(study, folder, rng.randint(1, MOST_ACCESSES) if by_file else None)
    end = time.monotonic() + (60.0 if by_file else rng.uniform(0, LONGEST_LIFE))
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.WIFSIGNALED(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def finish(study: Path, folder: Path, options: Sequence[str] = ()) -> None:
    status = os.waitpid(run(study, folder, options=options), 0)[1]
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"the study failed:\n{log(folder)}")


def log(folder: Path) -> str:
    """The end of what the study's processes said."""
    return (folder / "log.txt").read_text(encoding="utf-8")[-3000:]


def torture(kills: int, seed: int, labels: list[str], folder: Path) -> dict[str, Any]:
    """Kill and go on until there were enough kills, in as many rounds as it takes; what came of it."""
    rng, study = random.Random(seed), workload.make(folder / "study", workload.chosen(labels))
    begun = time.monotonic()
    finish(study, folder / "twin")
    twin_seconds = time.monotonic() - begun
    done, lost, caught = 0, 0, Counter[str]()
    differing: list[str] = []
    rounds = 0
    while done < kills:
        rounds += 1
        victim = folder / f"victim-{rounds}"
        kept: dict[str, str] = {}
        while done < kills and killed(study, victim, rng):
            done += 1
            caught.update(_left_behind(victim))
            now = workload.completed(victim / "results")
            lost += sum(now.get(run_id) != sums for run_id, sums in kept.items())
            kept = now
        finish(study, victim)
        now = workload.completed(victim / "results")
        lost += sum(now.get(run_id) != sums for run_id, sums in kept.items())
        differing += workload.differences(folder / "twin", victim)
    return {
        "kills": done,
        "rounds": rounds,
        "runs": len(workload.completed(folder / "twin" / "results")),
        "lost_completed_runs": lost,
        "differing_files": sorted(set(differing)),
        "caught_while_writing": dict(caught),
        "uninterrupted_seconds": round(twin_seconds, 1),
        "seconds": round(time.monotonic() - begun, 1),
    }


def _left_behind(folder: Path) -> set[str]:
    """Kinds of artefacts of which the killed process left an unfinished one."""
    kinds = {path.parent.relative_to(folder).parts[:2] for path in folder.rglob(".*") if path.is_dir()}
    begun = {("cache", "teacher's rows")} if any(folder.glob("cache/signals/*/begun")) else set[tuple[str, ...]]()
    training = {("cache", "training")} if any(folder.glob("cache/checkpoints/*")) else set[tuple[str, ...]]()
    return {parts[-1] if parts[0] == "cache" else "results" for parts in kinds | begun | training}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", default=[], help="rows of the study; all of them unless given")
    arguments = parser.parse_args()
    # A child of a process with several threads would wait for threads that it does not have.
    torch.set_num_threads(1)
    # Loaded once, before the first child: a child's time then goes into what is to be killed.
    import distilbench.cli.app
    import distilbench.evaluation.score
    import distilbench.runs.run  # noqa: F401

    with tempfile.TemporaryDirectory() as place:
        outcome = torture(arguments.kills, arguments.seed, arguments.methods, Path(place))
    sys.stdout.write(json.dumps(outcome) + "\n")
    return int(bool(outcome["lost_completed_runs"] or outcome["differing_files"]))


if __name__ == "__main__":
    sys.exit(main())
