"""Settings of the training, from the command line to the weights, the curve and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from distilbench.analysis.frame import make_study
from distilbench.records.design import read_design
from distilbench.records.record import CURVE_FILE, Record, read_study
from distilbench.reporting.findings import compared
from tests.conftest import Cli, Writes, sentences


def records(folder: Path, role: str = "method") -> dict[str, Record]:
    return {record.label: record for record in read_study(folder) if record.role == role}


def rates(folder: Path, record: Record) -> pd.Series[Any]:
    return pd.read_parquet(folder / record.run_id / CURVE_FILE)["lr"]


def test_a_row_may_have_a_learning_rate_of_its_own_and_is_marked(cli: Cli, study: Writes, tmp_path: Path) -> None:
    rows = [
        "mse",
        {"slow": {"method": "mse", "learning_rate": 1e-4}},
        {"two": [{"mse": {"learning_rate": 1e-5}}, "ckd"]},
    ]
    path = study(
        methods=rows,
        budget={"steps": 21},
        train={"batch_size": 16, "max_length": 64, "learning_rate": 1e-3, "warmup": 0},
    )
    code, _, err = cli("run", path, "--out", tmp_path)
    assert code == 0, err
    folder = tmp_path / "tiny"
    found = records(folder)
    assert rates(folder, found["mse"]).max() == pytest.approx(1e-3)
    assert rates(folder, found["slow"]).max() == pytest.approx(1e-4)
    both = rates(folder, found["two"])
    assert both.iloc[0] == pytest.approx(1e-5) and both.max() > 4e-4
    assert (
        found["slow"].hyperparameters["learning_rate"] == 1e-4 and "learning_rate" not in found["mse"].hyperparameters
    )
    code, _, err = cli("report", folder, "--out", tmp_path / "reports")
    assert code == 0, err
    page = (tmp_path / "reports" / "tiny" / "index.html").read_text(encoding="utf-8")
    assert "learning rates of their own: slow 0.0001, two 1e-05" in page


@pytest.mark.parametrize("rate", ["0", "-1", ".inf", "yes", "fast"])
def test_no_learning_rate_is_refused_by_name(cli: Cli, study: Writes, rate: str) -> None:
    path = study(methods=[{"slow": {"method": "mse", "learning_rate": yaml.safe_load(rate)}}])
    code, _, err = cli("run", path, "--dry-run")
    assert code == 2 and "learning_rate of 'slow'" in err


def test_a_learning_rate_may_be_a_factor(cli: Cli, study: Writes, tmp_path: Path) -> None:
    factors = {"mse": {"factors": {"learning_rate": [1e-4, 0.002]}}}
    path = study(methods=[], ablate=factors)
    code, _, err = cli("run", path, "--out", tmp_path)
    assert code == 0, err
    (ablation,) = read_design(tmp_path / "tiny").ablations
    assert [cell.levels for cell in ablation.cells] == [{"learning_rate": "0.002"}, {"learning_rate": "0.0001"}]
    assert {
        label: record.hyperparameters.get("learning_rate") for label, record in records(tmp_path / "tiny").items()
    } == {
        "mse": None,
        "mse+learning_rate-0.0001": 1e-4,
    }


@pytest.mark.parametrize("rule", ["isometry", "torch", "released"])
def test_heads_start_by_the_rule_of_the_study(cli: Cli, study: Writes, tmp_path: Path, rule: str) -> None:
    path = study(methods=["ibkd"])
    code, _, err = cli("run", path, f"train.head_start={rule}", "--out", tmp_path)
    assert code == 0, err
    found = read_study(tmp_path / "tiny")
    assert records(tmp_path / "tiny")["ibkd"].train["head_start"] == rule
    said = {"isometry": "start as isometries", "torch": "as torch has it", "released": "in each method's released code"}
    assert "1 method, untuned, 1 seed: " in (sentence := compared(make_study("tiny", found))) and said[rule] in sentence


def test_trials_draw_their_learning_rates_from_one_span(cli: Cli, study: Writes, tmp_path: Path) -> None:
    dev = tmp_path / "dev.csv"
    texts = [text.replace(",", "") for text in sentences(24)]
    dev.write_text("sentence1,sentence2,score\n" + "".join(f"{texts[n]},{texts[-n]},{n % 5}\n" for n in range(1, 12)))
    path = study(methods=["mse", "simcse"], dev={"source": str(dev), "scores": ["score"]}, tune={"trials": 2})
    code, _, err = cli("run", path, "tune.learning_rate=[0.01, 0.02]", "--out", tmp_path)
    assert code == 0, err
    tuning = read_design(tmp_path / "tiny").tuning
    assert tuning is not None
    drawn = [trial.hyperparameters["learning_rate"] for item in tuning.methods for trial in item.trials]
    assert len(drawn) == 4 and all(0.01 <= rate <= 0.02 for rate in drawn)
    chosen = {item.tuned: item.chosen.hyperparameters["learning_rate"] for item in tuning.methods if item.chosen}
    found = records(tmp_path / "tiny")
    assert set(chosen) == {"mse-tuned", "simcse-tuned"}
    assert {label: found[label].hyperparameters["learning_rate"] for label in chosen} == chosen
    sentence = compared(make_study("tiny", read_study(tmp_path / "tiny")))
    assert "untuned and tuned by 2 trainings each" in sentence
    code, _, err = cli("run", path, "tune.learning_rate=[0.02, 0.01]", "--dry-run")
    assert code == 2 and "give the lowest learning rate first" in err
    code, out, _ = cli("run", path, "tune.learning_rate=null", "--dry-run")
    assert code == 0 and "learning_rate" not in out
