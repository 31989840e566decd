"""Time the same single-thread runs in one process, on one worker and on two, side by side; and what an engine adds.

    python -m tests.reliability.speedup --times 3 --engine local ray

Text, teacher's signals and tasks are there before the clock starts; what workers load when they start is timed apart.
What an engine adds to a run is what it takes to hand out a run that is found complete, and to hear of it, on workers
that are there already. Prints a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from distilbench.core.libraries import quiet_libraries
from distilbench.core.machine import Settings, cache_folder
from distilbench.runs.engines import EngineOptions, Layout, make_engine
from distilbench.runs.engines.engine import Engine
from distilbench.runs.engines.in_process import in_this_process
from distilbench.runs.engines.worker_pool import Workers
from distilbench.runs.prepare.inputs import make_inputs
from distilbench.runs.prepare.preflight import preflight
from distilbench.runs.prepare.prepared import PreparedRun, prepare
from distilbench.runs.run import FINISH, Finished
from distilbench.study.study_file import load_study

KEPT = ("corpora", "contamination", "signals", "embedded", "views", "dev", "indexes")


class Timed:
    """Runs of one study, trained as often as asked."""

    def __init__(self, place: Path, runs: int, steps: int) -> None:
        self._place, self._number = place, 0
        changes = [f"budget={{steps: {steps}}}", "methods=[mse]", f"seeds={runs}", "tasks=[DistilbenchSTS]"]
        self._study = load_study("demo", [*changes, "calibrate=false"])

    def runs(self) -> list[PreparedRun]:
        """The runs that train, with a cache in which nothing is trained."""
        self._number += 1
        folder = self._place / str(self._number)
        (folder / "cache").mkdir(parents=True)
        for name in KEPT:
            (cache_folder() / name).mkdir(parents=True, exist_ok=True)
            (folder / "cache" / name).symlink_to(cache_folder() / name)
        inputs = make_inputs(self._study, Settings(folder / "results", folder / "cache", None, "cpu"))
        preflight(inputs)
        (runs,) = prepare([inputs])
        return [run for run in runs if run.cell.role == "method"]


def seconds(engine: Engine, runs: list[PreparedRun], reused: bool = False) -> float:
    """Wall-clock seconds from the first run handed to an engine to the last one heard of."""
    start = time.perf_counter()
    finished: list[Finished] = list(engine(runs, lambda run, share: None, FINISH))
    spent = time.perf_counter() - start
    if len(finished) < len(runs) or any(
        item.record.status != "completed" or item.reused != reused for item in finished
    ):
        sys.exit("not every run was executed")
    return spent


def added(engine: Engine, runs: list[PreparedRun], again: int) -> float:
    """Seconds that an engine takes for each run beyond the first, where all are found complete."""
    # One run may not have started all workers.
    seconds(engine, runs * again, reused=True)
    one = seconds(engine, runs[:1], reused=True)
    many = seconds(engine, runs * again, reused=True)
    return (many - one) / (len(runs) * again - 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", nargs="+", choices=("local", "ray"), default=["local"])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    with tempfile.TemporaryDirectory() as place:
        timed = Timed(Path(place), arguments.runs, arguments.steps)
        sys.stdout.write(json.dumps(measure(timed, arguments)) + "\n")
    return 0


def measure(timed: Timed, arguments: argparse.Namespace) -> dict[str, Any]:
    engines: dict[str, Engine] = {"in process": in_this_process}
    for name in arguments.engine:
        for jobs in (1, 2):
            options = EngineOptions(jobs=jobs, threads=1, engine=name)
            engines[f"{name} {jobs}"] = Workers(Layout(jobs, 1)) if name == "local" else make_engine(options, "cpu")
    runs = timed.runs()
    outcome: dict[str, Any] = {"runs": arguments.runs, "steps": arguments.steps, "load": [], "seconds": {}}
    outcome["first seconds"] = {"in process": round(seconds(engines["in process"], runs), 2)}
    for name, engine in list(engines.items())[1:]:
        # Their processes start, and load what they need.
        outcome["first seconds"][name] = round(seconds(engine, runs[:1], reused=True), 2)
        outcome["first seconds"][f"{name}, added to each run"] = round(added(engine, runs, 5), 4)
    for _ in range(arguments.times):
        for name, engine in engines.items():
            outcome["seconds"].setdefault(name, []).append(round(seconds(engine, timed.runs()), 2))
            outcome["load"].append(round(os.getloadavg()[0], 1))
    for name in arguments.engine:
        one, two = (outcome["seconds"][f"{name} {jobs}"] for jobs in (1, 2))
        outcome[f"{name}: two against one"] = _spread([first / second for first, second in zip(one, two, strict=True)])
    return outcome


def _spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    sys.exit(main())
