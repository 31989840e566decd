"""Kill each verb that writes, let it finish, and compare what it wrote with what a twin wrote that was left alone.

    python -m tests.reliability.verbs --kills 100

A command is killed at a random access to a file below its folder, as often as it takes, and then run once more to its
end. Prints one line of JSON and exits with 1 if a file differs, a command cannot go on, or a verdict changed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
import yaml

from tests.reliability import kills, mutated, workload

MOST_ACCESSES = 1000
MOST_TRIES = 12
"""Of one kill: commands that end before the access that was to be their last."""
TUNED = ["mse", {"ibkd-tuned": {"method": "ibkd"}}]


@dataclass(frozen=True)
class Verb:
    """A command, its parts relative to a folder, and what it writes there."""

    arguments: list[str]
    writes: str

    def at(self, folder: Path) -> list[str]:
        return [item.replace("@", f"{folder}/") for item in self.arguments]


CHECK = ["check", "@results/planted", "--baseline", "@baseline.json", "--margin", "50"]
VERBS = {
    "run, tuned": Verb(["run", "@study/study.yaml", "--out", "@tuned", "--checkpoint-seconds", "0"], "tuned/**/*"),
    "report": Verb(["report", "@results/planted", "--out", "@reports"], "reports/**/*"),
    "error-rates": Verb(["error-rates", "@results/planted", "--studies", "2"], "results/planted/*.json"),
    "check": Verb([*CHECK, "--junit", "@junit.xml", "--summary", "@summary.md"], "[js]u*.*"),
    "check --bless": Verb([*CHECK[:3], "@new.json", "--bless"], "new.*"),
    "trend": Verb(["trend", "@gate.jsonl", "--out", "@trends"], "trends/**/*"),
    "export": Verb(["export", "@RUN", "--out", "@model"], "model/**/*"),
    "export --mteb": Verb(["export", "@RUN", "--out", "@scores", "--mteb"], "scores/**/*"),
    "encode": Verb(
        ["encode", "--model", "@study/teacher", "--text", "@study/text.txt", "--out", "@vectors"], "vectors/**/*"
    ),
    "prefetch": Verb(["prefetch", "@away.yaml", "--out", "@mirror"], "mirror/**/*"),
}


def make(folder: Path) -> None:
    """All that the verbs read, below a folder: a simulated study with a baseline, a trained one, one to be tuned."""
    study = workload.make(folder / "study", TUNED)
    settings = yaml.safe_load(study.read_text(encoding="utf-8"))
    pairs = folder / "study" / "pairs.csv"
    texts = workload.sentences(80, 2)
    rows = [f"{one},{two},{score}\n" for score, (one, two) in enumerate(zip(texts[:40], texts[40:], strict=True))]
    pairs.write_text("sentence1,sentence2,score\n" + "".join(rows), encoding="utf-8")
    mirrored = folder / "hub" / "mteb" / "sts12-sts" / "test.parquet"
    mirrored.parent.mkdir(parents=True)
    pd.read_csv(pairs).to_parquet(mirrored)
    trained = {**settings, "methods": ["mse"], "name": "trained", "seeds": [1], "tasks": ["STS12"]}
    (folder / "trained.yaml").write_text(yaml.safe_dump(trained), encoding="utf-8")
    away = {**trained, "name": "away", "teacher": "org/teacher", "tasks": ["DistilbenchSTS"]}
    (folder / "away.yaml").write_text(yaml.safe_dump(away), encoding="utf-8")
    tuned = {**settings, "seeds": [1], "tune": {"trials": 2}, "dev": {"source": str(pairs), "points": 2}}
    study.write_text(yaml.safe_dump(tuned), encoding="utf-8")
    _in_a_child(lambda: mutated.make(folder))
    results, mirror = str(folder / "results"), str(folder / "hub")
    _finish(["run", str(folder / "trained.yaml"), "--out", results, "--mirror", mirror], folder)


def _in_a_child(what: Callable[[], object]) -> None:
    """What starts threads must not do so here: a child of this process would wait for those that it does not have."""
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            torch.set_num_threads(1)
            what()
            code = 0
        os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit("what is to be killed could not be made")


def _finish(arguments: list[str], folder: Path) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(kills.start(arguments, folder), 0)[1])
    if code:
        raise Unfinished(f"{' '.join(arguments)} ended with {code}:\n{kills.log(folder)}")


class Unfinished(Exception):
    """A command that cannot go on."""


@contextlib.contextmanager
def hub(folder: Path) -> Iterator[None]:
    """Stands for the Hub, in children too: its one model is the teacher of the study."""
    with mock.patch("huggingface_hub.snapshot_download", lambda *_, **__: str(folder / "study" / "teacher")):
        yield


def kill(arguments: list[str], folder: Path, rng: random.Random) -> bool:
    """Run a command until it is killed; False if it always came to its end before, and was undone."""
    most = MOST_ACCESSES
    for _ in range(MOST_TRIES):
        accesses = rng.randint(1, most)
        with _undone(folder) as undo:
            status = os.waitpid(kills.start(arguments, folder, accesses), 0)[1]
            undo.wanted = not os.WIFSIGNALED(status)
        if not undo.wanted:
            return True
        most = max(1, accesses - 1)
    return False


def written(folder: Path, verb: Verb) -> dict[str, Path]:
    """What a verb has written, by name; what is hidden counts as not there."""
    found = {}
    for path in folder.glob(verb.writes):
        name = str(path.relative_to(folder))
        if path.is_file() and path.name != "SHA256SUMS" and not any(part.startswith(".") for part in Path(name).parts):
            found[name] = path
    return found


def torture(count: int, seed: int, names: list[str], folder: Path) -> dict[str, Any]:
    """Kill each verb `count` times, by turns; what came of it."""
    rng, begun = random.Random(seed), time.monotonic()
    sound = folder / "at"
    make(sound)
    done = dict.fromkeys(names, 0)
    differing, stuck = set[str](), list[str]()
    with hub(sound):
        for name in names:
            verb = VERBS[name]
            twins = [_kept(sound, folder / f"{name}-{place}", verb) for place in range(2)]
            # What two sound runs of a command do not have in common, times and dates, cannot be compared.
            stable = {file for file in twins[0] if file in twins[1] and workload.equal(twins[0][file], twins[1][file])}
            for _ in range(count):
                with _undone(sound):
                    if not kill(_arguments(sound, verb), sound, rng):
                        continue
                    done[name] += 1
                    try:
                        _finish(_arguments(sound, verb), sound)
                    except Unfinished as error:
                        stuck.append(str(error))
                        continue
                    now = written(sound, verb)
                    differing |= {f"{name}: {file}" for file in now.keys() ^ twins[0].keys()}
                    differing |= {
                        f"{name}: {file}"
                        for file in stable & now.keys()
                        if not workload.equal(twins[0][file], now[file])
                    }
    return {
        "kills": sum(done.values()),
        "by_verb": done,
        "differing_files": sorted(differing),
        "stuck": stuck,
        "seconds": round(time.monotonic() - begun, 1),
    }


def _arguments(folder: Path, verb: Verb) -> list[str]:
    (run,) = [path.parent for path in (folder / "results" / "trained").glob("*/record.json") if _is_mse(path)]
    return [item.replace(f"{folder}/RUN", str(run)) for item in verb.at(folder)]


def _is_mse(record: Path) -> bool:
    return bool(json.loads(record.read_text(encoding="utf-8"))["label"] == "mse")


def _kept(sound: Path, twin: Path, verb: Verb) -> dict[str, Path]:
    """What a verb writes that is left alone, copied to `twin`."""
    with _undone(sound):
        _finish(_arguments(sound, verb), sound)
        shutil.copytree(sound, twin)
    return written(twin, verb)


@dataclass
class Undo:
    """Whether what was done below a folder is undone in the end."""

    wanted: bool = True


@contextlib.contextmanager
def _undone(folder: Path) -> Iterator[Undo]:
    """Puts everything back, in the same place: records and caches hold its path."""
    undo = Undo()
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        before = Path(place) / "before"
        shutil.copytree(folder, before)
        yield undo
        if undo.wanted:
            shutil.rmtree(folder)
            before.rename(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="over all verbs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="*", default=list(VERBS), choices=list(VERBS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Loaded once, before the first child: a child's time then goes into what is to be killed.
    import distilbench.cli.app
    import distilbench.evaluation.score
    import distilbench.reporting.write
    import distilbench.runs.run  # noqa: F401

    with tempfile.TemporaryDirectory() as place:
        outcome = torture(-(-arguments.kills // len(arguments.verbs)), arguments.seed, arguments.verbs, Path(place))
    sys.stdout.write(json.dumps(outcome) + "\n")
    return int(bool(outcome["stuck"] or outcome["differing_files"]))


if __name__ == "__main__":
    sys.exit(main())
