"""Put what is no file where each input of the command line is expected: a pipe, a device, a socket, a folder, a link.

    python -m tests.reliability.special_files

Every verb has to end within five minutes, with exit code 2 and one sentence; with 3 where an output cannot be written.
Prints JSON and exits with 1 for a traceback, a use without a word, or a command that does not end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml

from distilbench.core.sealed import SUMS_FILE
from tests.reliability import malformed, mutated
from tests.reliability.malformed import Endless, in_time
from tests.reliability.mutated import Stored

LONGEST = 300
KINDS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "standard input": lambda path: path.symlink_to("/dev/stdin"),
    "a socket": lambda path: _socket(path),
    "a folder": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}
MODEL_FILES = ("config.json", "modules.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json")
WRITTEN = {"history", "junit", "summary"}
"""Inputs that are outputs: what is judged stands, and that it is not written is said."""
HARMLESS = {
    ("history", "a device"), ("junit", "a device"), ("summary", "a device"),
    ("junit", "a link to nothing"), ("summary", "a link to nothing"), ("history", "a link to nothing"),
    ("history", "standard input"), ("junit", "standard input"), ("summary", "standard input"),
    # As good as an empty folder.
    ("mirror set", "a link to nothing"),
}  # fmt: skip
"""What may be written, or is as good as not there."""


def _socket(path: Path) -> None:
    # A path in the socket's address may have a hundred characters.
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


class World:
    """A sound study with all that it reads, and sound results, of which one thing at a time is replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sound = folder, malformed.sound_study(folder / "study")
        self.stored = mutated.make(folder / "stored")
        self.place = folder / "place"

    def study(self, **changes: Any) -> str:
        path = self.folder / "changed.yaml"
        path.write_text(yaml.safe_dump({**self.sound, **changes}), encoding="utf-8")
        return str(path)

    def plan(self, study: str, *options: str) -> list[str]:
        return ["run", study, "--out", str(self.folder / "out"), "--dry-run", *options]

    def teacher(self) -> Path:
        return Path(shutil.copytree(self.folder / "study" / "teacher", self.place / "model"))

    def results(self) -> Stored:
        return Stored(Path(shutil.copytree(self.stored.folder, self.place / "stored")))

    def inputs(self) -> Iterator[tuple[str, Callable[[], tuple[Path, list[str]]]]]:
        """Name, and what gives the path that is to be replaced and the command that reads it."""
        yield from self._of_studies()
        yield from self._of_models()
        yield from self._of_mirrors()
        yield from self._of_results()

    def _of_studies(self) -> Iterator[tuple[str, Callable[[], tuple[Path, list[str]]]]]:
        def named(name: str, changes: Callable[[str], dict[str, Any]]) -> tuple[Path, list[str]]:
            path = self.place / name
            return path, self.plan(self.study(**changes(str(path))))

        own = self.sound["tasks"][1]
        yield "study", lambda: (self.place / "s.yaml", self.plan(str(self.place / "s.yaml")))
        for ending in ("txt", "csv", "jsonl", "parquet"):
            yield f"text {ending}", lambda e=ending: named(f"t.{e}", lambda at: {"text": {"source": at}})  # type: ignore[misc]
        for ending in ("csv", "parquet"):
            yield (
                f"labelled {ending}",
                lambda e=ending: named(f"l.{e}", lambda at: {**READS_ROWS, "labelled": {"source": at}}),  # type: ignore[misc]
            )
            yield (
                f"dev {ending}",
                lambda e=ending: named(f"d.{e}", lambda at: {"dev": {**self.sound["dev"], "source": at}}),  # type: ignore[misc]
            )
            yield (
                f"task {ending}",
                lambda e=ending: named(f"k.{e}", lambda at: {"tasks": [{**own, "source": at}]}),  # type: ignore[misc]
            )
        for ending in ("parquet", "npy"):
            yield f"vectors {ending}", lambda e=ending: named(f"v.{e}", lambda at: {"teacher": {"vectors": at}})  # type: ignore[misc]
        yield (
            "vectors in a folder",
            lambda: (
                self._made("vs") / "v.parquet",
                self.plan(self.study(teacher={"vectors": str(self.place / "vs")})),
            ),
        )
        text = self.place / "e.txt"
        out = ["--out", str(self.folder / "encoded")]
        model = str(self.folder / "study" / "teacher")
        yield "text to encode", lambda: (text, ["encode", "--model", model, "--text", str(text), *out])

    def _made(self, name: str) -> Path:
        (self.place / name).mkdir()
        return self.place / name

    def _of_models(self) -> Iterator[tuple[str, Callable[[], tuple[Path, list[str]]]]]:
        for name in MODEL_FILES:
            yield (
                f"model {name}",
                lambda name=name: (self.teacher() / name, self.plan(self.study(teacher=str(self.place / "model")))),  # type: ignore[misc]
            )
        path, baseline = self.place / "m", str(self.stored.folder / "baseline.json")
        yield "model", lambda: (path, self.plan(self.study(teacher=str(path))))
        yield "model to calibrate", lambda: (path, ["calibrate", "--teacher", str(path), "--tasks", "DistilbenchSTS"])
        yield "model to check", lambda: (path, ["check", str(path), "--baseline", baseline])

    def _of_mirrors(self) -> Iterator[tuple[str, Callable[[], tuple[Path, list[str]]]]]:
        def within(name: str, **changes: Any) -> tuple[Path, list[str]]:
            path = self._made("mirror") / name
            path.parent.mkdir(parents=True)
            command = self.plan(self.study(**changes), "--mirror", str(self.place / "mirror"))
            # Tasks are read when something is scored.
            return path, [item for item in command if item != "--dry-run" or "tasks" not in changes]

        def summed() -> tuple[Path, list[str]]:
            path, command = within("train/text.txt", text={"source": "mirror:train/text.txt"})
            (path.parent / SUMS_FILE).write_text(f"{'0' * 64}  text.txt\n", encoding="utf-8")
            return path, command

        yield (
            "mirror",
            lambda: (self.place / "mirror", self.plan(self.study(), "--mirror", str(self.place / "mirror"))),
        )
        yield "mirror text", lambda: within("train/text.txt", text={"source": "mirror:train/text.txt"})
        yield "mirror text with sums", summed
        yield "mirror task", lambda: within("mteb/sts12-sts/test.parquet", tasks=["STS12"])
        yield "mirror set", lambda: within("org/set/train.jsonl", text={"source": "hub:org/set"})
        yield "mirror file", lambda: within("o/s/train.jsonl", text={"source": "hf://datasets/o/s/train.jsonl"})

    def _of_results(self) -> Iterator[tuple[str, Callable[[], tuple[Path, list[str]]]]]:
        def of(name: str, *command: str) -> tuple[Path, list[str]]:
            stored = self.results()
            path = stored.runs[0] / name if name in RUN_FILES else stored.folder / name
            return path, [item.replace("@", f"{stored.folder}/") for item in command]

        check = ("check", "@results/planted", "--baseline", "@baseline.json", "--margin", "50")
        report = ("report", "@results/planted", "--out", "@out")
        for name in RUN_FILES:
            yield f"run's {name}", lambda name=name: of(name, "power", "@results/planted")  # type: ignore[misc]
        yield "results", lambda: of("results/planted", "power", "@results/planted")
        yield "results to advise on", lambda: of("results/planted", "advise", "--results", "@results/planted")
        yield "run to export", lambda: of("results/planted", "export", "@results/planted", "--out", "@out")
        yield "run to compare", lambda: of("other", "diff", "@other", "@results/planted")
        for name in ("tuning", "ablations", "benchmarks", "error_rates"):
            yield f"{name} file", lambda name=name: of(f"results/planted/{name}.json", *report)  # type: ignore[misc]
        yield "texts file", lambda: of("results/planted/texts.parquet", "power", "@results/planted")
        for ending in ("json", "parquet"):
            yield f"baseline {ending}", lambda ending=ending: of(f"baseline.{ending}", *check)  # type: ignore[misc]
        yield "trend", lambda: of("gate.jsonl", "trend", "@gate.jsonl", "--out", "@out")
        for name in WRITTEN:
            yield name, lambda name=name: of(f"written-{name}", *check, f"--{name}", f"@written-{name}")  # type: ignore[misc]


