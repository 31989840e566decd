"""The record of a run: what it holds, how it is written, and whether one that is there leaves nothing to do."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from distilbench.core.errors import UserError
from distilbench.core.hashes import key_of
from distilbench.core.machine import environment
from distilbench.core.sealed import is_sound, undisturbed, write_sealed
from distilbench.records.record import (
    CURVE_FILE,
    EXAMPLES_FILE,
    JUDGED_FILE,
    LISTS,
    MTEB_FOLDER,
    RANKED_FILE,
    RECORD_FILE,
    Record,
    dump_json,
    read_record,
    to_dict,
)
from distilbench.records.schema import Status
from distilbench.runs.prepare.prepared import PreparedRun
from distilbench.study.budget import Ledger


@dataclass(frozen=True)
class RecordedTask:
    """One task's scores as a record keeps them."""

    name: str
    facts: dict[str, Any]
    metrics: dict[str, float]
    examples: pd.DataFrame
    ranked: pd.DataFrame
    judged: pd.DataFrame
    mteb_result: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: all that its record holds and that was not known before."""

    status: Status
    ledger: Ledger
    curve: pd.DataFrame = field(default_factory=pd.DataFrame)
    tasks: Sequence[RecordedTask] = ()
    identity: Mapping[str, str] = field(default_factory=dict)
    response: Sequence[Mapping[str, Any]] = ()
    vectors: Mapping[str, Any] = field(default_factory=dict)
    speed: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None


def known_record(run: PreparedRun) -> Record | None:
    """A run's record, if nothing is left to do: diverged, or completed with every task's present data scored."""
    record = sound_record(run.record_folder)
    if record is None or record.status == "failed" or record.label != run.cell.entry.label:
        return None
    scored = {(name, facts["data_sha256"], facts["precision"]) for name, facts in record.tasks.items()}
    precision = run.inputs.study.evaluation.precision
    wanted = {(task.name, task.data_sha256, precision) for task in run.inputs.tasks()}
    complete = _of_this_mteb(record) and wanted <= scored
    return record if complete or record.status == "diverged" else None


def sound_record(folder: Path) -> Record | None:
    """The record in a folder; None where there is none, or where it is damaged and has to be made again."""
    if not is_sound(folder, "the record", may_lack=LISTS, line_ends=True):
        return None
    record = undisturbed(folder, lambda: read_record(folder / RECORD_FILE))
    # A folder that was moved to another's place is whole, and still not what its name says.
    return record if record.run_id == folder.name else None


def write_record(run: PreparedRun, outcome: Outcome) -> Record:
    """The record of a run that ended, put in its place. A failure never takes the place of a record with results."""
    record = _record(run, outcome)
    if outcome.status != "failed" or not _holds_results(run.record_folder):
        write_sealed(run.record_folder, lambda path: _write(path, record, outcome))
    return record


def write_failure(run: PreparedRun, ledger: Ledger, error: Exception) -> Record:
    """The record of a run that an error ended; errors of our own are printed."""
    if not isinstance(error, UserError):
        traceback.print_exc()
    return write_record(run, Outcome("failed", ledger, error=f"{type(error).__name__}: {error}"))


def kept_tasks(folder: Path, weights: str, again: set[str]) -> list[RecordedTask]:
    """What the present record holds of other tasks than `again`, if it is of the same weights and mteb."""
    record = sound_record(folder)
    if record is None or not record.tasks or record.identity.get("weights") != weights or not _of_this_mteb(record):
        return []
    frames = {Path(name).stem: _stored(folder / name) for name in (EXAMPLES_FILE, RANKED_FILE, JUDGED_FILE)}
    return [
        RecordedTask(
            name=name,
            facts=facts,
            metrics=record.scores[name],
            **{stem: frame[frame["task"] == name] for stem, frame in frames.items()},
            mteb_result=json.loads((folder / MTEB_FOLDER / f"{name}.json").read_text(encoding="utf-8")),
        )
        for name, facts in record.tasks.items()
        if name not in again
    ]


def _holds_results(folder: Path) -> bool:
    record = sound_record(folder)
    return record is not None and record.status != "failed"


def _of_this_mteb(record: Record) -> bool:
    return bool(record.environment.get("mteb") == version("mteb"))


def _stored(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.is_file() else pd.DataFrame(columns=["task"])


def _record(run: PreparedRun, outcome: Outcome) -> Record:
    inputs, cell = run.inputs, run.cell
    students, corpus = inputs.students, inputs.text.corpus
    return Record(
        run_id=run.id,
        study=inputs.name,
        role=cell.role,
        label=cell.entry.label,
        method=cell.entry.name,
        hyperparameters=cell.entry.hyperparameters,
        status=outcome.status,
        seed=cell.seed,
        teacher=inputs.teacher.facts(),
        student=students.static_facts() if cell.role == "reference" else students.facts(),
        text={"source": corpus.source, "sentences": len(corpus), "sha256": corpus.sha256},
        train=inputs.study.train.model_dump(),
        budget=asdict(inputs.budget),
        ledger=asdict(outcome.ledger),
        tasks={task.name: task.facts for task in outcome.tasks},
        scores={task.name: task.metrics for task in outcome.tasks},
        identity={name: key_of(value=value) for name, value in run.identity.items()} | dict(outcome.identity),
        response=[dict(row) for row in outcome.response],
        contamination=_contamination(run),
        environment=environment(inputs.settings.device),
        error=outcome.error,
        limit=inputs.study.limit,
        vectors=dict(outcome.vectors),
        speed=dict(outcome.speed),
    )


def _contamination(run: PreparedRun) -> dict[str, Any]:
    contamination, labelled = run.inputs.text.contamination, run.inputs.labelled
    if run.cell.role != "method" or contamination is None:
        return {}
    reads_rows = labelled is not None and "labelled" in run.identity
    return {**contamination.as_dict(), "pairs_seen": labelled.pairs_seen if labelled and reads_rows else {}}


def _write(folder: Path, record: Record, outcome: Outcome) -> None:
    dump_json(to_dict(record), folder / RECORD_FILE)
    if len(outcome.curve):
        outcome.curve.to_parquet(folder / CURVE_FILE, index=False)
    if not outcome.tasks:
        return
    for name in (EXAMPLES_FILE, RANKED_FILE, JUDGED_FILE):
        frames = [frame for task in outcome.tasks if len(frame := getattr(task, Path(name).stem))]
        if frames:
            together = pd.concat(frames, ignore_index=True)
            together.to_parquet(folder / name, index=False, compression="zstd")
    (folder / MTEB_FOLDER).mkdir()
    for task in outcome.tasks:
        dump_json(task.mteb_result, folder / MTEB_FOLDER / f"{task.name}.json")
