"""Hand-made studies on disk: small enough to check every number by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from distilbench.core.sealed import write_sealed
from distilbench.records.record import CURVE_FILE, RECORD_FILE, Record, dump_json, to_dict

TYPES = {"STS-A": "STS", "STS-B": "STS", "Search": "Retrieval"}
METRICS = {"STS": "cosine_spearman", "Retrieval": "ndcg_at_10"}
SECONDS = {"setup": 1.0, "data": 2.0, "teacher": 3.0, "train": 40.0, "evaluation": 5.0}

Make = Callable[..., Record]
Write = Callable[..., Path]


def make_facts(task: str, kind: str) -> dict[str, Any]:
    """What a record states of a task that it has scores of."""
    data = {"data_sha256": f"data-{task}", "examples": 100, "precision": "fp32"}
    return {"type": kind, "main_metric": METRICS[kind], **data}


def make_record(
    label: str, seed: int, scores: tuple[float, ...] | None, role: str = "method", **changes: Any
) -> Record:
    """A record with the main scores of STS-A, STS-B and Search in this order; None for a run without scores."""
    names = list(TYPES)[: len(scores or ())]
    ledger: dict[str, Any] = {
        "steps": 100,
        "sentences": 12800,
        "tokens": 256000,
        "epochs": 1.0,
        "student_passes": 12800,
        "tuning_trials": 0,
    }
    ledger |= {"student_flops": 4e12, "peak_memory_bytes": 2**28, "state_bytes": 0, "seconds": SECONDS}
    values: dict[str, Any] = {
        "run_id": f"{label}-{seed}",
        "study": "demo",
        "role": role,
        "label": label,
        "method": label,
        "hyperparameters": {"temperature": 0.05} if role == "method" else {},
        "status": "completed",
        "seed": seed,
        "teacher": {"name": "teacher-l6", "layers": 6, "width": 384, "heads": 12, "output_width": 384}
        | {"parameters": 22713216, "sha256": "a" * 64},
        "student": {
            "layers": 2,
            "width": 192,
            "heads": 3,
            "output_width": 192,
            "parameters": 7000000,
            "pooling": "mean",
        },
        "text": {"source": "embedded", "sentences": 12800, "sha256": "b" * 64},
        "train": {"batch_size": 128, "learning_rate": 5e-4, "warmup": 0.1, "max_length": 64, "precision": "float32"}
        | {"batch_tokens": None, "signals": "float32", "checkpoint": "last"},
        "budget": {"currency": "sentences", "amount": 12800},
        "ledger": ledger
        if role == "method"
        else {"steps": 0, "sentences": 0, "student_flops": 0, "seconds": {}} | {"tuning_trials": 0},
        "tasks": {n: make_facts(n, TYPES[n]) for n in names},
        "scores": {n: {"main_score": score} for n, score in zip(names, scores or (), strict=True)},
        "identity": {"weights": f"{label}{seed}"},
        "environment": {"python": "3.11", "torch": "2.11", "transformers": "5.0", "mteb": "2.20"}
        | {"platform": "Linux", "cpu": "a CPU", "threads": 2, "device": "cpu"},
    }
    return Record(**(values | changes))


@pytest.fixture
def plain() -> list[Record]:
    """A ceiling, a floor of two seeds, and two methods of two seeds."""
    return [
        make_record("ceiling", 0, (0.8, 0.9, 0.7), "ceiling"),
        make_record("mse", 1, (0.6, 0.7, 0.5)),
        make_record("mse", 2, (0.7, 0.7, 0.4)),
        make_record("simcse", 1, (0.5, 0.6, 0.3)),
        make_record("simcse", 2, (0.5, 0.5, 0.3)),
        make_record("floor", 1, (0.2, 0.3, 0.1), "floor"),
        make_record("floor", 2, (0.3, 0.3, 0.0), "floor"),
    ]


def write_study(folder: Path, records: list[Record], curves: bool = True) -> Path:
    """Write the records, and a curve of 40 steps for every trained one, as a run leaves them."""
    rng = np.random.default_rng(0)
    for record in records:
        loss = np.exp(-np.arange(40) / 10) + 0.05 * rng.random(40)
        curve = pd.DataFrame({"step": range(1, 41), "sentences": np.arange(1, 41) * 320, "loss": loss})

        def leave(run: Path, record: Record = record, curve: pd.DataFrame = curve) -> None:
            dump_json(to_dict(record), run / RECORD_FILE)
            if curves and record.role == "method":
                curve.assign(term_match=curve["loss"] * 0.7, term_spread=curve["loss"] * 0.3).to_parquet(
                    run / CURVE_FILE
                )

        write_sealed(folder / record.run_id, leave)
    return folder


@pytest.fixture
def make() -> Make:
    return make_record


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def in_results(records: list[Record], name: str = "demo", curves: bool = True) -> Path:
        return write_study(tmp_path / "results" / name, records, curves)

    return in_results


@pytest.fixture(scope="session")
def nasty_study() -> Callable[[Path], Path]:
    """Writes a study with a label that every format must escape, and a run that diverged."""

    def write(folder: Path) -> Path:
        label = "<script>alert('a_b&c $x')</script>"
        nasty = [make_record(label, seed, (0.4, 0.5, 0.3 + seed / 10), run_id=f"nasty-{seed}") for seed in (1, 2)]
        diverged = make_record("mse", 2, None, status="diverged", error="loss is not <finite>")
        floor = make_record("floor", 1, (0.2, 0.3, 0.1), "floor")
        ceiling = make_record("ceiling", 0, (0.8, 0.9, 0.7), "ceiling")
        return write_study(folder, [ceiling, *nasty, make_record("mse", 1, (0.6, 0.7, 0.5)), diverged, floor])

    return write
