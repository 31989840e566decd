"""Running a study: each run trains, is exported, scored and recorded, or is found complete and left alone."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from bench.budget import Ledger, peak_memory_bytes, reset_peak_memory
from bench.encoder import Encoder, StoredModel, num_parameters
from bench.errors import UserError
from bench.export import export, model_card
from bench.identity import key_of
from bench.record import (
    CURVE_FILE,
    EXAMPLES_FILE,
    MTEB_FOLDER,
    RECORD_FILE,
    Record,
    Status,
    dump_json,
    read_record,
    to_dict,
    write_folder_atomically,
)
from bench.seeds import stage_seed
from bench.settings import environment
from bench.study import Run, runs_of
from bench.train import Cell, train
from bench.workbench import Workbench

MODEL_FOLDER = "model"
LEDGER_FILE = "ledger.json"


@dataclass(frozen=True)
class Finished:
    """A run, its record, and whether anything had to be computed for it."""

    run: Run
    record: Record
    reused: bool


@dataclass(frozen=True)
class Scored:
    """One task's scores as the record keeps them."""

    name: str
    facts: dict[str, Any]
    metrics: dict[str, float]
    examples: pd.DataFrame
    mteb_result: dict[str, Any]


def run_study(bench: Workbench, on_progress: Callable[[Run, float], None]) -> Iterator[Finished]:
    """Run what is missing, one run after the other, and yield each as it is done.

    A run that fails becomes a record with status `failed` and does not stop the others; it is tried again next time.
    """
    bench.check()
    for run in runs_of(bench.study):
        known = known_record(bench, run)
        record = known or _run(bench, run, partial(on_progress, run))
        yield Finished(run, record, reused=known is not None)


def record_folder(bench: Workbench, run: Run) -> Path:
    """Where a run's record lies."""
    return bench.settings.out / bench.name / bench.run_id(run)


def trained_folder(bench: Workbench, run: Run) -> Path:
    """Where a run's weights, curve and ledger lie in the cache."""
    return bench.settings.cache / "runs" / bench.run_id(run)


def known_record(bench: Workbench, run: Run) -> Record | None:
    """A run's record, if nothing is left to do: diverged, or completed with every task's present data scored."""
    path = record_folder(bench, run) / RECORD_FILE
    if not path.is_file():
        return None
    record = read_record(path)
    if record.status == "failed" or record.label != run.entry.label:
        return None
    scored = {(name, task["data_sha256"]) for name, task in record.tasks.items()}
    complete = _same_mteb(record) and {(task.name, task.data_sha256) for task in bench.tasks} <= scored
    return record if complete or record.status == "diverged" else None


def _same_mteb(record: Record) -> bool:
    return bool(record.environment.get("mteb") == version("mteb"))


def _run(bench: Workbench, run: Run, on_progress: Callable[[float], None]) -> Record:
    ledger, folder = Ledger(), record_folder(bench, run)
    try:
        reset_peak_memory()
        curve, status, model = _model(bench, run, ledger, on_progress)
        scores = _score(bench, model, ledger) if status == "completed" else []
        weights = model.hashes()["weights"]
        scored = [*scores, *_kept_scores(folder, weights, {item.name for item in scores})]
        record = _record(bench, run, ledger, status, scored, weights)
        write_folder_atomically(folder, lambda path: _write(path, record, curve, scored))
    except UserError:
        raise
    except Exception as error:
        traceback.print_exc()
        failed = _record(bench, run, ledger, "failed", [], None, f"{type(error).__name__}: {error}")
        write_folder_atomically(folder, lambda path: _write(path, failed, pd.DataFrame(), []))
        return failed
    return record


def _kept_scores(folder: Path, weights: str, again: set[str]) -> list[Scored]:
    """Scores that the run's present record holds for other tasks, if they are of the same weights and mteb."""
    if not (folder / RECORD_FILE).is_file():
        return []
    record = read_record(folder / RECORD_FILE)
    if not record.tasks or record.identity.get("weights") != weights or not _same_mteb(record):
        return []
    examples = pd.read_parquet(folder / EXAMPLES_FILE)
    return [
        Scored(
            name=name,
            facts=facts,
            metrics=record.scores[name],
            examples=examples[examples["task"] == name],
            mteb_result=json.loads((folder / MTEB_FOLDER / f"{name}.json").read_text(encoding="utf-8")),
        )
        for name, facts in record.tasks.items()
        if name not in again
    ]


def _model(
    bench: Workbench, run: Run, ledger: Ledger, on_progress: Callable[[float], None]
) -> tuple[pd.DataFrame, Status, StoredModel]:
    if run.role == "ceiling":
        return pd.DataFrame(), "completed", bench.teacher_model
    folder = trained_folder(bench, run)
    stored = _read_ledger(folder) or _train(bench, run, ledger, folder, on_progress)
    for name, value in stored["ledger"].items():
        setattr(ledger, name, value)
    curve = pd.read_parquet(folder / CURVE_FILE) if (folder / CURVE_FILE).is_file() else pd.DataFrame()
    return curve, stored["status"], StoredModel(bench.run_id(run), folder / MODEL_FOLDER)


