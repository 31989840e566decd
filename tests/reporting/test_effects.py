"""Effects of ablations: planted ones are found, idle ones are not, and every design asks for the right differences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from distilbench.analysis.designs.effects import effects
from distilbench.analysis.frame import OVERALL, make_study
from distilbench.analysis.inference import Inference
from distilbench.records.design import Ablation, AblationRow, Design, read_design
from distilbench.records.record import read_study
from distilbench.reporting.figures.design import ablation, interactions
from distilbench.reporting.figures.drawn import FigureData
from distilbench.reporting.tables.effects import effect_table
from distilbench.reporting.write import with_errors
from tests.reporting.planted import Simulated, factorial, simulate

ABLATION = factorial(matters=["on", "off"], idle=["on", "off"])
ONE = Ablation(
    "one",
    "one-at-a-time",
    {"matters": ["on", "off"], "idle": ["on", "off"], "train.batch_size": ["64", "32"]},
    [
        AblationRow("base", {"matters": "on", "idle": "on", "train.batch_size": "64"}),
        AblationRow("without", {"matters": "off"}),
        AblationRow("idle-off", {"idle": "off"}),
        AblationRow("small", {"train.batch_size": "32"}),
    ],
    {"matters": [], "idle": [], "train.batch_size": ["train.batch_size"]},
)


@pytest.fixture(scope="module")
def planted() -> Simulated:
    def quality(levels: dict[str, str]) -> float:
        return 0.5 + 0.1 * (levels["matters"] == "on")

    return simulate(ABLATION, quality, 6, np.random.default_rng(3), spread=0.004)  # type: ignore[arg-type]


def said(inference: Inference) -> dict[str, str]:
    """Factor -> verdict, as the table has it."""
    table = effect_table(inference.study, inference, effects(inference, [ABLATION]))
    assert table is not None
    return dict(zip(table.text["Factor"], table.text["Verdict"], strict=True))


def test_a_planted_effect_is_found_and_an_idle_component_is_not(planted: Simulated) -> None:
    assert said(planted.inference(300, np.random.default_rng(0), margin=0.04)) == {
        "matters": "worse",
        "idle": "equivalent",
        "matters x idle": "the sum",
    }
    assert said(planted.inference(300, np.random.default_rng(0), margin=1e-5)) == {
        "matters": "worse",
        "idle": "undecided",
        "matters x idle": "undecided",
    }


def test_effects_are_the_differences_of_cell_means(planted: Simulated) -> None:
    inference = planted.inference(100, np.random.default_rng(0))
    runs = inference.study.runs
    means = inference.study.averages[OVERALL].groupby(runs["label"]).mean()
    found = {item.factor: item.estimates[OVERALL].mean for item in effects(inference, [ABLATION])}
    on, off = (means[f"{level}+on"] + means[f"{level}+off"] for level in ("on", "off"))
    assert found["matters"] == pytest.approx((off - on) / 2)
    crossed = means["off+off"] - means["on+off"] - means["off+on"] + means["on+on"]
    assert found["matters x idle"] == pytest.approx(crossed)


def test_cells_of_other_settings_are_compared_only_where_the_ablation_changes_them() -> None:
    made = simulate(ONE, lambda levels: 0.6, 3, np.random.default_rng(1))
    records = [
        replace(record, train={**record.train, "batch_size": 32 if record.label == "small" else 64})
        for record in made.records
    ]
    found = effects(replace(made, records=records).inference(50, np.random.default_rng(0)), [ONE])
    assert [(item.factor, item.change) for item in found] == [
        ("matters", "on → off"),
        ("idle", "on → off"),
        ("train.batch_size", "64 → 32"),
    ]
    assert all(item.verdict is not None for item in found)
    stray = [
        replace(record, train={**record.train, "learning_rate": 1.0}) if record.label == "idle-off" else record
        for record in records
    ]
    inference = replace(made, records=stray).inference(50, np.random.default_rng(0))
    found = effects(inference, [ONE])
    assert [item.verdict is None for item in found] == [False, True, False]
    table = effect_table(inference.study, inference, found)
    assert table is not None and list(table.text["Verdict"])[1] == "a cell is missing"


def test_the_variance_of_an_effect_is_half_its_own_and_half_that_of_the_cells(planted: Simulated) -> None:
    inference = planted.inference(100, np.random.default_rng(0))
    priors = []
    for item in effects(inference, [ABLATION]):
        weights = {f"method:{label}:": weight for label, weight in item.labels.items()}
        own, found = inference.contrast(weights, OVERALL), item.estimates[OVERALL]
        assert own is not None and found.mean == pytest.approx(own.mean)
        assert found.seed_freedom is not None and 5 < found.seed_freedom <= 10
        rest = found.seed_variance * found.seed_freedom - own.seed_variance * 5
        priors.append(rest / (found.seed_freedom - 5) / sum(weight**2 for weight in weights.values()))
    assert priors == pytest.approx([priors[0]] * len(priors)) and priors[0] > 0


def test_table_and_figures(planted: Simulated, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    planted.write(folder, ABLATION)
    design = read_design(folder)
    assert design.ablations == [ABLATION]
    study, inference = with_errors(make_study("demo", read_study(folder)), folder)
    table = effect_table(study, inference, effects(inference, design.ablations))
    assert table is not None and list(table.text["Verdict"]) == ["worse", "undecided", "undecided"]
    given = FigureData(study, pd.DataFrame(), inference, design)
    drawn = (ablation(given), interactions(given))
    assert [len(figure.axes) for figure in drawn if figure is not None] == [1, 1]
    assert ablation(replace(given, design=Design())) is None and interactions(replace(given, design=Design())) is None
