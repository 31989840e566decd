"""The gate's judge: known distributions, the mean over rows, and error rates from the command line on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from distilbench.analysis import stats
from distilbench.analysis.error_rates import GateDesign
from distilbench.cli.app import main
from distilbench.gate.check import judge, overall
from distilbench.gate.judging.columns import ALL_ROWS, ColumnDifference, differ
from distilbench.gate.judging.error_rates import RunPopulation, designs, gate_rates
from distilbench.gate.judging.family import averaged_again, families_of, with_means
from distilbench.reporting import ReportOptions, build
from tests.reporting.planted import deviate, factorial, simulate

RESAMPLES = 50


def side(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs that examples tell nothing of."""
    return values, np.repeat(values[:, None], RESAMPLES, axis=1)


def items(
    seeds: int | tuple[int, int],
    rows: int = 1,
    columns: int = 1,
    *,
    rng: np.random.Generator,
    paired: bool = False,
    spread: tuple[float, ...] = (0.01,),
) -> list[ColumnDifference]:
    counts = seeds if isinstance(seeds, tuple) else (seeds, seeds)
    return [
        differ(
            ColumnDifference(f"row {row}", f"column {column}", decides=True),
            *(side(0.5 + spread[row % len(spread)] * rng.normal(size=count)) for count in counts),
            paired=paired,
        )
        for row in range(rows)
        for column in range(columns)
    ]


@pytest.mark.parametrize(("seeds", "paired", "freedom"), [(3, False, 4), ((1, 5), False, 4), (4, True, 3)])
def test_one_row_on_one_column_is_a_test_of_student(seeds: int | tuple[int, int], paired: bool, freedom: int) -> None:
    made = with_means(items(seeds, rng=np.random.default_rng(0), paired=paired))
    [item] = made
    assert item.difference.freedom == freedom
    found = families_of(made, 8000)
    # The largest statistic of drops alone is on the scale of a one-sided normal deviate.
    assert np.quantile(found.highest[True, False], 0.95) == pytest.approx(1.645, abs=0.06)
    ratio = item.difference.mean / np.sqrt(item.difference.seed_variance)
    shown = float(found.adjusted((True, False), np.array([-deviate(item.difference)]))[0])
    assert shown == pytest.approx(student.cdf(ratio, freedom), abs=0.02) or ratio > 0


def test_the_spread_of_the_blessed_seeds_stands_for_a_single_one() -> None:
    rng = np.random.default_rng(1)
    [item] = items((1, 5), rng=rng)
    assert item.spread.freedom == 4 and item.spread.scale == pytest.approx(1.2)
    assert item.difference.seed_variance == pytest.approx(1.2 * item.spread.variance)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("seeds", [2, 3])
def test_equal_sides_regress_in_few_checks(seeds: int, paired: bool) -> None:
    """Where rows vary alike, and where one varies five times as much."""
    for spread in ((0.01,), (0.01, 0.01, 0.01, 0.01, 0.05)):
        false = 0
        for rng in np.random.default_rng(2).spawn(250):
            made = with_means(items(seeds, 5, 2, rng=rng, paired=paired, spread=spread))
            families = families_of(made, 300)
            false += overall(judge(made, 0.005, 0.05, families)) == "regressed"
        # Three standard errors of 250 checks are 4.1 %.
        assert false / 250 <= 0.091


def test_a_drop_in_all_rows_shows_in_their_mean_first() -> None:
    found, alone = 0, 0
    for rng in np.random.default_rng(3).spawn(40):
        raw = items(3, 6, rng=rng)
        made = with_means([replace(item, difference=stats.shifted(item.difference, -0.016)) for item in raw])
        lines = judge(made, 0.005, 0.05, families_of(made, 300))
        found += any(line.label == ALL_ROWS and line.verdict == "regressed" for line in lines)
        alone += any(line.label != ALL_ROWS and line.verdict == "regressed" for line in lines)
    assert found >= 36 > 24 > alone


def test_the_mean_over_rows_is_weighted_and_follows_the_rows() -> None:
    made = with_means(items(5, 4, rng=np.random.default_rng(4), spread=(0.01, 0.01, 0.01, 0.5)))
    [mean] = [item for item in made if item.label == ALL_ROWS]
    assert sum(mean.spread.weights) == pytest.approx(1) and mean.spread.weights[3] < 0.01
    dropped = [
        item if item.label == ALL_ROWS else replace(item, difference=stats.shifted(item.difference, -0.1))
        for item in made
    ]
    assert averaged_again(dropped)[-1].difference.mean == pytest.approx(mean.difference.mean - 0.1)