def _read_ledger(folder: Path) -> dict[str, Any] | None:
    """What a trained run left in the cache; None when it is not there or damaged, and has to be trained again."""
    try:
        stored: dict[str, Any] = json.loads((folder / LEDGER_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored


def _train(
    bench: Workbench, run: Run, ledger: Ledger, folder: Path, on_progress: Callable[[float], None]
) -> dict[str, Any]:
    with ledger.phase("setup"):
        student = bench.student(run.seed) if run.role != "reference" else bench.static_student(ledger)
    status, curve = "completed", pd.DataFrame()
    if run.role == "method":
        curve, diverged = _train_stages(bench, run, student, ledger, on_progress)
        status = "diverged" if diverged else "completed"
    ledger.peak_memory_bytes = peak_memory_bytes()
    stored = {"status": status, "ledger": ledger.as_dict()}

    def write(path: Path) -> None:
        export(student, bench.tokenizer, path / MODEL_FOLDER, _card(bench, run))
        if len(curve):
            curve.to_parquet(path / CURVE_FILE, index=False)
        dump_json(stored, path / LEDGER_FILE)

    write_folder_atomically(folder, write)
    return stored


def _train_stages(
    bench: Workbench, run: Run, student: Encoder, ledger: Ledger, on_progress: Callable[[float], None]
) -> tuple[pd.DataFrame, bool]:
    """Train by each of the run's stages in turn, each with its share of the budget; returns curve and divergence."""
    rows: list[dict[str, float]] = []
    spent, diverged = 0.0, False
    for number, stage in enumerate(run.entry.stages):
        method = stage.build()
        with ledger.phase("setup"):
            needs = method.needs(bench.dims_for(student))
            cell = Cell(
                method=method,
                student=student,
                teacher=bench.teacher,
                text=bench.text_of(needs),
                store=bench.store_of(needs),
                spec=bench.study.train,
                budget=bench.budget.share(spent, spent + stage.share),
                seed=stage_seed(run.seed, number),
            )
        trained = train(cell, ledger, partial(_report_share, on_progress, spent, stage.share))
        rows += [{"stage": number + 1, **row} for row in trained.curve]
        spent += stage.share
        head = method.exported_head(trained.aux)
        if head is not None:
            student.head = nn.Sequential(*_parts(student.head), *_parts(head))
            ledger.extra_parameters -= num_parameters(head)
        if trained.diverged:
            diverged = True
            break
    return pd.DataFrame(rows), diverged


def _report_share(on_progress: Callable[[float], None], before: float, own: float, share: float) -> None:
    on_progress(before + own * share)


def _parts(head: nn.Module) -> list[nn.Module]:
    """The modules of a head in a row; nothing for the head that does nothing."""
    if isinstance(head, nn.Identity):
        return []
    return list(head) if isinstance(head, nn.Sequential) else [head]


def _card(bench: Workbench, run: Run) -> str:
    return model_card(
        {
            "Run": bench.run_id(run),
            "Study": bench.name,
            "Method": run.entry.name,
            "Hyperparameters": json.dumps(run.entry.hyperparameters, sort_keys=True),
            "Teacher": bench.teacher_model.name,
            "Text": bench.study.text.source,
            "Budget": f"{bench.budget.amount:g} {bench.budget.currency}" if run.role == "method" else "none",
            "Seed": run.seed,
        }
    )


def _score(bench: Workbench, model: StoredModel, ledger: Ledger) -> list[Scored]:
    from bench.evaluation.score import score

    with ledger.phase("evaluation"):
        found = score(model, bench.tasks, bench.settings.cache, bench.settings.device)
    return [
        Scored(
            name=item.task.name,
            facts={
                "type": item.task.kind,
                "main_metric": item.task.main_metric,
                "examples": len(item.examples),
                "data_sha256": item.task.data_sha256,
                "key": item.key,
            },
            metrics=item.metrics,
            examples=item.examples,
            mteb_result=item.mteb_result,
        )
        for item in found
    ]


def _record(
    bench: Workbench,
    run: Run,
    ledger: Ledger,
    status: Status,
    scored: list[Scored],
    weights: str | None,
    error: str | None = None,
) -> Record:
    identity = {name: key_of(value=value) for name, value in bench.identity(run).items()}
    return Record(
        run_id=bench.run_id(run),
        study=bench.name,
        role=run.role,
        label=run.entry.label,
        method=run.entry.name,
        hyperparameters=run.entry.hyperparameters,
        status=status,
        seed=run.seed,
        teacher=bench.describe_teacher(),
        student=bench.describe_student() if run.role != "reference" else bench.describe_static(),
        text={"source": bench.corpus.source, "sentences": len(bench.corpus), "sha256": bench.corpus.sha256},
        train=bench.study.train.model_dump(),
        budget=asdict(bench.budget),
        ledger=ledger.as_dict(),
        tasks={item.name: item.facts for item in scored},
        scores={item.name: item.metrics for item in scored},
        identity=identity | ({"weights": weights} if weights else {}),
        environment=environment(bench.settings.device),
        error=error,
        limit=bench.study.limit,
    )


def _write(folder: Path, record: Record, curve: pd.DataFrame, scored: list[Scored]) -> None:
    dump_json(to_dict(record), folder / RECORD_FILE)
    if len(curve):
        curve.to_parquet(folder / CURVE_FILE, index=False)
    if scored:
        examples = pd.concat([item.examples for item in scored], ignore_index=True)
        examples.to_parquet(folder / EXAMPLES_FILE, index=False)
        (folder / MTEB_FOLDER).mkdir()
        for item in scored:
            dump_json(item.mteb_result, folder / MTEB_FOLDER / f"{item.name}.json")
