"""Change one byte of one artefact of a finished study, use it, and see whether that is noticed and put right.

    python -m tests.reliability.corruption --trials 200

Prints one line of JSON and exits with 1 if a changed byte went unnoticed or another result came out. A repaired row of
the teacher's signals passes the teacher in other company than at first, which may change its last bits: there, the
largest change of a score is given.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from distilbench.cli.app import main as distilbench
from distilbench.training.checkpoints import Checkpoints, Snapshot
from tests.reliability import workload

METHODS = ["mse", "codir", "simcse-supervised"]
ARTEFACTS = {
    "text": "cache/corpora/*/*",
    "teacher's signals": "cache/signals/*/*",
    "checkpoint": "cache/checkpoints/*/*",
    "model": "cache/runs/*/**/*",
    "score": "cache/scores/*/*",
    "record": "results/*/*/**/*",
    "tokens of a task": "cache/tokens/*/*",
    "views of a teacher": "cache/views/*/*",
    "preflight": "cache/tried/*/*",
}


class Stopped(BaseException):
    """Ends a training at a checkpoint, as a kill would."""


class Study:
    """A finished study below a folder, and how to use one of its artefacts again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, workload.make(folder / "study", METHODS)
        os.environ["DISTILBENCH_CACHE"] = str(folder / "cache")

    def run(self, *options: str) -> str:
        """Run what is missing; returns what was logged."""
        log, handler = io.StringIO(), logging.StreamHandler()
        handler.setStream(log)
        logging.getLogger("distilbench").addHandler(handler)
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            code = distilbench(["run", str(self.file), "--out", str(self.folder / "results"), *options])
        logging.getLogger("distilbench").removeHandler(handler)
        if code:
            sys.exit(f"the study failed:\n{log.getvalue()[-3000:]}")
        return log.getvalue()

    def leave_a_checkpoint(self) -> None:
        """Begin a training anew and stop it half-way."""
        self.forget("record", "score", "model")
        left, save = 9, Checkpoints.save

        def stop(kept: Checkpoints, take: Callable[[], Snapshot]) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Stopped
            save(kept, take)

        with mock.patch.object(Checkpoints, "save", stop), contextlib.suppress(Stopped):
            self.run("--checkpoint-seconds", "0")

    def forget(self, *kinds: str) -> None:
        """Delete what would keep another artefact from being used."""
        for kind in kinds:
            for path in self.folder.glob(ARTEFACTS[kind].split("*", 1)[0]):
                shutil.rmtree(path, ignore_errors=True)


USE: dict[str, Callable[[Study], None]] = {
    "text": lambda study: None,
    # Those of the preflight's few rows are read where it is made again.
    "teacher's signals": lambda study: study.forget("record", "score", "model", "preflight"),
    "checkpoint": lambda study: None,
    "model": lambda study: study.forget("record", "score"),
    "score": lambda study: study.forget("record"),
    "record": lambda study: None,
    "tokens of a task": lambda study: study.forget("record", "score"),
    "views of a teacher": lambda study: study.forget("record"),
    "preflight": lambda study: study.forget("record", "score", "model"),
}
"""What has to go so that an artefact is read when the study is run again."""


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.choice(_places(path, len(content)))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _places(path: Path, size: int) -> Sequence[int]:
    """Where a byte means something: in the teacher's signals, in the rows that are there."""
    if path.suffix not in (".bin", ".crc") or path.parent.parent.name != "signals":
        return range(size)
    marks = np.fromfile(path.with_suffix(".crc"), dtype=np.uint32)
    row = size // len(marks)
    return [place for index in np.flatnonzero(marks) for place in range(index * row, (index + 1) * row)]


def trial(study: Study, twin: Path, kind: str, rng: random.Random) -> tuple[str, bool, list[str]]:
    """Change a byte; which file it was in, whether it was noticed by name, and where the results differ afterwards."""
    if kind == "checkpoint":
        study.leave_a_checkpoint()
    files = sorted(path for path in study.folder.glob(ARTEFACTS[kind]) if path.is_file() and path.stat().st_size)
    path = rng.choice(files)
    flip(path, rng)
    USE[kind](study)
    log = study.run()
    folder = next(part for part in [path, *path.parents] if part.parent.name in (*KINDS_OF_FOLDERS, "torture"))
    noticed = any("damaged" in line and str(folder) in line for line in log.splitlines())
    return str(path.relative_to(study.folder)), noticed, workload.differences(twin, study.folder)


def score_change(one: Path, two: Path) -> float:
    """The largest difference of a main score between the records below two folders."""
    pairs = [(path, two / path.relative_to(one)) for path in one.glob("results/*/*/record.json")]
    scores = [[json.loads(path.read_bytes())["scores"] for path in pair] for pair in pairs]
    changes: list[float] = [abs(a[task]["main_score"] - b[task]["main_score"]) for a, b in scores for task in a]
    return max(changes)


KINDS_OF_FOLDERS = tuple(pattern.split("/")[1] for pattern in ARTEFACTS.values() if pattern.startswith("cache/"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng, start = random.Random(arguments.seed), time.monotonic()
    noticed, missed, differing, change = Counter[str](), [], set[str](), 0.0
    with tempfile.TemporaryDirectory() as place:
        study = Study(Path(place) / "victim")
        study.run()
        twin = Path(place) / "twin"
        shutil.copytree(study.folder, twin)
        for number in range(arguments.trials):
            kind = list(ARTEFACTS)[number % len(ARTEFACTS)]
            name, found, differences = trial(study, twin, kind, rng)
            noticed[kind] += found
            missed += [] if found else [name]
            if kind == "teacher's signals":
                change = max(change, score_change(twin, study.folder))
                shutil.rmtree(study.folder)
                shutil.copytree(twin, study.folder)
            else:
                differing.update(differences)
    outcome: dict[str, Any] = {
        "trials": arguments.trials,
        "noticed": sum(noticed.values()),
        "by_kind": dict(noticed),
        "missed": missed,
        "differing_files": sorted(differing),
        "score_change_after_a_repaired_row": change,
        "seconds": round(time.monotonic() - start, 1),
    }
    sys.stdout.write(json.dumps(outcome) + "\n")
    return int(bool(missed or differing or change > 1e-4))


if __name__ == "__main__":
    sys.exit(main())
