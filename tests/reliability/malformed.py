"""Mutate studies, and the data that they read, and see whether each is read or refused in one sentence.

    python -m tests.reliability.malformed --inputs 300

Half of them are studies, half are files of text, of labelled text and of tasks, in every format that is read. A mutant
may be sound still; then it is planned as any study is. What is refused ends with exit code 2 and one sentence, and what
no study can mean (an unknown key, a key that is there twice, another root) is refused always. Prints JSON and exits
with 1 for a traceback, a refusal of several lines, a use without a word, or a minute without an end.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
import yaml

from tests.reliability import workload
from tests.reliability.mutants import RAW, TEXTS, mutants
from tests.reliability.mutated import outcome

LONGEST = 60
NAMES = {"tracebacks": "traceback", "silent_uses": "silent use", "unclear": "unclear", "endless": "endless"}
"""Of an outcome's counts -> how what is counted begins."""
SENSELESS = {"more", "renamed", "nested deep", "another root", "key twice"}
"""Kinds of mutants of a study that nobody can have meant."""
ODD_BYTES = [b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b'"', b"\r", b"\n\n", b"\t", b";", b","]
FORMATS = {"text": ("txt", "csv", "tsv", "jsonl", "parquet"), "pairs": ("csv", "tsv", "jsonl", "parquet")}


class Endless(BaseException):
    """A command took longer than it may; no handler of its own takes it for an error of another kind."""


@contextlib.contextmanager
def in_time(seconds: int) -> Iterator[None]:
    """Raises `Endless` where what is inside takes longer."""

    def stop(*_: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def sound_study(folder: Path) -> dict[str, Any]:
    """A study with a section of each kind, whose files are made below the folder."""
    settings: dict[str, Any] = yaml.safe_load(workload.make(folder, ["mse", {"ckd": {"queue_size": 48}}]).read_text())
    texts = workload.sentences(80, 2)
    pairs = pd.DataFrame({"sentence1": texts[:40], "sentence2": texts[40:], "score": [n / 8 for n in range(40)]})
    write(pairs, folder / "pairs.csv")
    write(pd.DataFrame({"text": texts}), folder / "text.csv")
    own = {"name": "Own", "source": str(folder / "pairs.csv"), "columns": ["sentence1", "sentence2", "score"]}
    return {**settings, "tasks": ["DistilbenchSTS", own], "seeds": [1, 2]}


def write(table: pd.DataFrame, path: Path) -> None:
    """In the format of the name."""
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    elif path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    elif path.suffix == ".txt":
        path.write_text("\n".join(table["text"]) + "\n", encoding="utf-8")
    else:
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",", quoting=csv.QUOTE_MINIMAL)


def damaged_table(table: pd.DataFrame, path: Path, rng: random.Random) -> str:
    """Write a table with one thing wrong, in the format of the name; the kind of damage."""
    kind = rng.choice(["a cell", "a column", "twice", "bytes", "bytes", "cut", "a line"])
    table = table.astype(object)
    if kind == "a cell":
        value: Any = rng.choice([*TEXTS, None, float("nan"), float("inf"), -1, 10**30, True, [], {"a": 1}])
        table.iat[rng.randrange(len(table)), rng.randrange(table.shape[1])] = value
    elif kind == "a column":
        name = rng.choice(list(table.columns))
        table = rng.choice([table.drop(columns=name), table.rename(columns={name: rng.choice(TEXTS)[:50]})])
    elif kind == "twice" and path.suffix in (".csv", ".tsv"):
        table = pd.concat([table, table[[rng.choice(list(table.columns))]]], axis=1)
    try:
        write(table, path)
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError, ImportError):
        # What this format cannot hold is not met in it.
        path.write_bytes(rng.choice(ODD_BYTES) * 7)
        return "other bytes"
    content = path.read_bytes()
    at = rng.randrange(max(1, len(content)))
    if kind == "bytes":
        content = content[:at] + rng.choice(ODD_BYTES) + content[at + rng.randrange(2) :]
    elif kind == "cut":
        content = content[:at]
    elif kind == "a line":
        extra = rng.choice([*RAW, '{"text": ', "a\tb\tc\td\te", '"', "\x1a", "[1, 2]"]).encode("utf-8", "replace")
        content = content[:at] + b"\n" + extra + b"\n" + content[at:]
    path.write_bytes(content)
    return kind


