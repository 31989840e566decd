"""Running a study: each run trains, is exported, scored and recorded, or is found complete and left alone."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

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


def run_study(bench: Workbench, on_progress: Callable[[Run, float], None]) -> Iterator[Finished]:
    """Run what is missing, one run after the other, and yield each as it is done.

    A run that fails becomes a record with status `failed` and does not stop the others; it is tried again next time.
    """
    bench.check()
    for run in runs_of(bench.study):
        folder = record_folder(bench, run)
        known = _known(bench, run, folder)
        if known is not None:
            yield Finished(run, known, reused=True)
            continue
        yield Finished(run, _run(bench, run, folder, lambda share, run=run: on_progress(run, share)), reused=False)  # type: ignore[misc]


def record_folder(bench: Workbench, run: Run) -> Path:
    """Where a run's record lies."""
    return bench.settings.out / bench.study.name / bench.run_id(run)


def trained_folder(bench: Workbench, run: Run) -> Path:
    """Where a run's weights, curve and ledger lie in the cache."""
    return bench.settings.cache / "runs" / bench.run_id(run)


def _known(bench: Workbench, run: Run, folder: Path) -> Record | None:
    """The run's record, if it is final: diverged, or completed with the score of every task under its present key."""
    if not (folder / RECORD_FILE).is_file():
        return None
    record = read_record(folder / RECORD_FILE)
    if record.status == "failed" or record.label != run.entry.label:
        return None
    wanted = {task.name: task.data_sha256 for task in bench.tasks}
    scored = {name: task["data_sha256"] for name, task in record.tasks.items()}
    same_mteb = record.environment.get("mteb") == environment(bench.settings.device)["mteb"]
    return record if record.status == "diverged" or (scored == wanted and same_mteb) else None


def _run(bench: Workbench, run: Run, folder: Path, on_progress: Callable[[float], None]) -> Record:
    ledger = Ledger()
    try:
        reset_peak_memory()
        curve, status, model = _model(bench, run, ledger, on_progress)
        scores = _score(bench, model, ledger) if status == "completed" else []
        record = _record(bench, run, ledger, status, scores, None)
    except UserError:
        raise
    except Exception as error:
        traceback.print_exc()
        curve, scores = pd.DataFrame(), []
        record = _record(bench, run, ledger, "failed", [], f"{type(error).__name__}: {error}")
    write_folder_atomically(folder, lambda path: _write(path, record, curve, scores))
    return record


def _model(
    bench: Workbench, run: Run, ledger: Ledger, on_progress: Callable[[float], None]
) -> tuple[pd.DataFrame, Status, StoredModel]:
    if run.role == "ceiling":
        return pd.DataFrame(), "completed", bench.teacher_model
    folder = trained_folder(bench, run)
    if not (folder / LEDGER_FILE).is_file():
        _train(bench, run, ledger, folder, on_progress)
    stored = json.loads((folder / LEDGER_FILE).read_text(encoding="utf-8"))
    for name, value in stored["ledger"].items():
        setattr(ledger, name, value)
    curve = pd.read_parquet(folder / CURVE_FILE) if (folder / CURVE_FILE).is_file() else pd.DataFrame()
    return curve, stored["status"], StoredModel(bench.run_id(run), folder / MODEL_FOLDER)


def _train(bench: Workbench, run: Run, ledger: Ledger, folder: Path, on_progress: Callable[[float], None]) -> None:
    with ledger.phase("setup"):
        student = bench.student(run.seed)
    status, curve = "completed", pd.DataFrame()
    if run.role == "method":
        method = run.entry.build()
        with ledger.phase("setup"):
            cell = Cell(
                method=method,
                student=student,
                teacher=bench.teacher,
                corpus=bench.corpus,
                store=bench.store,
                spec=bench.study.train,
                budget=bench.budget,
                seed=run.seed,
            )
        trained = train(cell, ledger, on_progress)
        status, curve = ("diverged" if trained.diverged else "completed"), pd.DataFrame(trained.curve)
        head = method.exported_head(trained.aux)
        if head is not None:
            student.head = head
            ledger.extra_parameters -= num_parameters(head)
    ledger.peak_memory_bytes = peak_memory_bytes()

    def write(path: Path) -> None:
        export(student, bench.tokenizer, path / MODEL_FOLDER, _card(bench, run))
        if len(curve):
            curve.to_parquet(path / CURVE_FILE, index=False)
        dump_json({"status": status, "ledger": ledger.as_dict()}, path / LEDGER_FILE)

    write_folder_atomically(folder, write)


def _card(bench: Workbench, run: Run) -> str:
    return model_card(
        {
            "Run": bench.run_id(run),
            "Study": bench.study.name,
            "Method": run.entry.name,
            "Hyperparameters": json.dumps(run.entry.hyperparameters, sort_keys=True),
            "Teacher": bench.teacher_model.name,
            "Text": bench.study.text.source,
            "Budget": f"{bench.budget.amount:g} {bench.budget.currency}" if run.role == "method" else "none",
            "Seed": run.seed,
        }
    )


def _score(bench: Workbench, model: StoredModel, ledger: Ledger) -> list[Any]:
    from bench.evaluation.score import score

    with ledger.phase("evaluation"):
        return score(model, bench.tasks, bench.settings.cache, bench.settings.device)


def _record(bench: Workbench, run: Run, ledger: Ledger, status: Status, scores: list[Any], error: str | None) -> Record:
    return Record(
        run_id=bench.run_id(run),
        study=bench.study.name,
        role=run.role,
        label=run.entry.label,
        method=run.entry.name,
        hyperparameters=run.entry.hyperparameters,
        status=status,
        seed=run.seed,
        teacher=bench.describe_teacher(),
        student=_describe_student(bench.student(run.seed), bench.study.student.pooling),
        text={"source": bench.corpus.source, "sentences": len(bench.corpus), "sha256": bench.corpus.sha256},
        train=bench.study.train.model_dump(),
        budget=asdict(bench.budget),
        ledger=ledger.as_dict(),
        tasks={
            item.task.name: {
                "type": item.task.kind,
                "main_metric": item.task.main_metric,
                "examples": len(item.examples),
                "data_sha256": item.task.data_sha256,
                "key": item.key,
            }
            for item in scores
        },
        scores={item.task.name: item.metrics for item in scores},
        identity={name: key_of(value=value) for name, value in bench.identity(run).items()},
        environment=environment(bench.settings.device),
        error=error,
        limit=bench.study.limit,
    )


def _describe_student(student: Encoder, pooling: str) -> dict[str, Any]:
    return {
        **asdict(student.dims),
        "output_width": student.output_width(),
        "parameters": num_parameters(student),
        "pooling": pooling,
    }


def _write(folder: Path, record: Record, curve: pd.DataFrame, scores: list[Any]) -> None:
    dump_json(to_dict(record), folder / RECORD_FILE)
    if len(curve):
        curve.to_parquet(folder / CURVE_FILE, index=False)
    if scores:
        examples = pd.concat([item.examples for item in scores], ignore_index=True)
        examples.to_parquet(folder / EXAMPLES_FILE, index=False)
        (folder / MTEB_FOLDER).mkdir()
        for item in scores:
            dump_json(item.mteb_result, folder / MTEB_FOLDER / f"{item.task.name}.json")
