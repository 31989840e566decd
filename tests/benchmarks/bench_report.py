"""What a report costs at the size of a large study: 12 methods x 5 seeds, seven STS tasks and two of retrieval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from distilbench.analysis.bootstrap import TaskExamples
from distilbench.analysis.examples import replicates
from distilbench.core.sealed import write_sealed
from distilbench.records.record import EXAMPLES_FILE, RECORD_FILE, dump_json, to_dict
from distilbench.reporting import build
from tests.reporting.conftest import make_facts, make_record

METHODS, SEEDS = 12, 5
PAIRS = {
    "STS12": 3108,
    "STS13": 1500,
    "STS14": 3750,
    "STS15": 3000,
    "STS16": 1186,
    "STSBenchmark": 1379,
    "SICK-R": 9927,
}
QUERIES = {"NFCorpus": 323, "SciFact": 300}


def examples(runs: int) -> dict[str, list[TaskExamples]]:
    """Made-up similarities and nDCG values of some runs, as many as the real tasks have."""
    rng = np.random.default_rng(0)
    found = {}
    for task, count in PAIRS.items():
        gold = np.round(rng.uniform(0, 5, count), 1)
        found[task] = [TaskExamples(gold / 5 + rng.normal(size=(runs, count)), gold)]
    for task, count in QUERIES.items():
        found[task] = [TaskExamples(np.clip(rng.normal(0.3, 0.3, size=(runs, count)), 0, 1), None)]
    return found


def bench_ten_thousand_resamples(benchmark: Any) -> None:
    drawn = benchmark.pedantic(
        replicates, args=(examples(METHODS * SEEDS), 10_000, np.random.default_rng(0)), rounds=1, iterations=1
    )
    assert {task: values.shape for task, values in drawn.items()} == dict.fromkeys(
        [*PAIRS, *QUERIES], (METHODS * SEEDS, 10_000)
    )


@pytest.fixture(scope="module")
def large_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, made = tmp_path_factory.mktemp("results") / "large", examples(METHODS * SEEDS)
    scores = {task: splits[0].metric() for task, splits in made.items()}
    for row in range(METHODS * SEEDS):
        record = make_record(f"method-{row % METHODS}", 1 + row // METHODS, None)
        tasks = {task: make_facts(task, "STS" if task in PAIRS else "Retrieval") for task in made}
        values = to_dict(record) | {
            "tasks": tasks,
            "scores": {task: {"main_score": float(scores[task][row])} for task in made},
        }
        frames = []
        for task, (part,) in made.items():
            column = "ndcg_at_10" if part.gold_N is None else "similarity"
            numbers = map(str, range(part.values_RN.shape[1]))
            frame = pd.DataFrame({"task": task, "split": "test", "example": numbers})
            frames.append(frame.assign(gold=part.gold_N, slices="", **{column: part.values_RN[row]}))

        def leave(path: Path, values: dict[str, Any] = values, frames: list[pd.DataFrame] = frames) -> None:
            dump_json(values, path / RECORD_FILE)
            pd.concat(frames).to_parquet(path / EXAMPLES_FILE, index=False)

        write_sealed(folder / record.run_id, leave)
    return folder


def bench_report_of_sixty_runs(benchmark: Any, large_study: Path, tmp_path: Path) -> None:
    [page] = benchmark.pedantic(build, args=(large_study, tmp_path), rounds=1, iterations=1)
    assert page.is_file()
