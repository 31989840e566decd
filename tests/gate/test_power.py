"""The minimum detectable effect and the plan, held against what the judge finds in simulated checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from distilbench.analysis import stats
from distilbench.gate.check import CheckLine, judge
from distilbench.gate.judging.columns import ALL_ROWS, ColumnDifference, differ
from distilbench.gate.judging.family import families_of, with_means
from distilbench.gate.judging.power import margin_needed
from distilbench.gate.plan import plan, seeds_needed, with_runs

RESAMPLES, SIMULATIONS, CHECKS, ALPHA = 40, 400, 300, 0.05
COLUMNS = {"average": True, "task": False, "other task": False}
THREE_ERRORS = 3 * np.sqrt(0.8 * 0.2 / CHECKS)


def side(rng: np.random.Generator, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    values = 0.5 + 0.01 * rng.normal(size=seeds)
    return values, np.repeat(values[:, None], RESAMPLES, axis=1)


def items(rng: np.random.Generator, seeds: int, rows: int, drop: float = 0.0) -> list[ColumnDifference]:
    """Rows of one spread on three columns, of which all have dropped."""
    made = [
        differ(ColumnDifference(f"row {row}", column, decides), side(rng, seeds), side(rng, seeds), paired=False)
        for row in range(rows)
        for column, decides in COLUMNS.items()
    ]
    return [replace(item, difference=stats.shifted(item.difference, -drop)) for item in made]


def judged(seeds: int, rows: int, margin: float, drop: float = 0.0, first: int = 0) -> Iterator[list[CheckLine]]:
    for rng in np.random.default_rng(first).spawn(CHECKS):
        made = with_means(items(rng, seeds, rows, drop))
        yield judge(made, margin, ALPHA, families_of(made, SIMULATIONS))


def line_of(lines: list[CheckLine], label: str, column: str = "average") -> CheckLine:
    (found,) = (line for line in lines if (line.label, line.column) == (label, column))
    return found


def root_mean_square(values: list[float]) -> float:
    """Of what is stated: variances have no bias, their roots do."""
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize(
    ("rows", "label", "column", "margin"),
    [
        (1, "row 0", "average", 0.001),
        (1, "row 0", "task", 0.001),
        (4, ALL_ROWS, "average", 0.001),
        # Beyond the error, it is the margin that a drop must not be shown to be less than.
        (1, "row 0", "average", 0.05),
    ],
)
def test_the_drop_that_is_stated_is_found_as_often_as_stated(rows: int, label: str, column: str, margin: float) -> None:
    stated = [line_of(lines, label, column).detectable for lines in judged(8, rows, margin)]
    drop = root_mean_square([value for value in stated if value is not None])
    again = judged(8, rows, margin, drop, first=1)
    found = np.mean([line_of(lines, label, column).verdict == "regressed" for lines in again])
    assert found == pytest.approx(stats.POWER, abs=THREE_ERRORS)


def test_a_single_test_would_promise_too_much() -> None:
    lines = next(judged(8, 1, 0.001))
    line = line_of(lines, "row 0")
    assert line.estimate is not None and line.detectable is not None and line.critical is not None
    assert line.critical > 1.9
    assert line.detectable > 1.1 * line.estimate.detectable(2 * ALPHA)


def test_seeds_that_are_planned_find_the_margin_as_often_as_stated() -> None:
    known, lines = 2 * 0.01**2, list(judged(4, 1, 0.001))
    critical = float(np.mean([line_of(found, "row 0").critical for found in lines]))
    now = line_of(lines[0], "row 0")
    assert now.estimate is not None
    line = replace(now, critical=critical, estimate=replace(now.estimate, seed_variance=known / 4))
    margin = 0.013
    seeds = seeds_needed(line, margin, ALPHA)
    assert seeds is not None and seeds > 4
    assert margin_needed(with_runs(line, seeds), critical, ALPHA) <= margin
    found = [line_of(found, "row 0").verdict == "regressed" for found in judged(seeds, 1, margin, margin, first=1)]
    passed = [line_of(found, "row 0").verdict in ("pass", "improved") for found in judged(seeds, 1, margin, first=2)]
    # One seed more than the least is 2 % more power here.
    assert stats.POWER - THREE_ERRORS <= np.mean(found) <= stats.POWER + THREE_ERRORS + 0.04
    assert np.mean(passed) >= stats.POWER - THREE_ERRORS


def test_what_has_not_changed_has_the_power_of_fresh_seeds() -> None:
    """As of a check of two sides that differ as the baseline's own seeds do."""
    rng = np.random.default_rng(3)
    sides = {column: side(rng, 8) for column in COLUMNS}
    same = [
        differ(ColumnDifference("row", column, decides), sides[column], sides[column], paired=True)
        for column, decides in COLUMNS.items()
    ]
    lines = judge(same, 0.001, ALPHA)
    assert {line.verdict for line in lines} == {"pass"}
    others = list(judged(8, 1, 0.001))
    for line in lines:
        critical = np.mean([line_of(found, "row 0", line.column).critical for found in others])
        assert line.critical == pytest.approx(critical, abs=0.15)
        assert line.detectable is not None and 0 < line.detectable < 0.05
    assert "fresh seeds" in plan(lines, 0.001, ALPHA)[1]
