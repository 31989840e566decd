"""Error rates measured on a study's own records: from the command line to the file, the report, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from distilbench.analysis.error_rates import Population, SimulatedDesign, error_rates
from distilbench.cli.app import main
from distilbench.reporting import ReportOptions, build
from tests.reporting.conftest import make_record, write_study
from tests.reporting.planted import factorial, simulate

FILE = "error_rates.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ablation = factorial(first=["on", "off"], second=["on", "off"])
    made = simulate(ablation, lambda levels: 0.5, 4, np.random.default_rng(3), spread=0.004)
    made.write(tmp_path / "demo", ablation)
    return tmp_path / "demo"


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, str]]:
    """Measure -> heading -> share, as the command prints them."""
    assert main(["error-rates", *arguments, "--json"]) == 0
    [table] = [json.loads(line) for line in [capsys.readouterr().out]]
    table = table[0] if isinstance(table, list) else table
    return {line.pop("Share (%)"): line for line in table["shown"]}


def test_the_command_prints_keeps_and_the_report_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, str(folder), "--studies", "12")
    assert set(found["Equal methods: any verdict"]) == {"4 x 4"}
    stored = json.loads((folder / FILE).read_text())
    [rates] = stored["rates"]
    assert rates["studies"] == 12 and rates["design"]["like_the_study"]
    answer(capsys, str(folder), "--studies", "8", "--methods", "3", "--seeds", "2", "--variances", "equal")
    answer(capsys, str(folder), "--studies", "8", "--resampled")
    designs = [item["design"] for item in json.loads((folder / FILE).read_text())["rates"]]
    assert len(designs) == 3
    assert {"methods": 3, "seeds": 2, "like_the_study": False, "equal_variances": True, "resampled": False} in designs
    [page] = build(folder, folder.parent / "out", ReportOptions())
    tables = page.parent / "tables"
    assert "Error rates, in 12 studies simulated from these records" in (tables / "main.md").read_text()
    assert "3 x 2=" in (tables / "error_rates.md").read_text() and "How often verdicts are wrong" in page.read_text()


def test_what_was_measured_on_other_runs_or_another_margin_is_not_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, str(folder), "--studies", "5", "--margin", "1")
    for options, shown in ((ReportOptions(margin=0.01), True), (ReportOptions(margin=0.005), False)):
        [page] = build(folder, folder.parent / "out", options)
        assert (page.parent / "tables" / "error_rates.md").is_file() is shown


@pytest.mark.parametrize("damage", ['{"schema": 1}', "[]", "{", '{"schema": 2, "rates": []}'])
def test_a_damaged_file_is_refused_in_one_sentence(
    folder: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / FILE).write_text(damage)
    assert main(["report", str(folder), "--out", str(folder.parent / "out")]) == 2
    assert "delete it and run distilbench error-rates" in capsys.readouterr().err


def test_an_edited_share_is_noticed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, str(folder), "--studies", "5")
    path = folder / FILE
    content = json.loads(path.read_text())
    content["rates"][0]["false_verdict"] = 0.001
    path.write_text(json.dumps(content))
    assert main(["report", str(folder), "--out", str(folder.parent / "out")]) == 2
    assert FILE in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--methods", "1"], "2 or more"), (["--seeds", "1"], "2 or more"), (["--studies", "0"], "positive whole number")],
)
def test_what_cannot_be_simulated_is_said(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["error-rates", str(folder), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_study_of_one_seed_has_nothing_to_simulate_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [make_record("mse", 1, (0.6, 0.7, 0.5)), make_record("codir", 1, (0.5, 0.7, 0.5))]
    assert main(["error-rates", str(write_study(tmp_path / "demo", records))]) == 2
    assert "run it with seeds=5" in capsys.readouterr().err


def test_rates_are_those_of_the_generator() -> None:
    rng = np.random.default_rng(0)
    columns, rows, seeds = 2, 5, 5
    deviations = [0.01 * rng.normal(size=(seeds, columns)) for _ in range(rows)]
    examples = 1e-6 * np.eye(rows * columns).reshape(rows, columns, rows, columns)
    population = Population(["a", "b"], deviations, examples, np.ones((rows, seeds, columns), dtype=bool))
    found = error_rates(population, SimulatedDesign(rows, seeds), 150, 0.005, 0.05, (0.5, 5.0))
    assert found.false_verdict <= 0.1 and found.false_best <= found.false_verdict
    assert found.coverage >= 0.9 and 0.9 <= found.single_coverage <= 1
    assert found.power["0.5"] < 0.5 < found.power["5"] and found.wrong_direction <= 0.02
    assert found.false_equivalence <= 0.05
    again = error_rates(population, SimulatedDesign(rows, seeds), 150, 0.005, 0.05, (0.5, 5.0))
    assert again == found
