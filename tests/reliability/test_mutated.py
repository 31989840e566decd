"""Files that verdicts are read from, damaged and forged: each ends in one sentence, and none is used without a word."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilbench.core.sealed import write_sealed
from distilbench.core.stored_json import SUM, parsed, sum_of
from distilbench.records.record import RECORD_FILE, dump_json
from tests.reliability import mutated
from tests.reliability.mutated import Stored, outcome


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return mutated.make(tmp_path_factory.mktemp("stored"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_no_mutant_is_used_without_a_word(seed: int, tmp_path: Path) -> None:
    found = mutated.campaign(60, seed, tmp_path, thorough=False)
    assert found["wrong"] == [] and found["mutants"] == 60
    assert set(found["by_verb"]) == {"power", "check", "diff", "advise", "export", "check --bless", "report", "trend"}


@pytest.mark.slow
@pytest.mark.thorough
def test_no_mutant_of_another_seed_is_either(tmp_path: Path) -> None:
    assert mutated.campaign(120, 1, tmp_path, thorough=True)["wrong"] == []


def _edit(path: Path, change: Callable[[Any], object], *, forged: bool = False) -> None:
    value = json.loads(path.read_text())
    change(value)
    if forged:
        value[SUM] = sum_of(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("forged", [False, True])
def test_a_better_score_of_a_trial_is_noticed(stored: Stored, tmp_path: Path, forged: bool) -> None:
    path = stored.study / "tuning.json"
    sound = path.read_bytes()
    _edit(
        path, lambda value: value["methods"][0]["trials"][0].update(score=0.99 if not forged else "0.99"), forged=forged
    )
    code, said = outcome(["report", str(stored.study), "--out", str(tmp_path)])
    path.write_bytes(sound)
    expected = "methods.0.trials.0.score: input should be a valid number, got '0.99'" if forged else "it was changed"
    assert (code, expected in said) == (2, True), said


@pytest.mark.parametrize("verb", ["report", "power", "check", "advise"])
def test_a_run_without_its_record_is_named(stored: Stored, tmp_path: Path, verb: str) -> None:
    record = stored.runs[1] / RECORD_FILE
    sound = record.read_bytes()
    record.unlink()
    arguments = {
        "check": ["check", str(stored.study), "--baseline", str(stored.folder / "baseline.json")],
        "advise": ["advise", "--results", str(stored.study)],
        "report": ["report", str(stored.study), "--out", str(tmp_path)],
        "power": ["power", str(stored.study)],
    }[verb]
    code, said = outcome(arguments)
    record.write_bytes(sound)
    assert code == 2 and f"{record} is missing" in said and "run the study again" in said


def test_a_history_line_that_was_changed_is_named(stored: Stored, tmp_path: Path) -> None:
    lines = (stored.folder / "gate.jsonl").read_text().splitlines(keepends=True)
    changed = tmp_path / "gate.jsonl"
    changed.write_text(
        "".join([lines[0], lines[1].replace('"verdict": "pass"', '"verdict": "regressed"', 1), lines[2]])
    )
    code, said = outcome(["trend", str(changed), "--out", str(tmp_path)])
    assert code == 2 and f"{changed} line 2 is not a check (it was changed after it was written)" in said


def test_a_run_that_lacks_its_hash_is_blessed_without_it(stored: Stored, tmp_path: Path) -> None:
    study = shutil.copytree(stored.study, tmp_path / "planted")
    run = sorted(path for path in study.iterdir() if path.is_dir())[0]
    record = json.loads((run / RECORD_FILE).read_text())
    record["identity"].pop("weights")
    shutil.rmtree(run)
    write_sealed(run, lambda path: _like(stored.study / run.name, path, record))
    code, said = outcome(["check", str(study), "--baseline", str(tmp_path / "new.json"), "--bless"])
    assert code == 0, said
    runs = json.loads((tmp_path / "new.json").read_text())["runs"]
    assert [known["weights"] is None for name, known in runs.items()] == [name == run.name for name in runs]


def _like(sound: Path, path: Path, record: object) -> None:
    for file in sound.glob("*.parquet"):
        shutil.copy(file, path)
    dump_json(record, path / RECORD_FILE)


def test_an_emptied_line_of_a_history_is_named(stored: Stored, tmp_path: Path) -> None:
    lines = (stored.folder / "gate.jsonl").read_bytes().splitlines()
    (tmp_path / "gate.jsonl").write_bytes(b"\n".join([lines[0], b"", lines[2], b"", b""]))
    code, said = outcome(["trend", str(tmp_path / "gate.jsonl"), "--out", str(tmp_path)])
    assert code == 2 and "line 2 is not a check" in said


def test_a_baseline_that_cannot_be_read_is_not_replaced_without_a_word(stored: Stored) -> None:
    baseline = stored.folder / "baseline.json"
    kept = {path: path.read_bytes() for path in stored.folder.glob("baseline.*")}
    _edit(baseline, lambda value: value["tasks"].clear())
    code, said = outcome(["check", str(stored.study), "--baseline", str(baseline), "--bless"])
    for path, content in kept.items():
        path.write_bytes(content)
    assert code == 0 and "replaced without being compared" in said and "it was changed" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": 1e999}', "not finite"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too large a number"),
        (b'{"a": 9223372036854775808}', "9223372036854775808 is too large a number"),
        (b"[" * 65 + b"]" * 65, "nested more than 64"),
        (b"[" * 100_000, "nested more than 64"),
        (b'{"a": "\\ud800"}', "half of a pair"),
        (b'{"\\ud800": 1}', "half of a pair"),
        (b'{"a": 1', "it is not JSON"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b"", "it is not JSON"),
    ],
)
def test_what_is_no_json_of_ours_is_named(text: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parsed(text)


def test_the_largest_number_and_the_deepest_value_are_read() -> None:
    assert parsed(b"[9223372036854775807, -9223372036854775808, 1.5, null]") == [2**63 - 1, -(2**63), 1.5, None]
    assert parsed(b"[" * 64 + b"]" * 64)
