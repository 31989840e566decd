"""Averages are those that mteb's own summary of the same results has."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("mteb")

import mteb
from mteb.results import ModelResult, TaskResult

from distilbench.records.leaderboard import mean_over_tasks, mean_over_types, type_means

BENCHMARK = "MTEB(eng, v2)"


def results(missing: str | None = None) -> tuple[dict[str, float], dict[str, str], ModelResult]:
    """A score for each of its tasks, and mteb's results with these."""
    rng, scores, types, found = np.random.default_rng(0), {}, {}, []
    for task in mteb.get_benchmark(BENCHMARK).tasks:
        name = task.metadata.name
        types[name] = task.metadata.type
        if name == missing:
            continue
        scores[name] = float(rng.random())
        scripts = task.metadata.hf_subsets_to_langscripts
        rows = [
            {"main_score": scores[name], "hf_subset": subset, "languages": scripts[subset]}
            for subset in task.hf_subsets
        ]
        found.append(
            TaskResult.from_task_results(
                task, {split: {row["hf_subset"]: row for row in rows} for split in task.eval_splits}, 1.0, None, None
            )
        )
    return scores, types, ModelResult(model_name="a/b", model_revision="c", task_results=found)


def test_averages_are_those_of_mteb() -> None:
    scores, types, model = results()

    expected: dict[str, float | None] = {}
    for aggregation in mteb.get_benchmark(BENCHMARK).aggregations:
        expected |= aggregation.aggregate(model.task_results)

    assert mean_over_tasks(scores, types) == pytest.approx(expected["Mean(Task)"], abs=1e-9)
    assert mean_over_types(scores, types) == pytest.approx(expected["Mean(TaskType)"], abs=1e-9)
    assert abs(mean_over_tasks(scores, types) - mean_over_types(scores, types)) > 1e-3
    by_type = type_means(scores, types)
    assert len(by_type) == 7
    for kind, value in by_type.items():
        assert value == pytest.approx(expected[kind], abs=1e-9)


def test_a_missing_task_leaves_no_average() -> None:
    scores, types, _ = results(missing="BIOSSES")

    assert math.isnan(mean_over_tasks(scores, types)) and math.isnan(mean_over_types(scores, types))
    assert math.isnan(type_means(scores, types)["STS"]) and not math.isnan(type_means(scores, types)["Retrieval"])


def test_resamples_are_averaged_each() -> None:
    scores = {"a": np.array([0.1, 0.3]), "b": np.array([0.3, 0.5]), "c": np.array([1.0, 0.0])}
    types = {"a": "STS", "b": "STS", "c": "Retrieval"}

    assert mean_over_tasks(scores, types) == pytest.approx([1.4 / 3, 0.8 / 3])
    assert mean_over_types(scores, types) == pytest.approx([0.6, 0.2])
