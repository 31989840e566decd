"""Running a study: each run trains, is exported, scored and recorded, or is found complete and left alone."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import FileLock, Timeout

from distilbench.core.errors import UserError
from distilbench.core.hashes import key_of
from distilbench.core.machine import environment
from distilbench.core.sealed import clear_up, disk_trouble, is_sound, write_sealed
from distilbench.data.tokenizer import load_tokenizer
from distilbench.evaluation import representation as vectors
from distilbench.evaluation.calibration import compare, explain, figures
from distilbench.models.model_folder import StoredModel, load_encoder
from distilbench.records.record import (
    CURVE_FILE,
    EXAMPLES_FILE,
    JUDGED_FILE,
    LISTS,
    MTEB_FOLDER,
    RANKED_FILE,
    RECORD_FILE,
    STORE_SCHEMA,
    Record,
    Status,
    dump_json,
    precision_of,
    read_record,
    to_dict,
)
from distilbench.runs.preflight import check
from distilbench.runs.trained import rehearse_run, training_of
from distilbench.runs.workbench import Workbench
from distilbench.study.budget import Ledger, reset_peak_memory
from distilbench.study.study import Run, runs_of

if TYPE_CHECKING:
    from distilbench.evaluation.tasks.by_name import Task

ANNOUNCE_SECONDS = 60.0


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
    ranked: pd.DataFrame
    judged: pd.DataFrame
    mteb_result: dict[str, Any]


OnProgress = Callable[[Run, float], None]
"""Told of the share of a run that is done: 0 when it begins."""
Engine = Callable[[Workbench, list[Run], OnProgress], Iterator[Finished]]
"""Executes runs and yields each as it is finished, in any order. Runs that another process is at are left to it, and
waited for."""


def run_study(bench: Workbench, engine: Engine, on_progress: OnProgress) -> Iterator[Finished]:
    """Run what is missing, and yield each run as it is done.

    A run that fails becomes a record with status `failed` and does not stop the others; it is tried again next time.
    A teacher of which scores are published comes before all others: raises `UserError` when its own are not those,
    unless the study says calibrate: false.
    """
    check(bench)
    runs = runs_of(bench.study)
    first = runs[:1] if _published(bench) else []
    for finished in _finish_all(bench, first, engine, on_progress):
        _refuse_uncalibrated(bench, finished.record)
        yield finished
    yield from _finish_all(bench, runs[len(first) :], engine, on_progress)


def _published(bench: Workbench) -> list[Task]:
    """The study's tasks that the teacher has published scores on, where they are to be compared."""
    # Shortened tasks have no published figures.
    if not bench.study.calibrate or bench.study.limit is not None:
        return []
    known = figures(bench.teacher_model, bench.teacher_hashes)
    return [task for task in bench.tasks if task.name in known]


def _refuse_uncalibrated(bench: Workbench, teacher: Record) -> None:
    way_out = "mend it, or set calibrate=false to go on without"
    if teacher.status != "completed":
        raise UserError(f"the teacher {teacher.teacher['name']} could not be scored ({teacher.error}); {way_out}")
    examples = {name: facts["examples"] for name, facts in teacher.tasks.items()}
    compared = compare(figures(bench.teacher_model, bench.teacher_hashes), teacher.scores, examples, bench.precision)
    wrong = explain(bench.teacher_model, _published(bench), compared, bench.settings.cache, bench.settings.device)
    if wrong is not None:
        raise UserError(f"the teacher {wrong}; {way_out}")
    bench.announce(f"the teacher has its published scores on {', '.join(item.task for item in compared)}")


def _finish_all(bench: Workbench, runs: list[Run], engine: Engine, on_progress: OnProgress) -> Iterator[Finished]:
    missing = []
    for run in runs:
        known = known_record(bench, run)
        if known is None:
            missing.append(run)
        else:
            yield Finished(run, known, reused=True)
    if missing:
        _fill_stores(bench, missing)
        yield from engine(bench, missing, on_progress)


def _fill_stores(bench: Workbench, runs: list[Run]) -> None:
    """Have all teacher signals before the first training, in the study's order whoever trains in what order."""
    announced = time.monotonic()
    for number, run in enumerate(runs):
        if time.monotonic() - announced > ANNOUNCE_SECONDS:
            announced = time.monotonic()
            bench.announce(f"the teacher's signals are there for {number} of {len(runs)} runs")
        try:
            rehearse_run(bench, run)
        except Exception as error:
            _stop_if_disk_is_full(error)
            # Whatever else is wrong with a run is found again when it is executed, and goes into its record.


