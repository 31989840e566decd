"""The examples on which two runs differ most."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from distilbench.cli.app import main
from distilbench.core.errors import UserError
from distilbench.core.sealed import write_sealed
from distilbench.records.record import EXAMPLES_FILE, RECORD_FILE, Record, dump_json, to_dict
from distilbench.reporting.diff import diff, shown_examples

Make = Callable[..., Record]
GOLD = [1.0, 2.0, 3.0, 4.0]


def leave(folder: Path, record: Record, similarity: list[float], ndcg: list[float]) -> Path:
    pairs = pd.DataFrame({"task": "STS-A", "split": "test", "example": list("0123"), "gold": GOLD})
    queries = pd.DataFrame({"task": "Search", "split": "test", "example": ["q0", "q1"], "ndcg_at_10": ndcg})

    def write(run: Path) -> None:
        dump_json(to_dict(record), run / RECORD_FILE)
        pd.concat([pairs.assign(similarity=similarity), queries]).to_parquet(run / EXAMPLES_FILE)

    write_sealed(folder / record.run_id, write)
    return folder / record.run_id


@pytest.fixture
def runs(make: Make, tmp_path: Path) -> tuple[Path, Path]:
    """Two runs: the second swaps the first and the last pair, and finds what the first query asks for."""
    first = leave(tmp_path, make("mse", 1, (0.9, 0.8, 0.25)), [0.1, 0.2, 0.3, 0.4], [0.0, 0.5])
    second = leave(tmp_path, make("ibkd", 1, (0.1, 0.8, 0.75)), [0.4, 0.2, 0.3, 0.1], [1.0, 0.5])
    return first, second


def test_gains_by_hand(runs: tuple[Path, Path]) -> None:
    found = diff(*runs)
    gains = found.examples.set_index("example")["gain"].to_dict()
    # Ranks are shares of the four pairs: the swapped ones are three of four ranks off.
    assert gains == {"q0": 1.0, "0": -0.75, "3": -0.75, "1": 0.0, "2": 0.0, "q1": 0.0}
    assert found.examples["example"].tolist()[:3] == ["q0", "0", "3"]
    assert dict(
        zip(found.summary()["task"], found.summary().drop(columns="task").to_numpy().tolist(), strict=True)
    ) == {
        "STS-A": [90.0, 10.0, 0, 2, 2],
        "Search": [25.0, 75.0, 1, 0, 1],
    }
    assert shown_examples(found, 1, {("Search", "test", "q0"): "who?"}) == [
        {"task": "Search", "example": "q0", "first": 0.0, "second": 1.0, "gain": 100.0, "text": "who?"}
    ]


def test_the_verb(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", *map(str, runs), "--tasks", "STS-A", "--top", "1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["example"] for row in shown["examples"]] == ["0"]
    assert shown["summary"] == [{"task": "STS-A", "first": 90.0, "second": 10.0, "better": 0, "worse": 2, "same": 2}]
    assert main(["diff", *map(str, runs)]) == 0
    assert "mse -> ibkd" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(runs: tuple[Path, Path], make: Make, tmp_path: Path) -> None:
    first, second = runs
    with pytest.raises(UserError, match="is no run's folder"):
        diff(first, tmp_path)
    with pytest.raises(UserError, match="unknown task of both runs"):
        diff(first, second, ["STS-Z"])
    other = make("other", 1, (0.1, 0.8, 0.75))
    tasks = {name: facts | {"data_sha256": "of other data"} for name, facts in other.tasks.items()}
    changed = leave(tmp_path, make("other", 1, (0.1, 0.8, 0.75), tasks=tasks), [0.4, 0.2, 0.3, 0.1], [1.0, 0.5])
    with pytest.raises(UserError, match="share no task with the same data"):
        diff(first, changed)
    (second / EXAMPLES_FILE).write_bytes(b"changed")
    with pytest.raises(UserError, match="is damaged"):
        diff(first, second)
