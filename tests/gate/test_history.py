"""Planning, confirming, and the history with its change points."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from distilbench.analysis import stats
from distilbench.cli.app import main
from distilbench.core.errors import UserError
from distilbench.gate.check import CheckLine, CheckResult, confirmed
from distilbench.gate.history import _means, _value, append, change_points, changes_between, read, series
from distilbench.gate.judging.power import margin_needed
from distilbench.gate.plan import plan, seeds_needed, times_examples, with_runs


def line(verdict: str = "regressed", column: str = "Mean (Task)", decides: bool = True, **more: object) -> CheckLine:
    return CheckLine("mse", column, decides, verdict, **more)  # type: ignore[arg-type]


def outcome(*lines: CheckLine, verdict: str = "regressed") -> CheckResult:
    return CheckResult(verdict, list(lines), 0.005, 0.05, [])  # type: ignore[arg-type]


def test_a_regression_counts_only_where_other_seeds_show_it() -> None:
    first = outcome(line(), line(column="A", decides=False))
    assert confirmed(first, outcome(line(), line(column="A", decides=False))) == first
    partly = confirmed(first, outcome(line(), line("pass", "A", False)))
    assert [item.verdict for item in partly.lines] == ["regressed", "inconclusive"]
    assert partly.verdict == "regressed"
    none = confirmed(first, outcome(line("pass"), line("pass", "A", False), verdict="pass"))
    assert (none.verdict, none.exit_code) == ("inconclusive", 3)


def test_an_unconfirmed_drop_of_a_guard_is_no_pass() -> None:
    first = outcome(line("pass"), line(column="A", decides=False))
    assert confirmed(first, outcome(line("pass"), line("pass", "A", False), verdict="pass")).verdict == "inconclusive"


def with_error(seed_variance: float, example_variance: float, runs: int) -> CheckLine:
    estimate = stats.Estimate(0.0, 2 * runs - 1, seed_variance, example_variance)
    return line("inconclusive", difference=0.0, estimate=estimate, runs=runs)


def test_planned_seeds_and_examples_are_just_enough() -> None:
    item = with_error(4e-6, 1e-6, 3)
    wanted = seeds_needed(item, 0.005, 0.05)
    assert wanted is not None and wanted > 3
    assert with_runs(item, wanted).detectable(0.1) <= 0.005 < with_runs(item, wanted - 1).detectable(0.1)
    # Where many lines are judged together, it takes more.
    among_others = replace(item, critical=2.5)
    more = seeds_needed(among_others, 0.005, 0.05)
    assert more is not None and more > wanted
    needed = [margin_needed(with_runs(among_others, count), 2.5, 0.05) for count in (more, more - 1)]
    assert needed[0] <= 0.005 < needed[1]
    by_examples = with_error(0.0, 9e-6, 1)
    times = times_examples(by_examples, 0.005, 0.05)
    # Without seeds the error falls with the root of the number of examples.
    assert times == pytest.approx(((1.6449 + 0.8416) * 0.003 / 0.005) ** 2, rel=0.02)
    assert seeds_needed(by_examples, 0.005, 0.05) is None
    assert times_examples(item, 0.005, 0.05) is None


def test_the_plan_says_what_to_add() -> None:
    head, text = plan([with_error(4e-6, 1e-6, 3), line("pass", "A", False, difference=0.0)], 0.005, 0.05)
    assert "within 0.5 points" in head
    assert "seeds on each side instead of 3" in text
    assert "enough as it is" in plan([with_error(1e-9, 1e-9, 3)], 0.005, 0.05)[1]
    assert "fresh seeds" in plan([with_error(0.0, 0.0, 3)], 0.005, 0.05)[1]


def test_the_history_only_grows_and_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gate" / "history.jsonl"
    for number, score in enumerate((0.5, 0.6)):
        monkeypatch.setenv("GITHUB_SHA", f"commit {number}")
        before = path.read_bytes() if number else b""
        append(path, outcome(line("pass", candidate=score), line("pass", "Drift"), verdict="pass"), "results", "b.json")
        assert path.read_bytes().startswith(before)
    entries = read(path)
    assert [entry["commit"] for entry in entries] == ["commit 0", "commit 1"]
    assert series(entries) == {("mse", "Mean (Task)"): [0.5, 0.6]}
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(UserError, match="line 3 is not a check"):
        read(path)


def test_change_points_are_found_where_the_level_changes() -> None:
    noise = 0.002 * np.random.default_rng(4).normal(size=40)
    assert change_points(list(0.5 + noise)) == []
    level = np.repeat([0.5, 0.48, 0.5], [15, 10, 15])
    assert change_points(list(level + noise)) == [15, 25]
    with_gap = level + noise
    with_gap[3] = np.nan
    assert change_points(list(with_gap)) == [15, 25]


def test_scores_without_noise_change_where_they_differ() -> None:
    assert change_points([0.5] * 8) == []
    assert change_points([0.5] * 5 + [0.49] * 4) == [5]
    assert change_points([0.5, 0.4]) == []


def test_change_points_without_a_change_are_rare() -> None:
    rng = np.random.default_rng(0)
    alarms = sum(bool(change_points(list(rng.normal(size=30)))) for _ in range(400))
    assert alarms / 400 < 0.05


def test_the_trend_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history.jsonl"
    for score in [0.5] * 4 + [0.45] * 4:
        append(path, outcome(line("pass", candidate=score), verdict="pass"), "results", "b.json")
    assert main(["trend", str(path), "--out", str(tmp_path / "out")]) == 0
    assert "mse on Mean (Task): another level" in capsys.readouterr().out
    assert (tmp_path / "out" / "trend.svg").read_text().startswith("<?xml")
    assert main(["trend", str(tmp_path / "none.jsonl")]) == 2
    assert json.loads(path.read_text().splitlines()[0])["verdict"] == "pass"


def test_the_order_of_runs_is_no_change() -> None:
    def side(values: list[float]) -> Any:
        return SimpleNamespace(
            runs=pd.DataFrame({"label": ["mse"] * len(values)}), scores=pd.DataFrame({"STS-A": values})
        )

    values = [0.64, 0.27, 0.04, 0.02, 0.81]
    before, after = side(values), side(values[::-1])
    assert _value(_means(before), "mse", "STS-A") != _value(_means(after), "mse", "STS-A")
    assert changes_between(before, after) == {}
    assert list(changes_between(before, side([*values[:4], values[4] + 1e-6]))) == ["mse"]
