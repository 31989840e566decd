"""Damage a file of a mirror that holds the sums of its files, and see whether each verb that reads it says so.

    python -m tests.reliability.mirrors --mirrors 60

The mirror holds a teacher, a text, a task of pairs and one of retrieval; files are changed, cut, lengthened, emptied,
exchanged, taken away, or have their rows in another order. Prints JSON and exits with 1 where a damaged file is used
without a word, or refused without being named.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
import yaml

from distilbench.cli.app import main as distilbench
from distilbench.core.hashes import file_sha256
from distilbench.core.sealed import SUMS_FILE
from tests.reliability import workload

PLACES = ("mteb/sts12-sts", "mteb/scifact", "org/teacher", "train")
VERBS: dict[str, Callable[[Path, Path], list[str]]] = {
    "run": lambda study, mirror: ["run", str(study), "--mirror", str(mirror), "--out", str(study.parent / "results")],
    "prefetch": lambda study, mirror: ["prefetch", str(study), "--out", str(mirror)],
}


def make(folder: Path) -> tuple[Path, Path]:
    """A study and the mirror of all that it reads, each of whose folders has sums."""
    study, mirror = workload.make(folder / "study", ["mse"]), folder / "mirror"
    for place in PLACES:
        (mirror / place).mkdir(parents=True)
    shutil.copytree(folder / "study" / "teacher", mirror / "org/teacher", dirs_exist_ok=True)
    shutil.copy(folder / "study" / "text.txt", mirror / "train" / "text.txt")
    texts = workload.sentences(80, 2)
    pairs = pd.DataFrame({"sentence1": texts[:40], "sentence2": texts[40:], "score": [n / 8 for n in range(40)]})
    pairs.to_parquet(mirror / "mteb/sts12-sts/test.parquet", index=False)
    _write_retrieval(mirror / "mteb/scifact", texts)
    for place in PLACES:
        _write_sums(mirror / place)
    settings = yaml.safe_load(study.read_text(encoding="utf-8"))
    read = {"teacher": "org/teacher", "text": {"source": "mirror:train/text.txt"}, "tasks": ["STS12", "SciFact"]}
    study.write_text(yaml.safe_dump({**settings, **read}), encoding="utf-8")
    return study, mirror


def _write_retrieval(folder: Path, texts: list[str]) -> None:
    for name, some in (("corpus", texts[:40]), ("queries", texts[40:])):
        lines = [json.dumps({"_id": f"{name[0]}{number}", "text": text}) for number, text in enumerate(some)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "qrels").mkdir()
    rows = "".join(f"q{number}\tc{number}\t1\n" for number in range(40))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows, encoding="utf-8")


def _write_sums(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS_FILE)
    lines = [f"{file_sha256(path)}  {path.relative_to(folder)}\n" for path in files]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _exchange(path: Path, rng: random.Random) -> None:
    others = [other for other in path.parent.iterdir() if other.is_file() and other.read_bytes() != path.read_bytes()]
    path.write_bytes(rng.choice([other for other in others if other != path] or [Path(__file__)]).read_bytes())


def _reorder(path: Path, rng: random.Random) -> None:
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        table.assign(score=table["score"].to_numpy()[::-1]).to_parquet(path, index=False)
    else:
        path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[::-1]) + b"\n")


DAMAGE: dict[str, Callable[[Path, random.Random], object]] = {
    "a bit": _flip,
    "cut": lambda path, rng: path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)]),
    "longer": lambda path, rng: path.write_bytes(path.read_bytes() + rng.choice([b"\n", b" ", b"\0"])),
    "empty": lambda path, rng: path.write_bytes(b""),
    "gone": lambda path, rng: path.unlink(),
    "another's": _exchange,
    "other order": _reorder,
}


def campaign(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Damage `count` mirrors, one file each; what came of it."""
    rng, begun = random.Random(seed), time.monotonic()
    study, sound = make(folder)
    for verb, arguments in VERBS.items():
        code, said = _met(arguments(study, sound))
        if code:
            sys.exit(f"{verb} refuses the sound mirror: {said}")
    # A model's card decides nothing, and is not read.
    files = sorted(path.relative_to(sound) for path in sound.rglob("*") if path.is_file() and path.suffix != ".md")
    files = [name for name in files if name.name != SUMS_FILE]
    refused, wrong = Counter[str](), list[str]()
    for number in range(count):
        mirror, kind = folder / "damaged", list(DAMAGE)[number % len(DAMAGE)]
        shutil.copytree(sound, mirror)
        name = rng.choice(files)
        DAMAGE[kind](mirror / name, rng)
        for verb, arguments in VERBS.items():
            code, said = _met(arguments(study, mirror))
            named = name.name in said and SUMS_FILE in said
            refused[verb] += code == 2 and named
            if "Traceback" in said or code != 2 or not named:
                wrong.append(f"{verb}: {name}, {kind}: {code} {said[-300:]}")
        shutil.rmtree(mirror)
    found = {"mirrors": count, "refused": dict(refused), "wrong": wrong}
    return found | {"seconds": round(time.monotonic() - begun, 1)}


def _met(arguments: list[str]) -> tuple[int, str]:
    """Exit code of a command, and all that it said: prefetch has its reasons in its table."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = distilbench([*arguments, *(["--json"] if arguments[0] == "prefetch" else [])])
    return int(code), said.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mirrors", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place, mock.patch.dict(os.environ, DISTILBENCH_CACHE=f"{place}/cache"):
        os.environ.pop("DISTILBENCH_MIRROR", None)
        found = campaign(arguments.mirrors, arguments.seed, Path(place))
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