def test_rows_of_other_seeds_and_single_rows_have_no_mean() -> None:
    rng = np.random.default_rng(5)
    mixed = [*items(3, 2, rng=rng), *(replace(item, label="other") for item in items(4, rng=rng))]
    for made in (mixed, items(3, 1, rng=rng)):
        assert not any(item.label == ALL_ROWS for item in with_means(made))


def test_a_row_that_agrees_in_every_run_stays_equal_to_the_baseline() -> None:
    rng = np.random.default_rng(6)
    same = side(0.5 + 0.01 * rng.normal(size=3))
    twin = differ(ColumnDifference("twin", "column 0", decides=True), same, same, paired=True)
    made = with_means([*items(3, 4, rng=rng, paired=True), twin])
    assert made[4].difference.error == 0
    assert judge(made, 0.005, 0.05)[4].verdict == "pass"


@pytest.fixture(scope="module")
def population() -> RunPopulation:
    rng = np.random.default_rng(7)
    rows, seeds, columns = 4, 5, 3
    own = 0.002 * rng.normal(size=(rows, seeds, columns, 1 + RESAMPLES))
    labels = [f"row {row}" for row in range(rows)]
    means = np.full((rows, columns, 1 + RESAMPLES), 0.5)
    return RunPopulation(labels, {"a": True, "b": True, "c": False}, means, 0.001 * own[0], own)


def test_rates_of_the_gate_are_those_of_the_generator(population: RunPopulation) -> None:
    design = GateDesign(4, 3, 3, paired=False)
    found = gate_rates(population, design, 60, 0.005, 0.05)
    assert found.false_alarm <= 0.15
    assert found.false_alarm + found.inconclusive + found.passed == pytest.approx(1)
    assert found.found["0.5"] <= found.found["1"] <= found.found["2"] and found.found["2"] > 0.9
    assert found.found_in_one["2"] <= found.found["2"]
    assert found.passed_at_margin <= 0.1
    assert gate_rates(population, design, 60, 0.005, 0.05) == found


def test_every_wanted_number_of_seeds_is_a_design() -> None:
    counts = {(design.seeds, design.baseline_seeds) for design in designs(8)}
    assert counts == {(1, 5), (2, 2), (3, 3), (5, 5)}
    assert all(design.seeds > 1 for design in designs(8) if design.paired)
    assert {design.rows for design in designs(8)} == {1, 8}
    assert len(designs(1)) == len(set(designs(1)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ablation = factorial(first=["on", "off"])
    made = simulate(ablation, lambda levels: 0.5, 3, np.random.default_rng(3), spread=0.004)
    made.write(tmp_path / "demo", ablation)
    return tmp_path / "demo"


def test_the_command_prints_keeps_and_the_report_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["error-rates", str(folder), "--studies", "3"]) == 0
    before = json.loads((folder / "error_rates.json").read_text())
    assert "gate" not in before
    capsys.readouterr()
    assert main(["error-rates", str(folder), "--gate", "--studies", "2", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    table = table[0] if isinstance(table, list) else table
    assert {line["Seeds"] for line in table["shown"]} == {"1 against 5", "2 against 2", "3 against 3", "5 against 5"}
    stored = json.loads((folder / "error_rates.json").read_text())
    assert stored["rates"] == before["rates"] and len(stored["gate"]) == len(table["shown"])
    [page] = build(folder, folder.parent / "out", ReportOptions())
    assert "How often the gate is wrong" in page.read_text()
    # The gate's rates stay where studies are simulated again.
    assert main(["error-rates", str(folder), "--studies", "3"]) == 0
    assert json.loads((folder / "error_rates.json").read_text()) == stored


def test_what_says_nothing_of_the_gate_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--methods", "3"], ["--seeds", "3"], ["--variances", "equal"], ["--resampled"]):
        assert main(["error-rates", str(folder), "--gate", *arguments]) == 2
        assert "--gate simulates checks of its own" in capsys.readouterr().err


def test_two_pairs_of_one_row_tell_nothing_of_how_columns_vary_together() -> None:
    """One residual is the same in all columns but for its size, and these are no single column."""
    false = 0
    for rng in np.random.default_rng(2).spawn(250):
        made = with_means(items(2, 1, 8, rng=rng, paired=True))
        false += overall(judge(made, 0.005, 0.05, families_of(made, 300))) == "regressed"
    assert false / 250 <= 0.091
