"""Run a study on every engine, kill parts of it on the way, and compare what comes out with a run in one process.

    python -m tests.reliability.engines --engine local --kills 30

What is killed, by turns: a worker process while it is at a run; on Ray a whole node; the driver, which is then started
again; and Ctrl-C in the place of that. Once, nothing is. Ray runs on three nodes of its own on the loopback interface.
Prints one line of JSON, and exits with 1 if a bit differs, a run is lost, a model or record was made twice, or a kill
cost more than the step that each of the two workers was at.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from distilbench.cli.output import INTERRUPTED
from distilbench.core.libraries import quiet_libraries
from distilbench.core.machine import Settings
from distilbench.runs.engines import EngineOptions
from distilbench.runs.progress import Watch
from distilbench.runs.study_run import run_study
from distilbench.study.study import Run
from distilbench.study.study_file import load_study
from tests.reliability import kills, workload
from tests.reliability.processes import RENAMES_VARIABLE, Nodes, below, hooked, write_down_renames

JOBS = 2
LONGEST_WAIT = 900.0
KINDS = {"local": ("driver", "ctrl-c", "worker"), "ray": ("driver", "ctrl-c", "worker", "node")}
"""Drivers are forked from this process, and so before it becomes one itself."""


class Listener(Watch):
    """Writes down which runs were lost, and passes progress on."""

    def __init__(self, lost: list[str], on_progress: Callable[[Run, float], None]) -> None:
        self._lost, self._on_progress = lost, on_progress

    def announce(self, text: str) -> None:
        if "begun again" in text:
            self._lost.append(text)

    def progress(self, run: Run, share: float) -> None:
        self._on_progress(run, share)


class Victim:
    """A study below a folder of its own."""

    def __init__(self, study: Path, folder: Path) -> None:
        self.study, self.folder = study, folder
        self.lost: list[str] = []

    def run_here(self, options: EngineOptions, on_progress: Callable[[Run, float], None]) -> None:
        """The whole study, driven by this process."""
        where = Settings(self.folder / "results", self.folder / "cache", None, "cpu", checkpoint_seconds=0.0)
        run_study(load_study(str(self.study)), where, options, Listener(self.lost, on_progress))

    def made(self) -> Counter[str]:
        """How often each artefact was completed: `runs/ID`, `checkpoints/ID`, and records as `results/ID`."""
        file = Path(os.environ[RENAMES_VARIABLE])
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        paths = [Path(line) for line in lines if Path(line).is_relative_to(self.folder)]
        parts = [path.relative_to(self.folder).parts for path in paths if not path.name.startswith(".")]
        return Counter(f"{part[1] if part[0] == 'cache' else part[0]}/{part[2]}" for part in parts if len(part) == 3)

    def steps(self) -> int:
        return sum(count for name, count in self.made().items() if name.startswith("checkpoints/"))

    def twice(self) -> int:
        made = self.made().items()
        return sum(count - 1 for name, count in made if name.startswith(("runs/", "results/")))


class Local:
    """Worker processes of this machine."""

    def __init__(self) -> None:
        self.options = EngineOptions(jobs=JOBS, threads=1)
        self.arguments = ["--jobs", str(JOBS), "--threads", "1"]

    def workers(self, driver: int) -> list[int]:
        """Processes that are at a run, or may be."""
        servers = [pid for pid in below(driver) if "forkserver" in below(driver)[pid]]
        return [pid for server in servers[:1] for pid in below(server)]

    def kill(self, what: str, rng: random.Random) -> bool:
        there = self.workers(os.getpid())
        if there:
            os.kill(rng.choice(there), signal.SIGKILL)
        return bool(there)

    def stop(self) -> None:
        """Nothing to be stopped."""


class OnRay:
    """Three nodes on this machine."""

    def __init__(self) -> None:
        self._nodes = Nodes(3)
        self.options = EngineOptions(jobs=JOBS, threads=1, engine="ray", address=self._nodes.address)
        self.arguments = ["--engine", "ray", "--address", self._nodes.address, *Local().arguments]

    def workers(self, driver: int) -> list[int]:
        return self._nodes.busy()

    def kill(self, what: str, rng: random.Random) -> bool:
        there = self._nodes.busy()
        if what == "node":
            return self._nodes.kill_a_busy_one(rng)
        if there:
            os.kill(rng.choice(there), signal.SIGKILL)
        return bool(there)

    def stop(self) -> None:
        self._nodes.stop()


def with_driver_here(engine: Local | OnRay, what: str, victim: Victim, rng: random.Random) -> bool:
    """Kill a worker or a node at a random time after the first training began; whether one was there to be killed."""
    begun, done, struck = threading.Event(), threading.Event(), False

    def strike() -> None:
        nonlocal struck
        begun.wait()
        done.wait(rng.uniform(0.0, 4.0))
        while not struck and not done.wait(0.02):
            struck = engine.kill(what, rng)

    thread = threading.Thread(target=strike)
    if what != "none":
        thread.start()
    victim.run_here(engine.options, lambda run, share: begun.set() if run.role == "method" else None)
    begun.set()
    done.set()
    if what != "none":
        thread.join()
    return struck


def with_driver_killed(
    engine: Local | OnRay, what: str, victim: Victim, rng: random.Random, steps: int
) -> tuple[bool, float]:
    """Kill the driver after a random number of steps, and start it again; whether it was at work, and how many seconds
    its workers lived on."""
    child, after = kills.run(victim.study, victim.folder, options=engine.arguments), rng.randint(1, steps)
    end = time.monotonic() + LONGEST_WAIT
    while victim.steps() < after and time.monotonic() < end and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.1)
    orphans = engine.workers(child)
    os.killpg(child, signal.SIGINT) if what == "ctrl-c" else os.kill(child, signal.SIGKILL)
    start, status = time.monotonic(), os.waitpid(child, 0)[1]
    if what == "ctrl-c" and os.waitstatus_to_exitcode(status) != INTERRUPTED:
        sys.exit(f"Ctrl-C ended in {os.waitstatus_to_exitcode(status)}:\n{kills.log(victim.folder)}")
    while any(Path(f"/proc/{pid}").exists() for pid in orphans) and time.monotonic() - start < LONGEST_WAIT:
        time.sleep(0.02)
    alive = time.monotonic() - start
    kills.finish(victim.study, victim.folder, engine.arguments)
    return True, alive


def measure(
    engine: Local | OnRay, what: str, study: Path, twin: Victim, folder: Path, times: int, seed: int
) -> dict[str, Any]:
    start, differing, struck, again, twice, alive = time.monotonic(), set[str](), 0, list[int](), 0, [0.0]
    for number in range(times):
        victim, rng = Victim(study, folder / f"{what}-{number}"), random.Random(f"{seed} {what} {number}")
        victim.folder.mkdir(parents=True)
        if what in ("driver", "ctrl-c"):
            hit, seconds = with_driver_killed(engine, what, victim, rng, twin.steps())
            alive.append(seconds)
        else:
            hit = with_driver_here(engine, what, victim, rng)
        struck += hit
        differing.update(f"{what}: {name}" for name in workload.differences(twin.folder, victim.folder))
        again.append(victim.steps() - twin.steps())
        twice += victim.twice()
        sys.stderr.write(
            f"{what} {number}: struck {hit}, steps again {again[-1]}, twice {twice}, {sorted(differing)}\n"
        )
    return {
        "times": times,
        "struck": struck,
        "differing_files": sorted(differing),
        "made_twice": twice,
        "most_steps_again": max(again, default=0),
        "longest_orphan_seconds": round(max(alive), 1),
        "seconds": round(time.monotonic() - start, 1),
    }


def torture(engine: Local | OnRay, kinds: Sequence[str], count: int, seed: int, folder: Path, study: Path) -> Any:
    """Run undisturbed once and then kill, each kind as often; what came of it."""
    twin, begun = Victim(study, folder / "twin"), time.monotonic()
    write_down_renames()
    twin.folder.mkdir()
    # In a child: what trains has threads, and can no longer be forked.
    kills.finish(study, twin.folder, ["--threads", "1"])
    found = {}
    for place, what in enumerate((*kinds, "none")):
        times = 1 if what == "none" else count // len(kinds) + (place < count % len(kinds))
        found[what] = measure(engine, what, study, twin, folder, times, seed)
    return {
        "kills": sum(part["struck"] for what, part in found.items() if what != "none"),
        "by_kind": found,
        "differing_files": [name for part in found.values() for name in part["differing_files"]],
        "made_twice": sum(part["made_twice"] for part in found.values()),
        "steps_too_many": sum(max(0, part["most_steps_again"] - JOBS) for part in found.values()),
        "longest_orphan_seconds": max(part["longest_orphan_seconds"] for part in found.values()),
        "seconds": round(time.monotonic() - begun, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=tuple(KINDS), required=True)
    parser.add_argument("--kinds", choices=KINDS["ray"], nargs="+", help="of kills; all unless given")
    parser.add_argument("--kills", type=int, default=30, help="over all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", default=["mse", "codir"], help="rows of the study")
    arguments = parser.parse_args()
    # Ray has things to say on stdout, of what was killed, and keeps to no lines of others.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    quiet_libraries()
    # Loaded once, before the first child: a child's time then goes into what is to be killed.
    import distilbench.evaluation.score  # noqa: F401

    kinds = [kind for kind in KINDS[arguments.engine] if kind in (arguments.kinds or KINDS[arguments.engine])]
    with tempfile.TemporaryDirectory() as place, hooked(Path(place)):
        study = workload.make(Path(place) / "study", workload.chosen(arguments.methods))
        engine: Local | OnRay = OnRay() if arguments.engine == "ray" else Local()
        try:
            found = torture(engine, kinds, arguments.kills, arguments.seed, Path(place), study)
        finally:
            engine.stop()
    with out:
        out.write(json.dumps({"engine": arguments.engine, **found}) + "\n")
    return int(bool(found["differing_files"] or found["made_twice"] or found["steps_too_many"]))


if __name__ == "__main__":
    sys.exit(main())
