"""Averages are those that mteb's own summary of the same results has."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("mteb")

import mteb
from mteb.results import ModelResult, TaskResult

from distilbench.analysis.frame import BY_TYPE, OVERALL, groups

BENCHMARK = "MTEB(eng, v2)"


def results() -> tuple[dict[str, float], dict[str, str], ModelResult]:
    """A score for each of its tasks, and mteb's results with these."""
    rng, scores, types, found = np.random.default_rng(0), {}, {}, []
    for task in mteb.get_benchmark(BENCHMARK).tasks:
        name = task.metadata.name
        types[name] = task.metadata.type
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


def averages(scores: dict[str, float], types: dict[str, str]) -> dict[str, float]:
    weights = groups(pd.DataFrame({"type": types}))
    return {name: sum(share * scores[task] for task, share in of.items()) for name, of in weights.items()}


def test_averages_are_those_of_mteb() -> None:
    scores, types, model = results()
    expected: dict[str, float | None] = {}
    for aggregation in mteb.get_benchmark(BENCHMARK).aggregations:
        expected |= aggregation.aggregate(model.task_results)
    found = averages(scores, types)
    assert found[OVERALL] == pytest.approx(expected["Mean(Task)"], abs=1e-9)
    assert found[BY_TYPE] == pytest.approx(expected["Mean(TaskType)"], abs=1e-9)
    assert abs(found[OVERALL] - found[BY_TYPE]) > 1e-3
    assert len(found) == 2 + 7
    for kind in set(types.values()):
        assert found[kind] == pytest.approx(expected[kind], abs=1e-9)


def test_one_type_has_one_mean() -> None:
    assert set(groups(pd.DataFrame({"type": {"a": "STS", "b": "STS"}}))) == {"STS", OVERALL}
