"""What a study's rows were made for, in files beside its records: ablations, the trials of its tuning, benchmarks.

Written before the runs, read by reports; imports neither torch nor the methods.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from distilbench.core.bounds import is_there
from distilbench.core.errors import UserError
from distilbench.core.stored_json import SUM, Stored, check_shape, check_sum, read_object, write_summed
from distilbench.records.schema import AblationsShape, BenchmarksShape, TuningShape

SCHEMA = 1
TUNED = "-tuned"
"""Ends the label of the row with the settings that were chosen for the row whose label it follows."""
ABLATIONS_FILE, TUNING_FILE, BENCHMARKS_FILE = "ablations.json", "tuning.json", "benchmarks.json"


@dataclass(frozen=True)
class AblationRow:
    """One row of an ablation."""

    label: str
    """The row's label in the study."""
    levels: dict[str, str]
    """Factor -> name of the level that this cell has."""


@dataclass(frozen=True)
class Ablation:
    """Which rows are compared, and what for."""

    name: str
    design: str
    """leave-one-out, one-at-a-time or factorial."""
    factors: dict[str, list[str]]
    """Factor -> names of its levels; the first is the one that the others are compared with."""
    cells: list[AblationRow]
    apart: dict[str, list[str]]
    """Factor -> settings of the study that it changes, such as student.layers: its cells differ in them on purpose."""


@dataclass(frozen=True)
class Trial:
    """One setting that was tried for a method."""

    hyperparameters: dict[str, Any]
    """What the search space gave; the method's other hyperparameters are its own."""
    runs: list[str]
    """The run of each tuning seed."""
    score: float | None
    """Mean dev score over the tuning seeds; None where a training diverged or failed."""
    flops: float
    """What its trainings spent, teacher passes online included."""
    error: str | None = None


@dataclass(frozen=True)
class Tuned:
    """The trials of one row, in their order."""

    label: str
    """The row at the method's own settings."""
    tuned: str
    """The row at the settings that were chosen."""
    space: dict[str, Any]
    """Hyperparameter -> what could be chosen."""
    trials: list[Trial] = field(default_factory=list)

    @property
    def chosen(self) -> Trial | None:
        """The first of the trials with the best score, if any has one."""
        scored = [trial for trial in self.trials if trial.score is not None]
        return max(scored, key=lambda trial: trial.score or 0.0) if scored else None


@dataclass(frozen=True)
class Tuning:
    """How the methods of a study were tuned."""

    trials: int
    """For each method."""
    sampler: str
    seeds: list[int]
    dev: str
    """Where the pairs come from that settings were chosen by."""
    optuna: str
    methods: list[Tuned]


@dataclass(frozen=True)
class Benchmark:
    """One of mteb's benchmarks that a study names among its tasks."""

    name: str
    tasks: list[str]
    """Those that distilbench scores, as records name them."""
    left_out: dict[str, str]
    """Those that it does not -> why: their type."""

    @property
    def size(self) -> int:
        """Its tasks in all."""
        return len(self.tasks) + len(self.left_out)


@dataclass(frozen=True)
class Design:
    """All that a study's folder says of its design."""

    ablations: list[Ablation] = field(default_factory=list)
    tuning: Tuning | None = None
    benchmarks: list[Benchmark] = field(default_factory=list)


def write_ablations(folder: Path, ablations: list[Ablation]) -> None:
    """Write what a study asks for beside its records."""
    _write(folder / ABLATIONS_FILE, {"ablations": [asdict(item) for item in ablations]})


def write_tuning(folder: Path, tuning: Tuning) -> None:
    """Write the trials so far beside a study's records."""
    _write(folder / TUNING_FILE, asdict(tuning))


def write_benchmarks(folder: Path, benchmarks: list[Benchmark]) -> None:
    """Write what a study's tasks are of, beside its records and what was written there before."""
    known = {item.name: item for item in [*read_design(folder).benchmarks, *benchmarks]}
    _write(folder / BENCHMARKS_FILE, {"benchmarks": [asdict(item) for item in known.values()]})


def read_design(folder: Path) -> Design:
    """What the files in a study's folder say; nothing where there are none.

    Raises `UserError` for damaged ones, and for those that were changed after they were written.
    """
    ablations = _read(folder / ABLATIONS_FILE, AblationsShape)
    tuning = _read(folder / TUNING_FILE, TuningShape)
    benchmarks = _read(folder / BENCHMARKS_FILE, BenchmarksShape)
    return Design(
        [_ablation(item) for item in ablations.get("ablations", [])],
        _tuning(tuning) if tuning else None,
        [Benchmark(**item) for item in benchmarks.get("benchmarks", [])],
    )


def _write(path: Path, content: dict[str, Any]) -> None:
    write_summed(path, {"schema": SCHEMA, **content})


def _read(path: Path, shape: type[Stored]) -> dict[str, Any]:
    try:
        if not is_there(path):
            return {}
        content = read_object(path)
        if content.get("schema") != SCHEMA:
            raise ValueError(f"it is not of schema {SCHEMA}")
        check_sum(content)
        check_shape(shape, content)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; run its study again, which writes it anew") from None
    return {name: value for name, value in content.items() if name not in ("schema", SUM)}


def _ablation(values: dict[str, Any]) -> Ablation:
    return Ablation(**{**values, "cells": [AblationRow(**cell) for cell in values["cells"]]})


def _tuning(values: dict[str, Any]) -> Tuning:
    methods = [Tuned(**{**item, "trials": [Trial(**trial) for trial in item["trials"]]}) for item in values["methods"]]
    return Tuning(**{**values, "methods": methods})