def record_folder(bench: Workbench, run: Run) -> Path:
    """Where a run's record lies."""
    return bench.settings.out / bench.name / bench.run_id(run)


def finish_run(bench: Workbench, run: Run, on_progress: Callable[[float], None]) -> Finished | None:
    """A run's record, made if need be; None while another process is making it."""
    if (known := known_record(bench, run)) is not None:
        return Finished(run, known, reused=True)
    locks = bench.settings.cache / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / f"{bench.run_id(run)}.lock", timeout=0):
            clear_up(record_folder(bench, run))
            known = known_record(bench, run)
            return Finished(run, known or _run(bench, run, on_progress), reused=known is not None)
    except Timeout:
        return None


def known_record(bench: Workbench, run: Run) -> Record | None:
    """A run's record, if nothing is left to do: diverged, or completed with every task's present data scored."""
    record = _sound_record(record_folder(bench, run))
    if record is None:
        return None
    if record.status == "failed" or record.label != run.entry.label:
        return None
    scored = {(name, facts["data_sha256"], precision_of(facts)) for name, facts in record.tasks.items()}
    wanted = {(task.name, task.data_sha256, bench.precision) for task in bench.tasks}
    complete = _same_mteb(record) and wanted <= scored
    return record if complete or record.status == "diverged" else None


def _same_mteb(record: Record) -> bool:
    return bool(record.environment.get("mteb") == version("mteb"))


def _sound_record(folder: Path) -> Record | None:
    """The record in a folder; None where there is none, or where it is damaged and has to be made again."""
    if not is_sound(folder, "the record", may_lack=LISTS):
        return None
    record = read_record(folder / RECORD_FILE)
    # A folder that was moved to another's place is whole, and still not what its name says.
    return record if record.run_id == folder.name else None


def _run(bench: Workbench, run: Run, on_progress: Callable[[float], None]) -> Record:
    ledger, folder = Ledger(), record_folder(bench, run)
    try:
        reset_peak_memory()
        training = training_of(bench, run, ledger, on_progress)
        ledger.tuning_trials = run.entry.tuning_trials
        scores = _score(bench, training.model, ledger) if training.status == "completed" else []
        identity = {**training.identity, "weights": training.model.hashes()["weights"]}
        scored = [*scores, *_kept_scores(folder, identity["weights"], {item.name for item in scores})]
        looked = _look_at_vectors(bench, run, training.model, ledger) if scores else {}
        record = _record(bench, run, ledger, training.status, scored, identity, response=training.response, **looked)
        write_sealed(folder, lambda path: _write(path, record, training.curve, scored))
    except Exception as error:
        _stop_if_disk_is_full(error)
        return _failed(bench, run, ledger, error)
    return record


def _stop_if_disk_is_full(error: Exception) -> None:
    if refusal := disk_trouble(error):
        raise UserError(
            f"nothing more can be written ({refusal}); make room and run the same command again, which goes on "
            "from what is complete"
        ) from error


def give_up(bench: Workbench, run: Run, why: str) -> Finished:
    """The record of a run whose process ended without a word, time and again."""
    return Finished(run, _failed(bench, run, Ledger(), UserError(why)), reused=False)


def _failed(bench: Workbench, run: Run, ledger: Ledger, error: Exception) -> Record:
    """The record of a failure. It never takes the place of a record that holds results."""
    if not isinstance(error, UserError):
        traceback.print_exc()
    folder = record_folder(bench, run)
    failed = _record(bench, run, ledger, "failed", [], {}, error=f"{type(error).__name__}: {error}")
    before = _sound_record(folder)
    if before is None or before.status == "failed":
        write_sealed(folder, lambda path: _write(path, failed, pd.DataFrame(), []))
    return failed


