"""Advice: what the records show is said, with its error, and nothing is said of what they do not hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from distilbench.cli.app import main
from distilbench.core.errors import UserError
from distilbench.core.sealed import write_sealed
from distilbench.records.record import EXAMPLES_FILE, RECORD_FILE, Record, dump_json, read_record, to_dict
from distilbench.reporting.advise import advise, situation
from tests.reporting.planted import factorial, simulate

METHODS = factorial(kind=["good", "poor", "also-poor"])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One method of three is better by far."""

    def quality(levels: Mapping[str, str]) -> float:
        return 0.7 if levels["kind"] == "good" else 0.5

    folder = tmp_path_factory.mktemp("results")
    simulate(METHODS, quality, 4, np.random.default_rng(5), spread=0.01).write(folder / "clear", METHODS)
    simulate(METHODS, lambda _: 0.5, 4, np.random.default_rng(6), spread=0.02).write(folder / "open", METHODS)
    return folder


def test_what_is_shown_is_said_and_what_is_not_stays_open(results: Path) -> None:
    (clear, undecided), reasons = advise(results, situation("sentences=12800", "7M", None))
    assert reasons == []
    assert clear.notes[0] == "Take good: better than 2 of 2 others (family-wise error 0.05)."
    assert list(clear.text["Against the first"]) == ["highest score", "worse", "worse"]
    assert undecided.notes[0].startswith("Undecided between ")
    assert "Run next: the same study with seeds=" in undecided.notes[1] or "no number of seeds" in undecided.notes[1]
    assert any("Nothing is said of other situations" in note for note in undecided.notes)


@pytest.mark.parametrize(
    ("budget", "size", "latency", "reason"),
    [
        (
            "sentences=50000",
            None,
            None,
            "sentences=12800 and students of 7.00M parameters; to know, run it",
        ),
        ("flops=1e12", None, None, "it ran budgets sentences=12800"),
        (None, "6.9M", None, "students of 7.00M parameters"),
        (None, None, 5.0, "it ran budgets sentences=12800"),
    ],
)
def test_other_situations_are_refused(
    results: Path, budget: str | None, size: str | None, latency: float | None, reason: str
) -> None:
    tables, reasons = advise(results, situation(budget, size, latency))
    assert tables == [] and len(reasons) == 2
    assert all(reason in text for text in reasons)


@pytest.fixture(scope="module")
def timed(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clear study with the good rows slow and the poor ones with a head that ships; `also-poor` was not timed."""
    speeds = {"good": {"query_ms": 9.0, "parameters": 7e6}, "poor": {"query_ms": 2.5, "parameters": 7.5e6}}
    folder = tmp_path_factory.mktemp("timed") / "clear"
    for run in (results / "clear").iterdir():
        if run.is_dir():
            record, examples = read_record(run / RECORD_FILE), pd.read_parquet(run / EXAMPLES_FILE)
            speed = speeds.get(record.label, {})
            environment = {**record.environment, "cpu": "A" if record.seed < 4 else "B", "threads": 2}

            def leave(path: Path, changed: Record, examples: pd.DataFrame) -> None:
                dump_json(to_dict(changed), path / RECORD_FILE)
                examples.to_parquet(path / EXAMPLES_FILE, index=False)

            changed = replace(record, speed=speed, environment=environment)
            write_sealed(folder / run.name, partial(leave, changed=changed, examples=examples))
    return folder


def test_latency_and_size_are_those_of_what_ships(timed: Path) -> None:
    (table,), _ = advise(timed, situation(None, None, None))
    assert dict(zip(table.text["Method"], table.text["Query (ms)"], strict=True)) == {
        "good": "9.0",
        "poor": "2.5",
        "also-poor": "—",
    }
    assert any("on A (2 threads) and on B (2 threads)" in note and "not to be compared" in note for note in table.notes)
    assert advise(timed, situation(None, None, 9.0))[0][0].text["Method"].tolist() == ["good", "poor"]
    # A row alone cannot be ranked, and one that was not timed is no answer.
    assert advise(timed, situation(None, None, 5.0)) == (
        [],
        ["clear: it has no two methods that fit and have the same scored examples"],
    )
    tables, (reason,) = advise(timed, situation(None, None, 1.0))
    assert tables == [] and reason.endswith("its fastest row takes 2.5 ms a query")
    assert sorted(advise(timed, situation(None, "7.2M", None))[0][0].text["Method"]) == ["also-poor", "good"]


@pytest.mark.parametrize(
    ("budget", "size", "complaint"),
    [
        ("50000", None, "not of the form"),
        ("sentence=3", None, "did you mean 'sentences'"),
        (None, "big", "--size 'big'"),
    ],
)
def test_situations_that_are_none(budget: str | None, size: str | None, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        situation(budget, size, None)


def test_the_command(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", "--results", str(results / "clear"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shown"][0]["Method"] == "good"
    assert main(["advise", "--results", str(results / "clear"), "--latency", "3"]) == 3
    assert "nothing can be said from clear: " in capsys.readouterr().err