READS_ROWS = {"methods": ["simcse-supervised"]}
RUN_FILES = ("record.json", "examples.parquet", SUMS_FILE)


def meet(world: World, name: str, kind: str, given: Callable[[], tuple[Path, list[str]]]) -> str | None:
    """Put something of a kind in the place of an input, and use it; what is wrong with how it was met, or None."""
    shutil.rmtree(world.place, ignore_errors=True)
    world.place.mkdir()
    path, command = given()
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    KINDS[kind](path)
    what = f"{name}, {kind}"
    try:
        with open_input(), in_time(LONGEST):
            met = mutated.outcome(command)
    except Endless:
        return f"endless: {what}"
    code, said = met
    if name in WRITTEN:
        errors = "cannot be written" in said
        fine = (code, errors) == (3, True) or ((name, kind) in HARMLESS and code in (0, 3))
        return None if fine else f"unclear: {what}: {code} {said[-300:]}"
    return malformed.fault(met, what, refused=(name, kind) not in HARMLESS)


@contextlib.contextmanager
def open_input() -> Iterator[None]:
    """Standard input is a pipe that holds nothing and that nobody closes."""
    before, (reading, writing) = os.dup(0), os.pipe()
    os.dup2(reading, 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        for descriptor in (before, reading, writing):
            os.close(descriptor)


def campaign(seed: int, folder: Path, trials: int | None = None) -> dict[str, Any]:
    """Meet every input with every kind, or with so many of all pairs; what came of it."""
    begun, world, wrong = time.monotonic(), World(folder), list[str]()
    pairs = [(name, kind, given) for name, given in world.inputs() for kind in KINDS]
    # Each input comes before one that came already.
    order = random.Random(seed).sample(range(len(pairs)), len(pairs))
    turns = {place: sum(pairs[other][0] == pairs[place][0] for other in order[:at]) for at, place in enumerate(order)}
    for place in sorted(order, key=lambda place: turns[place])[:trials]:
        if found := meet(world, *pairs[place]):
            sys.stderr.write(f"{found}\n")
            wrong.append(found)
    counts = {name: sum(item.startswith(kind) for item in wrong) for name, kind in malformed.NAMES.items()}
    uses = len(pairs) if trials is None else min(trials, len(pairs))
    return {"uses": uses, **counts, "wrong": wrong, "seconds": round(time.monotonic() - begun, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uses", type=int, help="of all pairs of an input and a kind; unset: all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place, mock.patch.dict(os.environ, DISTILBENCH_CACHE=f"{place}/cache"):
        os.environ.pop("DISTILBENCH_MIRROR", None)
        found = campaign(arguments.seed, Path(place), arguments.uses)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