def plan(study: Path, folder: Path) -> tuple[int, str]:
    """Exit code of a dry run, and what it said to stderr."""
    with in_time(LONGEST):
        return outcome(["run", str(study), "--out", str(folder / "results"), "--dry-run"])


def fault(met: tuple[int, str], what: str, *, refused: bool) -> str | None:
    """What is wrong with how an input was met, or None."""
    code, said = met
    errors = [line for line in said.splitlines() if line.startswith("distilbench: error: ")]
    if code == 70 or "Traceback" in said:
        return f"traceback: {what}: {said.strip().splitlines()[-6:]}"
    if code == 0:
        return f"silent use: {what}" if refused else None
    if code != 2 or len(errors) != 1 or said.strip().splitlines()[-1] != errors[0] or len(errors[0]) > 1500:
        return f"unclear: {what}: {code} {said[:400]}"
    return None


def campaign(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Try `count` inputs; what came of it."""
    rng, begun, sound = random.Random(seed), time.monotonic(), sound_study(folder)
    place, codes, wrong = folder / "study.json.yaml", Counter[str](), list[str]()
    place.write_text(json.dumps(sound, indent=2), encoding="utf-8")
    code, said = plan(place, folder)
    if code:
        sys.exit(f"the sound study is refused: {said}")

    def meet(what: str, *, refused: bool) -> None:
        try:
            met = plan(place, folder)
        except Endless:
            wrong.append(f"endless: {what}")
            return
        codes["refused" if met[0] == 2 else "planned" if met[0] == 0 else str(met[0])] += 1
        if found := fault(met, what, refused=refused):
            wrong.append(found)

    content = place.read_bytes()
    for mutant in mutants(content, rng, count // 2):
        place.write_bytes(mutant.content)
        what = f"{mutant.kind}: {_difference(sound, mutant.value)}"
        meet(what, refused=mutant.kind in SENSELESS)
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in FORMATS}
    for number in range(count - count // 2):
        name = list(FORMATS)[number % len(FORMATS)]
        ending = FORMATS[name][number // len(FORMATS) % len(FORMATS[name])]
        file = folder / f"damaged.{ending}"
        kind = damaged_table(tables[name], file, rng)
        place.write_text(json.dumps(_reading(sound, name, file), indent=2), encoding="utf-8")
        meet(f"{name}, {ending}, {kind}, number {number}", refused=False)
    return {
        "inputs": count,
        "met": dict(codes),
        **{name: sum(item.startswith(kind) for item in wrong) for name, kind in NAMES.items()},
        "wrong": wrong,
        "seconds": round(time.monotonic() - begun, 1),
    }


def _reading(sound: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    """The study with a file in the place of its text, or of its own task's pairs."""
    if name == "text":
        return {**sound, "text": {"source": str(file)}}
    return {**sound, "tasks": [sound["tasks"][0], {**sound["tasks"][1], "source": str(file)}]}


def _difference(sound: Any, value: Any, where: str = "") -> str:
    """Where a mutant's value is another, for people."""
    if isinstance(sound, dict) and isinstance(value, dict):
        for key in [*sound, *(key for key in value if key not in sound)]:
            if found := _difference(sound.get(key), value.get(key), f"{where}.{key}"):
                return found
        return ""
    return "" if sound == value else f"{where} = {str(value)[:80]!r}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place, mock.patch.dict(os.environ, DISTILBENCH_CACHE=f"{place}/cache"):
        os.environ.pop("DISTILBENCH_MIRROR", None)
        with contextlib.redirect_stderr(io.StringIO()):
            found = campaign(arguments.inputs, arguments.seed, Path(place))
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
