"""Dev scores over the budget: targets and crossings by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from distilbench.analysis.designs.dev_curves import curves, reached
from distilbench.analysis.frame import make_study
from distilbench.records.record import Record
from distilbench.reporting.tables.response import response_table

Make = Callable[..., Record]


def watched(scores: list[float]) -> list[dict[str, Any]]:
    spent = [100, 200, 400]
    return [{"share": s / 400, "sentences": s, "score": score} for s, score in zip(spent, scores, strict=True)]


@pytest.fixture
def records(make: Make) -> list[Record]:
    return [
        make("late", 1, (0.7, 0.7, 0.5), response=watched([0.10, 0.20, 0.60])),
        make("late", 2, (0.7, 0.7, 0.5), response=watched([0.20, 0.30, 0.60])),
        make("early", 1, (0.6, 0.6, 0.5), response=watched([0.40, 0.45, 0.50])),
        make("floor", 1, (0.2, 0.3, 0.1), "floor"),
    ]


def test_means_over_seeds_by_what_was_spent(records: list[Record]) -> None:
    found = curves(make_study("demo", records))
    assert [float(str(spent)) for spent in found] == [100, 200, 400]
    assert list(found.loc["method:late:"]) == pytest.approx([0.15, 0.25, 0.60])


def test_a_target_is_read_off_the_logarithm() -> None:
    curve = pd.Series([0.2, 0.4], index=[100.0, 400.0])
    assert reached(curve, 0.3) == pytest.approx(200)
    assert reached(curve, 0.1) == 100
    assert reached(curve, 0.4) == pytest.approx(400)
    assert reached(curve, 0.5) == float("inf")


def test_the_table_has_curves_target_and_crossing(records: list[Record]) -> None:
    table = response_table(make_study("demo", records))
    assert table is not None
    shown = table.text.set_index("Method")
    # Target: the median of 60 and 50.
    assert list(shown.loc["late"]) == ["15.00", "25.00", "60.00", "362"]
    assert list(shown.loc["early"]) == ["40.00", "45.00", "50.00", "—"]
    # Gaps -0.25, -0.20, +0.10: zero two thirds of the way from 200 to 400 on the logarithm.
    assert "late passes early at about 317" in table.notes[-1]


def test_shares_that_one_step_reaches_together_are_one_column(make: Make) -> None:
    rows = [{"share": share, "sentences": 64, "score": 0.1} for share in (0.125, 0.25)]
    record = make("mse", 1, (0.6, 0.7, 0.5), response=[*rows, {"share": 1.0, "sentences": 128, "score": 0.3}])
    table = response_table(make_study("demo", [record]))
    assert table is not None
    assert list(table.text) == ["Method", "64", "128", "To the target"]


def test_studies_that_were_not_watched_have_none(plain: list[Record]) -> None:
    assert response_table(make_study("demo", plain)) is None
