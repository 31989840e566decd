"""Examples that share texts are no independent ones for the gate either."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from distilbench.cli.app import main
from distilbench.gate.baseline import Scores, bless, read_baseline, scores_of
from distilbench.gate.check import CheckResult, check
from distilbench.records.example_texts import write_example_texts
from distilbench.records.record import SLICES
from tests.gate.test_check import write_study

SENTENCES, PAIRS = 60, 300
NEGATION = "Pairs: negation"
FIRST, SECOND = np.triu_indices(SENTENCES, 1)


def one_model(values: np.ndarray, gold: np.ndarray, places: np.ndarray | None = None) -> Scores:
    run = f"run {values[0]}"
    examples = pd.DataFrame({"gold": gold, "value": values, "task": "Pairs", "split": "test", "run": run})
    examples = examples.assign(example=list(map(str, range(len(gold)))), **{SLICES: ["negation", "negation", ""] * 100})
    texts = None
    if places is not None:
        texts = examples[["task", "split", "example"]].assign(
            first=places[:, 0], second=places[:, 1], data_sha256="pairs"
        )
    runs = pd.DataFrame([{"label": "model", "seed": 0, "batches": None, "weights": run}], index=[run])
    score = pd.DataFrame({"Pairs": [float(spearmanr(gold, values).statistic)]}, index=[run])
    tasks = {"Pairs": {"data_sha256": "pairs", "main_metric": "cosine_spearman", "type": "STS", "precision": "fp32"}}
    return Scores(runs, score, examples, tasks, "2.0", None, {}, example_texts=texts)


def two_models(rng: np.random.Generator) -> tuple[Scores, Scores]:
    """As good as each other: what is hard for one is a matter of the sentence, in all of its pairs."""
    chosen = rng.permutation(len(FIRST))[:PAIRS]
    places, gold = np.stack([FIRST[chosen], SECOND[chosen]], axis=1), rng.normal(size=PAIRS)

    def values() -> np.ndarray:
        # A sentence that is hard makes the values of its pairs less like their gold scores.
        found: np.ndarray = gold * (2 + 2 * rng.normal(size=SENTENCES)[places].sum(axis=1)) + 0.3 * rng.normal(
            size=PAIRS
        )
        return found

    return one_model(values(), gold, places), one_model(values(), gold)


def half_width(outcome: CheckResult, column: str = "Pairs") -> float:
    [found] = [line.half_width for line in outcome.lines if line.column == column]
    assert found is not None
    return found


def example_variance(outcome: CheckResult) -> float:
    [found] = [line.estimate for line in outcome.lines if line.column == "STS-A"]
    assert found is not None
    return found.example_variance


def regressed(outcome: CheckResult) -> bool:
    return outcome.verdict == "regressed"


def test_false_alarms_are_held_where_pairs_share_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distilbench.gate.check.RESAMPLES", 200)
    checks, apart, together = 120, 0, 0
    for rng in np.random.default_rng(1).spawn(checks):
        new, old = two_models(rng)
        together += regressed(check(new, old, 0.005, 0.05, as_models=True))
        apart += regressed(check(replace(new, example_texts=None), old, 0.005, 0.05, as_models=True))
    # Three standard errors of 120 checks are 6 %.
    assert together / checks <= 0.11
    assert apart / checks > 0.15


def test_slices_count_what_their_own_examples_share() -> None:
    new, old = two_models(np.random.default_rng(2))
    known, unknown = (check(side, old, 0.005, 0.05, as_models=True) for side in (new, replace(new, example_texts=None)))
    for column in ("Pairs", NEGATION):
        assert half_width(known, column) > 1.2 * half_width(unknown, column)


def test_models_that_agree_stay_equal_to_the_last_digit() -> None:
    new, _ = two_models(np.random.default_rng(3))
    outcome = check(new, replace(new, example_texts=None), 0.005, 0.05, as_models=True)
    assert {line.half_width for line in outcome.lines} == {0.0}


def test_texts_of_other_data_say_nothing() -> None:
    new, old = two_models(np.random.default_rng(4))
    assert new.example_texts is not None
    other = replace(new, example_texts=new.example_texts.assign(data_sha256="other"))
    widths = [
        half_width(check(side, old, 0.005, 0.05, as_models=True))
        for side in (other, replace(new, example_texts=None), new)
    ]
    assert widths[0] == widths[1] < widths[2]


@pytest.mark.parametrize("of_run", [False, True])
def test_a_check_of_results_takes_the_texts_beside_them(
    of_run: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bless(scores_of(write_study(tmp_path / "old", {"mse": 0.6}, seeds=1)), tmp_path / "base.json")
    study = write_study(tmp_path / "new", {"mse": 0.65}, seeds=1, stream=1)
    folder = next(path.parent for path in study.glob("*/record.json")) if of_run else study
    arguments = ["check", str(folder), "--baseline", str(tmp_path / "base.json")]

    main(arguments)
    assert "Which examples share texts is not known" in capsys.readouterr().out

    found = scores_of(study)
    places = found.examples[["task", "split", "example"]].drop_duplicates()
    rng = np.random.default_rng(0)
    texts = places.assign(
        first=rng.integers(0, 20, len(places)),
        second=rng.integers(20, 40, len(places)),
        data_sha256=[found.tasks[task]["data_sha256"] for task in places["task"]],
    )
    write_example_texts(study, texts)

    main(arguments)
    assert "share texts" not in capsys.readouterr().out
    before, now = (
        check(side, read_baseline(tmp_path / "base.json"), 0.005, 0.05, as_models=True)
        for side in (found, scores_of(folder))
    )
    assert example_variance(now) != example_variance(before)
