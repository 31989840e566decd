"""Studies whose runs fail, share a machine, or run out of disk: nothing that is complete is lost."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock

import distilbench.evaluation.score
from distilbench.records.record import read_study
from distilbench.runs import recording
from distilbench.runs.engines.backlog import Backlog
from distilbench.runs.prepare.prepared import PreparedRun
from tests.conftest import Writes

Cli = Callable[..., tuple[int, str]]

# Whole studies, again and again: tracing them would double their time.
pytestmark = pytest.mark.no_cover


@pytest.fixture
def cli(cli: Callable[..., tuple[int, str, str]]) -> Cli:
    """Of `run`, the exit code and the errors."""

    def run(*arguments: object) -> tuple[int, str]:
        code, _, err = cli("run", *arguments)
        return code, err

    return run


def statuses(folder: Path) -> dict[str, str]:
    return {record.label: record.status for record in read_study(folder)}


def test_a_failed_rescoring_leaves_the_record_as_it_was(
    cli: Cli, study: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli(study())[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()}

    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(recording, "version", lambda _: "another version of mteb")
        patch.setattr("distilbench.evaluation.score.score", fail)
        code, err = cli(study())
    assert code == 3
    assert "3 of 3 runs failed" in err
    assert {path: path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "where",
    [
        "distilbench.runs.recording.write_sealed",
        pytest.param("distilbench.core.cache.write_sealed", marks=pytest.mark.thorough),
        pytest.param("distilbench.training.checkpoints.save_file", marks=pytest.mark.thorough),
    ],
)
def test_a_full_disk_is_one_sentence_and_the_study_goes_on_later(
    cli: Cli, study: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/file")

    assert cli(study())[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(where, refuse)
        code, err = cli(study(methods=["mse", "simcse"]), "--checkpoint-seconds", "0")
    assert code == 2
    assert "error: nothing more can be written (No space left on device: /some/file); make room and run" in err
    assert "Traceback" not in err
    assert statuses(tmp_path / "results" / "tiny") == dict.fromkeys(("teacher", "mse", "untrained"), "completed")
    assert not list(tmp_path.rglob("cache/*/.*"))
    assert cli(study(methods=["mse", "simcse"]))[0] == 0


def test_a_mistake_in_one_run_is_its_own_and_stops_no_other(
    cli: Cli, study: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distilbench.core.errors import UserError
    from distilbench_methods.codir import CoDIR

    def refuse(*_: object) -> None:
        raise UserError("planted")

    monkeypatch.setattr(CoDIR, "loss", refuse)
    # What fails from the first step on is refused by the trial.
    monkeypatch.setattr("distilbench.runs.study_run.try_rows", lambda _: None)
    code, err = cli(study(methods=["codir", "mse"]))
    assert code == 3
    assert "codir seed 1 (UserError: planted)" in err
    assert "Traceback" not in err
    assert statuses(tmp_path / "results" / "tiny")["mse"] == "completed"


def test_a_run_of_another_process_is_waited_for(
    cli: Cli, study: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli(study())[0] == 0
    (record,) = (record for record in read_study(tmp_path / "results" / "tiny") if record.label == "mse")
    folder = tmp_path / "results" / "tiny" / record.run_id
    aside = folder.rename(tmp_path / "aside")
    lock = FileLock(tmp_path / "cache" / "locks" / f"runs-{record.run_id}.lock")
    lock.acquire()
    monkeypatch.setattr("distilbench.runs.engines.backlog.POLL_SECONDS", 0.05)
    wait = Backlog.elsewhere

    def finish_meanwhile(left: Backlog, run: PreparedRun) -> None:
        wait(left, run)
        aside.rename(folder)
        lock.release()

    monkeypatch.setattr(Backlog, "elsewhere", finish_meanwhile)
    code, err = cli(study())
    assert code == 0
    assert "waiting for 1 runs that another process is working on" in err
    assert err.count("found complete") == 3


def test_a_study_does_not_wait_while_another_scores_its_models_on_other_tasks(
    cli: Cli,
    study: Callable[..., Path],
    text_file: Path,
    write_beir: Writes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other: Any = {"own": {"source": str(write_beir(tmp_path / "search"))}}
    monkeypatch.setattr(Backlog, "elsewhere", lambda *_: pytest.fail("waits for another study"))
    text = {"source": str(text_file), "evaluation_text": "keep"}
    score = distilbench.evaluation.score.score
    codes: list[int] = []

    def score_while_another_study_runs(*arguments: Any) -> Any:
        if not codes:
            codes.append(-1)
            codes.append(cli(study(text=text, tasks=[other]), "--out", tmp_path / "other")[0])
        return score(*arguments)

    monkeypatch.setattr(distilbench.evaluation.score, "score", score_while_another_study_runs)
    assert cli(study(text=text))[0] == 0
    assert codes == [-1, 0]
    found = [{record.run_id for record in read_study(tmp_path / name / "tiny")} for name in ("results", "other")]
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.thorough
def test_two_processes_share_a_study(study: Callable[..., Path], tmp_path: Path) -> None:
    path = study(methods=["mse", "simcse", "codir", "ckd"], seeds=2, budget={"steps": 30})
    command = [sys.executable, "-m", "distilbench.cli.app", "run", str(path), "--out", str(tmp_path / "results")]
    variables = {**os.environ, "DISTILBENCH_CACHE": str(tmp_path / "cache")}
    both = [subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    records = read_study(tmp_path / "results" / "tiny")
    assert len(records) == 11
    assert {record.status for record in records} == {"completed"}
    # Each run was made by one of the two, and found complete by the other.
    assert sum(text.count("found complete") for text in errors) == 11


def test_equal_starts_and_batches_are_on_record(cli: Cli, study: Callable[..., Path], tmp_path: Path) -> None:
    assert cli(study(methods=["mse", "simcse", "internal-kd", "simcse-supervised"], seeds=2))[0] == 0
    records = [record for record in read_study(tmp_path / "results" / "tiny") if record.role == "method"]
    starts = {
        record.seed: {other.identity["start"] for other in records if other.seed == record.seed} for record in records
    }
    assert [len(found) for found in starts.values()] == [1, 1]
    assert starts[1] != starts[2]
    # One method reads labelled text.
    batches = {record.identity["batches"] for record in records if record.method != "simcse-supervised"}
    assert len(batches) == 2
    floor = {record.seed: record for record in read_study(tmp_path / "results" / "tiny") if record.role == "floor"}
    assert {seed: record.identity["start"] for seed, record in floor.items()} == {s: f.pop() for s, f in starts.items()}


def test_the_dev_scores_are_on_record(
    cli: Cli, study: Callable[..., Path], labelled_file: Path, tmp_path: Path
) -> None:
    dev = {"source": str(labelled_file), "columns": ["anchor", "positive"], "scores": ["good"], "points": 2}
    assert cli(study(dev=dev, train={"batch_size": 16, "max_length": 64, "checkpoint": "best-on-dev"}))[0] == 0
    for record in read_study(tmp_path / "results" / "tiny"):
        assert [row["share"] for row in record.response] == ([0.5, 1.0] if record.role == "method" else [])
        assert sum(row.get("chosen", False) for row in record.response) == (record.role == "method")


def test_weights_are_not_chosen_by_pairs_that_are_scored(cli: Cli, study: Callable[..., Path], tmp_path: Path) -> None:
    from distilbench.evaluation.tasks.by_name import load_task

    (split,) = load_task("DistilbenchSTS", None).splits()
    # Turned round, in capitals and as a tokeniser leaves them: they are still the same pairs.
    pairs = {
        "a": [re.sub(r"(\W)", r" \1 ", text.upper()) for text in split[2]["sentence2"][:8]],
        "b": split[2]["sentence1"][:8],
        "s": [1.0, 0.5] * 4,
    }
    pd.DataFrame(pairs).to_csv(tmp_path / "dev.csv", index=False)
    dev = {"source": str(tmp_path / "dev.csv"), "columns": ["a", "b"], "scores": ["s"]}
    train = {"batch_size": 16, "max_length": 64, "checkpoint": "best-on-dev"}
    code, err = cli(study(dev=dev, train=train))
    assert code == 2
    assert "8 pairs of dev are also in the task DistilbenchSTS" in err
    assert "dev.evaluation_text=remove" in err
    assert not (tmp_path / "results" / "tiny").exists()
    code, err = cli(study(dev=dev, train=train), "dev.evaluation_text=remove")
    assert (code, "every row has text of the study's tasks" in err) == (2, True)


def test_evaluation_text_leaves_the_dev_rows_when_asked(cli: Cli, study: Callable[..., Path], tmp_path: Path) -> None:
    from distilbench.evaluation.tasks.by_name import load_task

    (split,) = load_task("DistilbenchSTS", None).splits()
    own = [f"a sentence about {thing} of nobody's" for thing in ("bread", "stone", "rain", "glass", "wool", "sand")]
    # The first text alone is the task's in the last two rows.
    pairs = {"a": [*own[:3], *split[2]["sentence1"][:2]], "b": own[1:], "s": [0.1, 0.9, 0.5, 0.2, 0.3]}
    pd.DataFrame(pairs).to_csv(tmp_path / "dev.csv", index=False)
    pd.DataFrame(pairs).head(3).to_csv(tmp_path / "apart.csv", index=False)
    train = {"batch_size": 16, "max_length": 64, "checkpoint": "best-on-dev"}
    found = {}
    for name, more in {"dev": ["dev.evaluation_text=remove"], "apart": []}.items():
        dev = {"source": str(tmp_path / f"{name}.csv"), "columns": ["a", "b"], "scores": ["s"], "points": 2}
        code, err = cli(study(dev=dev, train=train), "--out", str(tmp_path / name), *more)
        assert code == 0, err
        assert ("2 of 5 rows of dev are evaluation text and are left out" in err) == bool(more)
        (record,) = (record for record in read_study(tmp_path / name / "tiny") if record.role == "method")
        found[name] = (record.run_id, [row["score"] for row in record.response])
    assert found["dev"][1] == found["apart"][1] and found["dev"][0] != found["apart"][0]


def test_a_damaged_record_is_made_again_by_a_run(
    cli: Cli, study: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert cli(study())[0] == 0
    (path,) = (
        path for path in (tmp_path / "results").rglob("record.json") if json.loads(path.read_text())["label"] == "mse"
    )
    before = path.read_text()
    path.write_text(before.replace('"seed": 1', '"seed": 2'))
    with caplog.at_level(logging.WARNING):
        assert cli(study())[0] == 0
    assert "record.json is not as it was written" in caplog.text
    old, new = json.loads(before), json.loads(path.read_text())
    assert old["scores"] == new["scores"]
    assert new["seed"] == 1
