"""Examples that share texts: the covariance they add, by sums over all of their pairs, and whether intervals hold."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from distilbench.analysis.bootstrap import TaskExamples
from distilbench.analysis.shared_texts import Overlap, covariance, influence, overlap, together
from distilbench.core.errors import UserError
from distilbench.records.example_texts import COLUMNS, TEXTS_FILE, read_example_texts, write_example_texts


def graded(rng: np.random.Generator, runs: int, count: int) -> TaskExamples:
    gold = rng.integers(0, 6, size=count).astype(float)
    # Similarities in steps, so that some are equal.
    return TaskExamples((gold / 5 + rng.normal(0, 0.3, size=(runs, count))).round(2), gold)


def test_an_influence_is_the_derivative_of_the_metric() -> None:
    """By scipy's correlation of repeated examples: 200 times each, and one of them once more or less."""
    examples = graded(np.random.default_rng(1), 2, 40)
    found = influence(examples)
    assert examples.gold_N is not None
    assert found.sum(axis=1) == pytest.approx(0, abs=1e-12)

    for run, example in product(range(2), range(0, 40, 3)):
        around = []
        for change in (1, -1):
            times = np.full(40, 200)
            times[example] += change
            rows = np.repeat(np.arange(40), times)
            around.append(spearmanr(examples.values_RN[run, rows], examples.gold_N[rows]).statistic)
        # N times the slope, in the weight of one example of 40.
        assert (around[0] - around[1]) / 2 * 200 == pytest.approx(found[run, example], abs=1e-5)


def test_an_influence_on_an_average_precision_is_its_derivative() -> None:
    """By scikit-learn's of weighted examples."""
    rng = np.random.default_rng(4)
    gold = (rng.random(40) < 0.3).astype(float)
    examples = TaskExamples((gold / 2 + rng.normal(0, 0.4, size=(2, 40))).round(1), gold, classified=True)
    found = influence(examples)
    assert found.sum(axis=1) == pytest.approx(0, abs=1e-12)

    for run, example in product(range(2), range(40)):
        around = []
        for change in (1e-4, -1e-4):
            weights = np.ones(40)
            weights[example] += change
            around.append(average_precision_score(gold, examples.values_RN[run], sample_weight=weights))
        assert (around[0] - around[1]) / 2e-4 == pytest.approx(found[run, example], abs=1e-7)


def test_an_influence_on_a_mean_is_what_an_example_differs_by() -> None:
    found = influence(TaskExamples(np.array([[0.0, 0.5, 1.0, 0.5]]), None))

    assert found[0] == pytest.approx([-0.125, 0, 0.125, 0])


def test_independent_examples_vary_as_the_bootstrap_says() -> None:
    rng = np.random.default_rng(2)
    examples = graded(rng, 2, 400)
    psi = influence(examples)

    resampled = examples.replicates(4000, rng).std(axis=1)

    assert np.sqrt((psi**2).sum(axis=1)) == pytest.approx(resampled, rel=0.06)


def test_the_covariance_is_the_sum_over_all_examples_that_share_a_text() -> None:
    rng = np.random.default_rng(3)
    tasks = [(rng.normal(size=(2, 30)), rng.integers(0, 25, size=(30, 2))) for _ in range(2)]
    # The same pair in both tasks, turned round in one; no example is of one text twice.
    tasks[1][1][:5] = tasks[0][1][:5, ::-1]
    for _, places in tasks:
        places[places[:, 0] == places[:, 1], 1] += 100

    found = covariance(tasks)

    lines = [(task, run) for task in range(2) for run in range(2)]
    expected = np.zeros((4, 4))
    for (row, (one, first)), (column, (other, second)) in product(enumerate(lines), repeat=2):
        for p, q in product(range(30), repeat=2):
            same = one == other and p == q
            if not same and set(tasks[one][1][p]) & set(tasks[other][1][q]):
                expected[row, column] += tasks[one][0][first, p] * tasks[other][0][second, q]
    np.testing.assert_allclose(found, expected, atol=1e-10)


