"""Change one byte of one artefact of a finished study, use it, and see whether that is noticed and put right.

    python -m tests.reliability.corruption --trials 300

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
import pandas as pd
import torch
import yaml

from distilbench.cli.app import main as distilbench
from distilbench.core.hashes import file_sha256
from distilbench.core.sealed import SUMS_FILE
from distilbench.evaluation import calibration
from distilbench.records.published import Figure, PublishedTask
from distilbench.runs.prepare import precision
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
    "evaluation text found": "cache/contamination/*/*",
    "views of dev text": "cache/dev/*/*",
    "speed of bf16": "cache/precision/*/*",
    "pruned model": "cache/pruned/*/**/*",
    "checked mirror": "cache/verified/*/*",
    "embedded task": "cache/embedded/*/*",
    "teacher's index": "cache/indexes/*/*",
    "stored vectors": "cache/vectors/*/*",
    "diagnosis": "cache/calibration/*/*",
}
WRITERS = {
    "data/corpus.py": ["corpora"],
    "data/tokens.py": ["tokens"],
    "data/vectors.py": ["vectors"],
    "training/stores/teacher_store.py": ["signals"],
    "training/checkpoints.py": ["checkpoints"],
    "evaluation/asymmetric.py": ["indexes"],
    "evaluation/calibration.py": ["calibration"],
    "evaluation/score.py": ["scores"],
    "evaluation/tasks/contamination.py": ["contamination"],
    "evaluation/tasks/embedded.py": ["embedded"],
    "core/mirror.py": ["verified"],
    "runs/prepare/precision.py": ["precision"],
    "runs/prepare/pruned.py": ["pruned"],
    "runs/prepare/teacher.py": ["views"],
    "runs/prepare/texts.py": ["dev"],
    "runs/trained.py": ["runs"],
    "runs/trial.py": ["tried"],
}
"""Module -> the kinds of folders that it keeps in the cache, one for each place where it puts something there."""


class Stopped(BaseException):
    """Ends a training at a checkpoint, as a kill would."""


class Study:
    """A finished study below a folder, and how to use one of its artefacts again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, workload.make(folder / "study", METHODS)
        os.environ["DISTILBENCH_CACHE"] = str(folder / "cache")

    def command(self, *options: str) -> list[str]:
        return ["run", str(self.file), "--out", str(self.folder / "results"), *options]

    def run(self, *options: str) -> str:
        """Run what is missing; returns what was said and logged."""
        os.environ["DISTILBENCH_CACHE"] = str(self.folder / "cache")
        # As a process of its own would, which measures nothing that is known.
        precision._measured.cache_clear()
        log, handler = io.StringIO(), logging.StreamHandler()
        handler.setStream(log)
        logging.getLogger("distilbench").addHandler(handler)
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            code = distilbench(self.command(*options))
        logging.getLogger("distilbench").removeHandler(handler)
        if code != self.code:
            sys.exit(f"the study failed:\n{log.getvalue()[-3000:]}")
        return log.getvalue()

    code = 0
    """That its command ends with."""

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


class FromMirror(Study):
    """A student with fewer token vectors than its teacher, a text of a mirror with sums, and the embedded retrieval."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        mirror, settings = folder / "mirror" / "train", yaml.safe_load(self.file.read_text(encoding="utf-8"))
        mirror.mkdir(parents=True)
        shutil.copy(settings["text"]["source"], mirror / "text.txt")
        (mirror / SUMS_FILE).write_text(f"{file_sha256(mirror / 'text.txt')}  text.txt\n", encoding="utf-8")
        for key in ("labelled", "dev", "static"):
            del settings[key]
        settings |= {
            "text": {"source": "mirror:train/text.txt"},
            "student": {"model": settings["teacher"], "layers": 2, "vocabulary": 50},
            "tasks": ["DocstringRetrieval"],
            "methods": ["mse"],
            "train": {"batch_size": 16, "max_length": 48},
            "limit": 100,
        }
        self.file.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def command(self, *options: str) -> list[str]:
        return [*super().command(*options), "--mirror", str(self.folder / "mirror")]


class FromVectors(Study):
    """A teacher of which stored vectors of the text are known, and nothing else."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        settings = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        texts = (folder / "study" / "text.txt").read_text(encoding="utf-8").splitlines()
        vectors = np.random.default_rng(0).normal(size=(len(texts), 24)).astype(np.float32)
        pd.DataFrame({"text": texts, "vector": list(vectors)}).to_parquet(folder / "study" / "vectors.parquet")
        for key in ("labelled", "dev", "static"):
            del settings[key]
        settings |= {
            "teacher": {"vectors": str(folder / "study" / "vectors.parquet")},
            "student": {"model": settings["teacher"], "layers": 2},
            "methods": ["mse"],
            "train": {"batch_size": 16, "max_length": 48},
        }
        self.file.write_text(yaml.safe_dump(settings), encoding="utf-8")


