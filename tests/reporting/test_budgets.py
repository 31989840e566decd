"""Studies that differ in their budget alone are set side by side; others are named and left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distilbench.analysis.frame import StudyFrames, make_study
from distilbench.records.record import RECORD_FILE, Record
from distilbench.reporting.tables.budgets import budget_table, siblings

Make = Callable[..., Record]


@pytest.fixture
def under(plain: list[Record]) -> Callable[..., StudyFrames]:
    """The same records with scores moved by `shift`, as a study under another budget."""

    def build(name: str, currency: str, amount: float, shift: float, **changed: Any) -> StudyFrames:
        budget = {"currency": currency, "amount": amount}
        records = []
        for record in plain:
            scores = {task: {**of, "main_score": of["main_score"] + shift} for task, of in record.scores.items()}
            moved = replace(record, study=name, scores=scores, run_id=f"{name}-{record.run_id}")
            records.append(replace(moved, budget=budget, **changed) if record.role == "method" else moved)
        return make_study(name, records)

    return build


def test_each_budget_is_a_column(under: Callable[..., StudyFrames]) -> None:
    table = budget_table(under("a", "sentences", 1000, 0.0), [under("a-flops", "flops", 2e13, 0.01)])
    assert table is not None
    assert list(table.text) == ["Method", "1,000 sentences", "2e+13 flops"]
    moved = table.order["2e+13 flops"] - table.order["1,000 sentences"]
    assert moved.dropna().to_list() == pytest.approx([1.0] * len(table.order))


def test_what_differs_in_more_is_named_and_left_out(under: Callable[..., StudyFrames]) -> None:
    mine, equal = under("a", "sentences", 1000, 0.0), under("a-flops", "flops", 2e13, 0.01)
    other = under("a-seconds", "seconds", 30, 0.0, text={"sentences": 5, "source": "elsewhere"})
    assert budget_table(mine, [other]) is None
    table = budget_table(mine, [equal, other])
    assert table is not None
    assert "30 seconds" not in table.text
    assert any("a-seconds is left out" in note and "text s" in note for note in table.notes)


@pytest.mark.parametrize(
    ("name", "beside"), [("mine", ["mine-flops", "mine-seconds"]), ("mine-flops", ["mine", "mine-seconds"])]
)
def test_siblings_are_found_by_name(tmp_path: Path, name: str, beside: list[str]) -> None:
    for folder in ("mine", "mine-flops", "mine-seconds", "mine-other", "mines"):
        (tmp_path / folder / "run").mkdir(parents=True)
        (tmp_path / folder / "run" / RECORD_FILE).touch()
    (tmp_path / "mine-steps").mkdir()
    assert [path.name for path in siblings(tmp_path / name)] == beside
