"""Studies of odd shapes: every one has a report, in all formats, and no error."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

import distilbench as db
from distilbench.core.sealed import write_sealed
from distilbench.records.record import EXAMPLES_FILE, RECORD_FILE, Record, dump_json, to_dict
from distilbench.reporting import ReportOptions, build
from tests.reporting.conftest import make_record
from tests.reporting.test_verdicts import examples, record_of

Runs = list[tuple[Record, pd.DataFrame | None]]
LONG = "a-method-with-a-name-that-says-all-of-its-hyperparameters-" * 3
NAMES = ["知识蒸馏之方法", "Дистилляция", "تقطير", "📉 emoji", LONG, LONG + "2"]


def run(
    label: str, seed: int, role: str = "method", without: tuple[str, ...] = ()
) -> tuple[Record, pd.DataFrame | None]:
    found = examples(0.5 + 0.01 * (len(label) % 7), seed, 0.01)
    record = record_of(make_record, label, seed, found, role)
    kept = {task: facts for task, facts in record.tasks.items() if task not in without}
    record = replace(
        record,
        run_id=hashlib.sha256(f"{label} {seed} {role}".encode()).hexdigest()[:16],
        tasks=kept,
        scores={task: record.scores[task] for task in kept},
    )
    return record, found[~found["task"].isin(without)]


def without_scores(label: str, seed: int, status: Literal["diverged", "failed"]) -> tuple[Record, pd.DataFrame | None]:
    record, _ = run(label, seed)
    return replace(record, status=status, scores={}, tasks={}, error="it went wrong"), None


def ends(seeds: int = 2) -> Runs:
    return [run("teacher", 0, "ceiling"), *(run("untrained", seed, "floor") for seed in range(1, seeds + 1))]


SHAPES: dict[str, Callable[[], Runs]] = {
    "thirty methods": lambda: [run(f"method-{number}", seed) for number in range(30) for seed in (1, 2, 3)] + ends(3),
    "one method and one seed": lambda: [run("mse", 1)],
    "one completed run among failed ones": lambda: [
        run("mse", 1),
        without_scores("mse", 2, "failed"),
        without_scores("codir", 1, "diverged"),
        without_scores("codir", 2, "diverged"),
    ],
    "one task": lambda: [
        run(label, seed, without=("STS-B", "Search")) for label in ("mse", "codir", "ckd") for seed in (1, 2, 3)
    ],
    "one type of tasks": lambda: [
        run(label, seed, without=("Search",)) for label in ("mse", "codir") for seed in (1, 2)
    ],
    "a task that some rows have": lambda: [
        *(run("mse", seed) for seed in (1, 2, 3)),
        *(run("codir", seed, without=("Search",)) for seed in (1, 2, 3)),
        *(run("ckd", seed, without=("STS-A",)) for seed in (1, 2, 3)),
        *ends(3),
    ],
    "no task that two rows share": lambda: [
        *(run("mse", seed, without=("Search", "STS-B")) for seed in (1, 2)),
        *(run("codir", seed, without=("STS-A",)) for seed in (1, 2)),
    ],
    "names of other scripts and long ones": lambda: [run(name, seed) for name in NAMES for seed in (1, 2)] + ends(),
    "the teacher alone": lambda: [run("teacher", 0, "ceiling")],
    "the student before training alone": lambda: [run("untrained", seed, "floor") for seed in (1, 2)],
    "no methods": lambda: ends(),
    "all diverged": lambda: [without_scores("mse", seed, "diverged") for seed in (1, 2)],
    "no common seed": lambda: [run("mse", 1), run("mse", 2), run("codir", 3), run("codir", 4)],
    "a single seed in one row": lambda: [run("mse", 1), *(run("codir", seed) for seed in (1, 2, 3))],
    "all rows alike": lambda: [
        (replace(record, run_id=f"{label}-{seed}", label=label), found)
        for label in ("mse", "codir", "ckd")
        for seed in (1, 2, 3)
        for record, found in [run("x", seed)]
    ],
}


@pytest.fixture(params=SHAPES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for record, found in SHAPES[request.param]():

        def leave(path: Path, record: Record = record, found: pd.DataFrame | None = found) -> None:
            dump_json(to_dict(record), path / RECORD_FILE)
            if found is not None:
                found.to_parquet(path / EXAMPLES_FILE, index=False)

        write_sealed(tmp_path / "demo" / record.run_id, leave)
    return tmp_path / "demo"


RENDERED = [
    *("one completed run among failed ones", "names of other scripts and long ones", "the teacher alone"),
    *("no common seed", "all diverged"),
]


@pytest.mark.figures
@pytest.mark.parametrize(
    "folder",
    [name if name in RENDERED else pytest.param(name, marks=pytest.mark.thorough) for name in SHAPES],
    indirect=True,
)
def test_the_figures_of_every_shape_are_rendered(folder: Path) -> None:
    [page] = build(folder, folder.parent / "out", ReportOptions())
    for figure in (page.parent / "figures").glob("*.svg"):
        assert figure.stat().st_size > 1000


def test_every_shape_has_a_report(folder: Path) -> None:
    [page] = build(folder, folder.parent / "out", ReportOptions())
    text = page.read_text(encoding="utf-8")
    for name in ("main", "tasks"):
        assert (page.parent / "tables" / f"{name}.md").is_file()
    assert "nan" not in (page.parent / "tables" / "main.md").read_text(encoding="utf-8").lower().split()
    assert text.count("<table") >= 2


def test_every_shape_compares_or_says_why_not(folder: Path) -> None:
    results = db.read_results(folder)
    try:
        found = results.compare()
    except db.UserError as error:
        assert "nothing to compare" in str(error) or "column" in str(error)
        return
    assert set(found["verdict"]) <= {"better", "worse", "equivalent", "undecided"}
    decided = found[found["verdict"] != "undecided"]
    outside = (decided["low"] > 0) | (decided["high"] < 0)
    inside = (decided["low"].abs() < 0.5) & (decided["high"].abs() < 0.5)
    assert np.where(decided["verdict"] == "equivalent", inside, outside).all()
