"""Mutate the files that verdicts are read from, and see whether each verb refuses them in one sentence.

    python -m tests.reliability.mutated --mutants 500

Half of the mutants are put in the place of the sound file; half are forged, so that their sums agree with what they
hold. The first must all be refused; of a forged one, all that is no JSON of the file's shape. Whatever is refused ends
with exit code 2 and one sentence that names the file and a cure. Prints one line of JSON and exits with 1 for a
traceback or a use without a word.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from distilbench.cli.app import main as distilbench
from distilbench.core.sealed import SUMS_FILE, write_sealed
from distilbench.core.stored_json import SUM, sum_of
from distilbench.records.design import Benchmark, Trial, Tuned, Tuning, write_benchmarks, write_tuning
from distilbench.records.record import CURVE_FILE, EXAMPLES_FILE, RECORD_FILE, dump_json, to_dict
from tests.reliability.mutants import ABSENT, Mutant, mutants
from tests.reporting.planted import factorial, simulate

LABELS = ["mse", "mse-tuned"]
DESIGN = ("tuning", "ablations", "benchmarks")
NO_JSON = {"nested deep", "no JSON value", "another root", "key twice", "cut", "other bytes"}


@dataclass(frozen=True)
class Stored:
    """A small study with all that is kept beside it, below one folder."""

    folder: Path

    @property
    def study(self) -> Path:
        return self.folder / "results" / "planted"

    @property
    def runs(self) -> list[Path]:
        return sorted(path for path in self.study.iterdir() if path.is_dir())

    def files(self) -> dict[str, list[Path]]:
        """Kind of file -> where such are."""
        return {
            "record": [run / RECORD_FILE for run in self.runs],
            "tuning": [self.study / "tuning.json"],
            "ablations": [self.study / "ablations.json"],
            "benchmarks": [self.study / "benchmarks.json"],
            "baseline": [self.folder / "baseline.json"],
            "history": [self.folder / "gate.jsonl"],
        }

    def verbs(self, kind: str, file: Path, *, thorough: bool) -> Iterator[list[str]]:
        """What reads the file. Pages and figures, which take seconds, only where it is thorough."""
        study, out = str(self.study), str(self.folder / "out")
        check = ["check", study, "--baseline", str(self.folder / "baseline.json")]
        report = [["report", study, "--out", out]] if thorough or kind in DESIGN else []
        if kind == "record":
            other = next(run for run in self.runs if run != file.parent)
            yield from (["power", study], check, ["diff", str(file.parent), str(other)], ["advise", "--results", study])
            yield from (["export", str(file.parent), "--out", out], [*check, "--bless"], *report)
        elif kind in DESIGN:
            yield from report
        elif kind == "baseline":
            yield check
        else:
            yield ["trend", str(file), "--out", out]


def make(folder: Path) -> Stored:
    """Two rows of two seeds with curves, responses and vectors, tuned; a baseline of them and three checks."""
    stored, design = Stored(folder), factorial(tuned=LABELS)
    made = simulate(design, lambda levels: 0.5, 2, np.random.default_rng(0))
    points = [{"share": share, "sentences": 100 * share, "score": share / 2} for share in (0.5, 1.0)]
    vectors = {"sentences": 40, "values": {"anisotropy": 0.1}, "layers": [[0.1, 0.2], [0.3, 0.4]]}
    speed = {"bytes": 1e6, "parameters": 1e5, "query_ms": 1.5, "sentences_per_second": 900.0}
    records = [replace(item, response=points, vectors=vectors, speed=speed) for item in made.records]
    replace(made, records=records).write(stored.study, design)
    curve = pd.DataFrame({"step": [1, 2], "sentences": [50, 100], "loss": [1.0, 0.5], "term_match": [1.0, 0.5]})
    for run in stored.runs:
        examples = pd.read_parquet(run / EXAMPLES_FILE).assign(slices="")
        record = next(record for record in records if record.run_id == run.name)

        def leave(path: Path, record: Any = record, examples: pd.DataFrame = examples) -> None:
            dump_json(to_dict(record), path / RECORD_FILE)
            examples.to_parquet(path / EXAMPLES_FILE, index=False)
            curve.to_parquet(path / CURVE_FILE, index=False)

        write_sealed(run, leave)
    trials = [Trial({"temperature": float(place)}, [f"run-{place}"], place / 4, 1e12) for place in range(3)]
    write_tuning(
        stored.study,
        Tuning(
            3, "quasi-random", [0], "dev.csv", "5.0", [Tuned(LABELS[0], LABELS[1], {"temperature": "0 to 3"}, trials)]
        ),
    )
    write_benchmarks(stored.study, [Benchmark("Planted(v1)", ["STS-A"], {"Mined": "BitextMining"})])
    check = ["check", str(stored.study), "--baseline", str(folder / "baseline.json"), "--margin", "50"]
    for options in (["--bless"], *[["--history", str(folder / "gate.jsonl")]] * 3):
        code, said = outcome([*check, *options])
        assert code == 0, said
    return stored


def outcome(arguments: list[str]) -> tuple[int, str]:
    """The exit code of a command in this process, and what it said to stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = distilbench(arguments)
    return int(code), err.getvalue()


