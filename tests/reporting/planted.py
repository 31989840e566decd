"""Synthetic ablations whose effects are known: seeds, examples and both vary, as in real studies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from distilbench.analysis import stats
from distilbench.analysis.bootstrap import Array, TaskExamples
from distilbench.analysis.frame import make_study
from distilbench.analysis.inference import Inference
from distilbench.core.sealed import write_sealed
from distilbench.records.design import Ablation, AblationRow, write_ablations
from distilbench.records.record import EXAMPLES_FILE, RECORD_FILE, Record, dump_json, to_dict
from tests.reporting.conftest import make_record

PAIRS, QUERIES = 200, 100
TASKS = ("STS-A", "Search")
Quality = Callable[[Mapping[str, str]], float]


def deviate(item: stats.Estimate) -> float:
    """How far an estimate is from 0, on the scale of a standard normal deviate, with its sign."""
    known = (item.mean, item.seed_variance, item.freedom, item.example_variance)
    return math.copysign(float(stats.normal_deviate(*map(np.array, known))), item.mean)


def factorial(**factors: list[str]) -> Ablation:
    """A factorial ablation of some factors, first levels for reference."""
    cells = [
        AblationRow("+".join(chosen), dict(zip(factors, chosen, strict=True))) for chosen in product(*factors.values())
    ]
    return Ablation("planted", "factorial", factors, cells, {name: [] for name in factors})


@dataclass(frozen=True)
class Simulated:
    """A study of an ablation's cells."""

    records: list[Record]
    examples: dict[str, TaskExamples]
    """Task -> values of all runs, in the order of the records."""

    def inference(self, resamples: int, rng: np.random.Generator, margin: float = 0.005) -> Inference:
        """What the report would make of it."""
        study = make_study("planted", self.records, margin)
        replicates = {task: part.replicates(resamples, rng) for task, part in self.examples.items()}
        return Inference(study, study.scores[list(TASKS)], replicates)

    def write(self, folder: Path, ablation: Ablation) -> None:
        """Leave it on disk as a study does."""
        for row, record in enumerate(self.records):
            frames = []
            for task, part in self.examples.items():
                frame = pd.DataFrame(
                    {"task": task, "split": "test", "example": map(str, range(part.values_RN.shape[1]))}
                )
                name = "ndcg_at_10" if part.gold_N is None else "similarity"
                frames.append(frame.assign(gold=part.gold_N, **{name: part.values_RN[row]}))

            def leave(path: Path, record: Record = record, frames: list[pd.DataFrame] = frames) -> None:
                dump_json(to_dict(record), path / RECORD_FILE)
                pd.concat(frames).to_parquet(path / EXAMPLES_FILE, index=False)

            write_sealed(folder / record.run_id, leave)
        write_ablations(folder, [ablation])


def simulate(
    ablation: Ablation, quality: Quality, seeds: int, rng: np.random.Generator, spread: float = 0.01
) -> Simulated:
    """An STS and a retrieval task; a run is as good as the `quality` in [0, 1] of its cell's levels, and its own luck.

    Luck has the standard deviation `spread`; half of its variance is shared by the cells of a seed. Hard examples are
    hard for all, and each run errs on each example in its own way too.
    """
    levels = {cell.label: {**ablation.cells[0].levels, **cell.levels} for cell in ablation.cells}
    runs = [(label, seed) for seed in range(1, seeds + 1) for label in levels]
    shared_S, own_R = rng.normal(size=seeds), rng.normal(size=len(runs))
    luck_R = spread * (shared_S.repeat(len(levels)) + own_R) / np.sqrt(2)
    level_R1 = np.array([[quality(levels[label])] for label, _ in runs]) + luck_R[:, None]
    examples = {"STS-A": _pairs(level_R1, rng), "Search": _queries(level_R1, rng)}
    scores = {task: part.metric() for task, part in examples.items()}
    records = [
        _record(label, seed, {task: scores[task][row] for task in TASKS}) for row, (label, seed) in enumerate(runs)
    ]
    return Simulated(records, examples)


def _pairs(level_R1: Array, rng: np.random.Generator) -> TaskExamples:
    hard_N, gold_N = rng.normal(size=PAIRS), np.round(rng.uniform(0, 5, PAIRS), 1)
    noise_RN = (1 - level_R1) * (hard_N + 0.3 * rng.normal(size=(len(level_R1), PAIRS)))
    return TaskExamples(gold_N / 5 + noise_RN, gold_N)


def _queries(level_R1: Array, rng: np.random.Generator) -> TaskExamples:
    ease_N = rng.uniform(size=QUERIES)
    values_RN = level_R1 * (0.5 + ease_N) + 0.05 * rng.normal(size=(len(level_R1), QUERIES))
    return TaskExamples(np.clip(values_RN, 0, 1), None)


def _record(label: str, seed: int, scores: dict[str, float]) -> Record:
    made = make_record(label, seed, (0.0, 0.0, 0.0))
    return replace(
        made,
        tasks={task: made.tasks[task] for task in scores},
        scores={task: {"main_score": float(score)} for task, score in scores.items()},
    )