class Calibrated(Study):
    """A model whose score is not the published one."""

    code = 3

    def command(self, *options: str) -> list[str]:
        return ["calibrate", "--teacher", str(self.folder / "study" / "teacher"), "--tasks", TASK]


TASK = "DistilbenchSTS"
FIGURE = Figure(
    model="teacher", task=PublishedTask(name=TASK, metric="cosine_spearman", examples=None), score=0.99, source="a test"
)
STUDIES: dict[type[Study], set[str]] = {
    FromMirror: {"pruned model", "checked mirror", "embedded task", "teacher's index"},
    FromVectors: {"stored vectors"},
    Calibrated: {"diagnosis"},
}
"""Studies whose artefacts of some kinds are changed; those of all others are the first one's."""


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
    "evaluation text found": lambda study: None,
    "views of dev text": lambda study: study.forget("record", "score", "model"),
    "speed of bf16": lambda study: None,
    "pruned model": lambda study: None,
    "checked mirror": lambda study: None,
    "embedded task": lambda study: None,
    "teacher's index": lambda study: study.forget("record"),
    "stored vectors": lambda study: None,
    "diagnosis": lambda study: None,
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


def campaign(trials: int, seed: int, kinds: Sequence[str], place: Path) -> dict[str, Any]:
    """Change so many bytes, those of each kind by turns; what came of it."""
    rng, start = random.Random(seed), time.monotonic()
    noticed, missed, differing, change = Counter[str](), list[str](), set[str](), 0.0
    studies = {kind: next((of for of, its in STUDIES.items() if kind in its), Study) for kind in kinds}
    made = dict[type[Study], tuple[Study, Path]]()
    for of in dict.fromkeys(studies.values()):
        made[of] = of(place / of.__name__), place / f"{of.__name__}-twin"
        made[of][0].run()
        shutil.copytree(made[of][0].folder, made[of][1])
    for number in range(trials):
        kind = kinds[number % len(kinds)]
        study, twin = made[studies[kind]]
        name, found, differences = trial(study, twin, kind, rng)
        noticed[kind] += found
        missed += [] if found else [name]
        if kind == "teacher's signals":
            change = max(change, score_change(twin, study.folder))
            shutil.rmtree(study.folder)
            shutil.copytree(twin, study.folder)
        else:
            differing.update(differences)
    return {
        "trials": trials,
        "noticed": sum(noticed.values()),
        "by_kind": dict(noticed),
        "missed": missed,
        "differing_files": sorted(differing),
        "score_change_after_a_repaired_row": change,
        "seconds": round(time.monotonic() - start, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=list(ARTEFACTS), choices=list(ARTEFACTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    published = mock.patch.object(calibration, "figures_of", lambda *_: {TASK: FIGURE})
    # What is measured anew may come out as another arithmetic, which makes other runs.
    measured = mock.patch.object(precision, "bf16_speedup", lambda _: 1.0)
    with tempfile.TemporaryDirectory() as place, published, measured, mock.patch.dict(os.environ):
        os.environ.pop("DISTILBENCH_MIRROR", None)
        os.environ.pop(precision.VARIABLE, None)
        outcome = campaign(arguments.trials, arguments.seed, arguments.kinds, Path(place))
    sys.stdout.write(json.dumps(outcome) + "\n")
    faults = outcome["missed"] or outcome["differing_files"] or outcome["score_change_after_a_repaired_row"] > 1e-4
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