@contextlib.contextmanager
def mutated(file: Path, kind: str, mutant: Mutant, *, forged: bool) -> Iterator[None]:
    """Put a mutant in the place of a file, and the sound one back at the end."""
    sums = file.parent / SUMS_FILE
    before = {path: path.read_bytes() for path in (file, sums) if path.is_file()}
    content = mutant.content
    if kind == "history":
        lines = before[file].splitlines(keepends=True)
        value = mutant.value
        if forged and isinstance(value, dict):
            value[SUM] = sum_of(value)
        whole = content if value is ABSENT else json.dumps(value).encode("utf-8", "replace")
        file.write_bytes(b"".join([lines[0], whole.replace(b"\n", b" ") + b"\n", *lines[2:]]))
    elif forged and kind == "record":
        file.write_bytes(content)
        from distilbench.core.sealed import _sums

        sums.write_text(_sums(file.parent), encoding="utf-8")
    else:
        if forged and isinstance(mutant.value, dict):
            content = json.dumps({**mutant.value, SUM: sum_of(mutant.value)}, indent=2).encode("utf-8", "replace")
        file.write_bytes(content)
    try:
        yield
    finally:
        for path, sound in before.items():
            path.write_bytes(sound)


def faults(stored: Stored, arguments: list[str], file: Path, mutant: Mutant, *, forged: bool) -> str | None:
    """What is wrong with how a verb met a mutant, or None."""
    code, said = outcome(arguments)
    where = f"{arguments[0]}, {file.name}, {mutant.kind}{' forged' if forged else ''}"
    if code == 70 or "Traceback" in said:
        return f"traceback: {where}: {said.strip().splitlines()[-5:-1]}"
    if code == 2:
        clear = said.count("\n") == 1 and str(stored.folder) in said and "; " in said
        return None if clear else f"unclear: {where}: {said[:300]}"
    return f"silent use: {where}" if not forged or mutant.kind in NO_JSON else None


def campaign(count: int, seed: int, folder: Path, *, thorough: bool) -> dict[str, Any]:
    """Try `count` mutants on all verbs that read them; what came of it."""
    rng, start, stored = random.Random(seed), time.monotonic(), make(folder)
    kept = {path: path.read_bytes() for path in folder.glob("baseline.*")}
    kinds = list(stored.files())
    wrong, met = list[str](), Counter[str]()
    tried = {kind: count // len(kinds) + (place < count % len(kinds)) for place, kind in enumerate(kinds)}
    for kind, number in tried.items():
        files = stored.files()[kind]
        for place, file in enumerate(files):
            share = number // len(files) + (place < number % len(files))
            sound = file.read_bytes().splitlines()[1] if kind == "history" else file.read_bytes()
            for at, mutant in enumerate(mutants(sound, rng, share)):
                # Kinds of mutants follow each other in turn: both halves have all of them.
                forged = (at // 12 + at) % 2 == 0
                with mutated(file, kind, mutant, forged=forged):
                    for arguments in stored.verbs(kind, file, thorough=thorough):
                        met[f"{arguments[0]}{' --bless' if '--bless' in arguments else ''}"] += 1
                        if fault := faults(stored, arguments, file, mutant, forged=forged):
                            wrong.append(fault)
                        for path, content in kept.items():
                            path.write_bytes(content)
    return {
        "mutants": sum(tried.values()),
        "uses": sum(met.values()),
        "by_verb": dict(met),
        "tracebacks": sum(item.startswith("traceback") for item in wrong),
        "silent_uses": sum(item.startswith("silent") for item in wrong),
        "unclear": sum(item.startswith("unclear") for item in wrong),
        "wrong": wrong,
        "seconds": round(time.monotonic() - start, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="without the verbs that draw")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, mock.patch.dict(os.environ, DISTILBENCH_CACHE=f"{place}/cache"):
        found = campaign(arguments.mutants, arguments.seed, Path(place), thorough=not arguments.quick)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
