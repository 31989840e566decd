"""The expected best of k against all draws, the tables of a tuned study, and the mark of an unequal one."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from distilbench.analysis.designs.best_of_k import best_of, curve
from distilbench.analysis.frame import make_study
from distilbench.records.design import Ablation, AblationRow, Design, Trial, Tuned, Tuning
from distilbench.reporting.figures.design import best_of_k
from distilbench.reporting.figures.drawn import FigureData
from distilbench.reporting.notes import caution
from distilbench.reporting.tables.scores import main_table
from distilbench.reporting.tables.tuning import tuning_tables
from tests.reporting.planted import Simulated, simulate

ROWS = Ablation("rows", "one-at-a-time", {"kind": ["mse", "mse-tuned", "ckd", "ckd-tuned"]}, [], {})
CELLS = [AblationRow(label, {"kind": label}) for label in ROWS.factors["kind"]]


def trials(*scores: float | None) -> list[Trial]:
    return [Trial({"temperature": float(place)}, [f"run-{place}"], score, 1e12) for place, score in enumerate(scores)]


TUNING = Tuning(
    4,
    "quasi-random",
    [0],
    "dev.csv",
    "5.0.0",
    [
        Tuned("mse", "mse-tuned", {"temperature": "0 to 3"}, trials(0.5, 0.8, 0.7, None)),
        Tuned("ckd", "ckd-tuned", {"temperature": "0 to 3"}, trials(0.4, 0.4, 0.4, 0.4)),
    ],
)


@pytest.fixture(scope="module")
def tuned() -> Simulated:
    """Tuning brings one method much, and the other nothing."""
    made = simulate(
        replace(ROWS, cells=CELLS), lambda levels: 0.6 if levels["kind"] == "mse-tuned" else 0.5, 5,
        np.random.default_rng(2), spread=0.004,
    )  # fmt: skip
    records = [
        replace(item, ledger={**item.ledger, "tuning_trials": 4 if item.label.endswith("-tuned") else 0})
        for item in made.records
    ]
    return replace(made, records=records)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_expected_best_is_the_mean_over_all_draws(k: int) -> None:
    scores = [0.3, 0.9, 0.9, 0.1, 0.5]
    best = [max(draw) for draw in combinations(scores, k)]
    assert best_of(scores, k) == pytest.approx((np.mean(best), np.std(best)))


def test_a_failed_trial_counts_as_the_worst() -> None:
    means, _ = curve(TUNING.methods[0])
    assert means[0] == pytest.approx((0.5 + 0.8 + 0.7 + 0.5) / 4) and means[-1] == pytest.approx(0.8)
    with pytest.raises(ValueError, match="cannot draw 6 of 5"):
        best_of([0.0] * 5, 6)


def test_the_gain_is_that_of_the_same_method(tuned: Simulated) -> None:
    inference = tuned.inference(200, np.random.default_rng(0))
    gains, best = tuning_tables(inference.study, inference, TUNING)
    assert [verdict == "better" for verdict in gains.text["Verdict"]] == [True, False]
    assert list(gains.text["Chosen"]) == ["temperature 1", "temperature 0"]
    assert [list(gains.text[name]) for name in ("Trials", "Distinct", "Failed")] == [["4", "4"], ["4", "4"], ["1", "0"]]
    assert list(best.text["k = 4"]) == ["80.00 ± 0.00", "40.00 ± 0.00"]
    assert tuning_tables(inference.study, inference, None) == []
    figure = best_of_k(FigureData(inference.study, pd.DataFrame(), inference, Design(tuning=TUNING)))
    assert figure is not None
    # Others are the markers of names.
    assert len([line for line in figure.axes[0].lines if not str(line.get_label()).startswith("_")]) == 2


def test_regimes_are_kept_apart_and_unequal_tuning_is_marked(tuned: Simulated) -> None:
    inference = tuned.inference(50, np.random.default_rng(0))
    study = inference.study
    assert caution(study) is None
    assert study.differences == {"tuning trials": {"a": "0", "b": "4"}}
    letters = study.runs.groupby("label")["letters"].first()
    assert letters["mse"] == letters["ckd"] != letters["mse-tuned"] == letters["ckd-tuned"]
    assert not any(
        "mse-tuned" in (item.one, item.other) and "ckd:a" in (item.one, item.other) for item in inference.comparisons()
    )

    unequal = make_study("x", [record for record in tuned.records if record.label != "ckd-tuned"])
    assert caution(unequal) == "unequal tuning (trials: methods) 0: ckd; 4: mse"
    assert main_table(unequal).mark == caution(unequal)