def texts_of(places: dict[str, np.ndarray]) -> pd.DataFrame:
    frames = [
        pd.DataFrame({"task": task, "split": "test", "example": map(str, range(len(at)))}).assign(
            first=at[:, 0], second=at[:, 1], data_sha256="0"
        )
        for task, at in places.items()
    ]
    return pd.concat(frames, ignore_index=True)


def named(examples: TaskExamples) -> list[TaskExamples]:
    names = np.array([str(row) for row in range(examples.values_RN.shape[1])], dtype=object)
    return [TaskExamples(examples.values_RN, examples.gold_N, split="test", names_N=names)]


def test_a_task_that_stands_there_twice_tells_no_more_than_once() -> None:
    rng = np.random.default_rng(4)
    once = graded(rng, 2, 300)
    apart = np.arange(600).reshape(300, 2)
    known = {"one": named(once), "again": named(once)}

    more = together(known, texts_of({"one": apart, "again": apart}), 4000, rng)
    mean = np.mean([once.replicates(4000, rng) + more[task] for task in known], axis=0)

    # Of two tasks of other pairs the variance is half as large.
    assert mean.var(axis=1) == pytest.approx(once.replicates(4000, rng).var(axis=1), rel=0.1)
    assert together(known, texts_of({"one": apart, "again": apart + 600}), 50, rng)["one"].std() < 1e-6


def test_intervals_hold_where_pairs_share_sentences() -> None:
    """A mean over pairs of 60 sentences, each of which makes all of its pairs better or worse: by independent pairs the
    error is far too small."""
    rng = np.random.default_rng(5)
    first, second = np.triu_indices(60, 1)
    chosen = rng.permutation(len(first))[:300]
    places = np.stack([first[chosen], second[chosen]], axis=1)
    hits = {"apart": 0, "together": 0}
    studies = 300
    for _ in range(studies):
        of_text = rng.normal(size=60)
        values = of_text[places].sum(axis=1) + rng.normal(size=300)
        examples = TaskExamples(values[None], None)
        apart = examples.replicates(200, rng)
        more = together({"one": named(examples)}, texts_of({"one": places}), 200, rng)["one"]
        hits["apart"] += abs(values.mean()) < 1.96 * apart.std()
        hits["together"] += abs(values.mean()) < 1.96 * (apart + more).std()

    assert hits["apart"] / studies < 0.75
    assert hits["together"] / studies > 0.88


def test_many_runs_keep_the_directions_that_vary_most(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    examples = graded(rng, 30, 200)
    places = texts_of({"one": rng.integers(0, 40, size=(200, 2))})
    whole = together({"one": named(examples)}, places, 3000, np.random.default_rng(7))["one"].std(axis=1)

    monkeypatch.setattr("distilbench.analysis.shared_texts.WHOLE", 10)
    monkeypatch.setattr("distilbench.analysis.shared_texts.KEPT", 20)
    sketched = together({"one": named(examples)}, places, 3000, np.random.default_rng(7))["one"].std(axis=1)

    assert (sketched / whole).mean() == pytest.approx(1, abs=0.2)


def test_overlap_is_counted_by_example() -> None:
    texts = texts_of({"one": np.array([[1, 2], [3, 4], [5, 6]]), "other": np.array([[2, 1], [3, 9]])})

    assert overlap(texts) == Overlap(examples=5, repeated=2, sharing=4)


def test_other_tasks_keep_their_texts_and_damaged_files_are_refused(tmp_path: Path) -> None:
    one, other = texts_of({"one": np.array([[1, 2]])}), texts_of({"other": np.array([[3, 4], [5, 6]])})
    write_example_texts(tmp_path, one)
    write_example_texts(tmp_path, other)
    write_example_texts(tmp_path, one.assign(first=7))

    found = read_example_texts(tmp_path)
    assert list(found.columns) == COLUMNS
    assert dict(zip(found["task"], found["first"], strict=True)) == {"one": 7, "other": 5}

    damages: list[Callable[[Path], object]] = [
        lambda path: path.write_bytes(b"PAR1"),
        lambda path: found.drop(columns="first").to_parquet(path),
        lambda path: found.assign(first=8).to_parquet(path),
    ]
    for damage in damages:
        damage(tmp_path / TEXTS_FILE)
        with pytest.raises(UserError, match="delete it and run its study again"):
            read_example_texts(tmp_path)
