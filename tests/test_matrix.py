"""A small real matrix: five methods, real teacher, real text and tasks, through the command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distilbench.cli.app import main
from distilbench.records.record import Record, read_study
from tests.matrix import BASELINE, overrides

NAMED = {"mse", "ibkd", "codir", "internal-kd", "simcse"}
PUBLISHED_STSBENCHMARK = 0.82032
"""MTEB's figure of sentence-transformers/all-MiniLM-L6-v2."""


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> list[Record]:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DISTILBENCH_CACHE", str(folder / "cache"))
    assert main(["run", "ci", *overrides]) == 0
    assert main(["report", "results/ci"]) == 0
    assert (folder / "reports" / "ci" / "index.html").stat().st_size > 10_000
    return read_study(folder / "results" / "ci")


def check(records: list[Record]) -> None:
    """Every cell is there, every method spent the same, and the teacher is above every student."""
    assert {record.label for record in records if record.role == "method"} == NAMED
    assert {record.status for record in records} == {"completed"}
    trained = [record for record in records if record.role == "method"]
    assert (
        len({(record.ledger["steps"], record.ledger["sentences"], record.ledger["tokens"]) for record in trained}) == 1
    )
    (teacher,) = (record for record in records if record.role == "ceiling")
    for task, scores in teacher.scores.items():
        best = max(record.scores[task]["main_score"] for record in trained)
        assert 0 < best < scores["main_score"]


@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.figures
@pytest.mark.mirror
def test_on_official_data_and_the_gate(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILBENCH_MIRROR", str(mirror))
    records = run(tmp_path, monkeypatch, *overrides(mirror, tmp_path))
    check(records)
    (teacher,) = (record for record in records if record.role == "ceiling")
    assert teacher.scores["STSBenchmark"]["main_score"] == pytest.approx(PUBLISHED_STSBENCHMARK, abs=1e-4)
    assert main(["check", "results/ci", "--baseline", str(BASELINE)]) == 0


@pytest.mark.slow
@pytest.mark.figures
def test_on_embedded_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("DISTILBENCH_MIRROR"):
        pytest.skip("the matrix ran on official data")
    check(run(tmp_path, monkeypatch, "seeds=2", "tasks=[DistilbenchSTS]"))