def _kept_scores(folder: Path, weights: str, again: set[str]) -> list[Scored]:
    """Scores that the run's present record holds for other tasks, if they are of the same weights and mteb."""
    record = _sound_record(folder)
    if record is None or not record.tasks or record.identity.get("weights") != weights or not _same_mteb(record):
        return []
    frames = {name: _stored(folder / name) for name in (EXAMPLES_FILE, RANKED_FILE, JUDGED_FILE)}
    return [
        Scored(
            name=name,
            facts=facts,
            metrics=record.scores[name],
            **{Path(file).stem: frame[frame["task"] == name] for file, frame in frames.items()},
            mteb_result=json.loads((folder / MTEB_FOLDER / f"{name}.json").read_text(encoding="utf-8")),
        )
        for name, facts in record.tasks.items()
        if name not in again
    ]


def _stored(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.is_file() else pd.DataFrame(columns=["task"])


def _score(bench: Workbench, model: StoredModel, ledger: Ledger) -> list[Scored]:
    from distilbench.evaluation.score import score

    with ledger.phase("evaluation"):
        found = score(model, bench.tasks, bench.settings.cache, bench.settings.device, bench.precision)
    return [
        Scored(
            name=item.task.name,
            facts={
                "type": item.task.kind,
                "main_metric": item.task.main_metric,
                "examples": len(item.examples),
                "data_sha256": item.task.data_sha256,
                "precision": bench.precision,
                "key": item.key,
            },
            metrics=item.metrics,
            examples=item.examples,
            ranked=item.ranked,
            judged=item.judged,
            mteb_result=item.mteb_result,
        )
        for item in found
    ]


def _look_at_vectors(bench: Workbench, run: Run, model: StoredModel, ledger: Ledger) -> dict[str, Any]:
    """The record's `vectors` and `speed`."""
    with ledger.phase("evaluation"):
        student = load_encoder(model.folder).to(bench.settings.device)
        tokenizer = load_tokenizer(model.folder)
        found, speed = vectors.encode_timed(student, tokenizer, model.folder)
        views = bench.teacher_views
        layers = [views[f"layer-{layer}"] for layer in range(bench.teacher.dims.layers + 1)]
        looked = {
            "schema": vectors.SCHEMA,
            "sentences": len(found),
            "values": vectors.describe(found, views[vectors.FINAL]),
            "layers": vectors.layer_similarity(vectors.pooled_layers(student, tokenizer), layers),
        }
        if run.role != "ceiling" and student.output_width() == bench.teacher.output_width():
            looked["asymmetric"] = _among_the_teachers_documents(bench, model)
        return {"vectors": looked, "speed": speed}


def _among_the_teachers_documents(bench: Workbench, model: StoredModel) -> dict[str, float]:
    from distilbench.evaluation.asymmetric import TeacherIndex, asymmetric_scores

    index = TeacherIndex(bench.teacher, bench.teacher_model.folder, bench.teacher_hashes, bench.settings.cache)
    return asymmetric_scores(model, index, bench.tasks, bench.settings.device)


def _record(
    bench: Workbench,
    run: Run,
    ledger: Ledger,
    status: Status,
    scored: list[Scored],
    identity: dict[str, str],
    *,
    response: list[dict[str, Any]] = [],  # noqa: B006
    error: str | None = None,
    **looked: Any,
) -> Record:
    asked = {name: key_of(value=value) for name, value in bench.identity(run).items()}
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
        identity=asked | identity,
        response=response,
        contamination=_contamination(bench, run),
        environment=environment(bench.settings.device),
        error=error,
        limit=bench.study.limit,
        **looked,
    )


def _contamination(bench: Workbench, run: Run) -> dict[str, Any]:
    if run.role != "method" or bench.contamination is None:
        return {}
    return {
        **bench.contamination.as_dict(),
        "pairs_seen": bench.pairs_seen if "labelled" in bench.identity(run) else {},
    }


def _write(folder: Path, record: Record, curve: pd.DataFrame, scored: list[Scored]) -> None:
    dump_json(to_dict(record), folder / RECORD_FILE)
    if len(curve):
        curve.to_parquet(folder / CURVE_FILE, index=False)
    if scored:
        for name in (EXAMPLES_FILE, RANKED_FILE, JUDGED_FILE):
            frames = [frame for item in scored if len(frame := getattr(item, Path(name).stem))]
            if frames:
                together = pd.concat(frames, ignore_index=True)
                together.attrs["schema"] = STORE_SCHEMA
                together.to_parquet(folder / name, index=False, compression="zstd")
        (folder / MTEB_FOLDER).mkdir()
        for item in scored:
            dump_json(item.mteb_result, folder / MTEB_FOLDER / f"{item.name}.json")
