"""One run: trained, exported, scored and recorded, or found complete and left alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from filelock import Timeout

from distilbench.core import cache
from distilbench.core.errors import UserError
from distilbench.core.hashes import key_of
from distilbench.core.sealed import clear_up, disk_trouble
from distilbench.data.tokenizer import load_tokenizer
from distilbench.evaluation.vectors import representation
from distilbench.models.model_folder import StoredModel
from distilbench.models.sources import Source
from distilbench.records.record import Record
from distilbench.runs.engines.engine import Job
from distilbench.runs.prepare.prepared import PreparedRun
from distilbench.runs.prepare.vector_teacher import as_model
from distilbench.runs.recording import Outcome, RecordedTask, kept_tasks, known_record, write_failure, write_record
from distilbench.runs.trackers.tracking import Tracking
from distilbench.runs.trained import rehearse_run, training_of
from distilbench.study.budget import Ledger, phase, reset_peak_memory
from distilbench.study.sections.training import known
from distilbench.study.study import Run
from distilbench.training.online import ALONE, Company

DO_NOT_WAIT = 0.0
ANNOUNCE_SECONDS = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """A run, its record, and whether anything had to be computed for it."""

    run: Run
    record: Record
    reused: bool


def finish_run(run: PreparedRun, on_progress: Callable[[float], None], company: Company = ALONE) -> Finished | None:
    """A run's record, made if need be; None while another process is training or recording it.

    `company` are trainings that go on side by side with this one.
    """
    if (known := known_record(run)) is not None:
        return Finished(run.cell, known, reused=True)
    try:
        with _record_lock(run):
            clear_up(run.record_folder)
            known = known_record(run)
            return Finished(run.cell, known or _run(run, on_progress, company), reused=known is not None)
    except Timeout:
        return None


def _record_lock(run: PreparedRun) -> AbstractContextManager[None]:
    # In the cache, since a results folder may lie where files cannot be locked.
    folder = run.inputs.settings.cache / "records" / key_of(folder=str(run.record_folder.absolute()))
    return cache.locked(folder, "the record", DO_NOT_WAIT)


def give_up(run: PreparedRun, why: str) -> Finished:
    """The record of a run whose process ended without a word, time and again."""
    return Finished(run.cell, write_failure(run, Ledger(), UserError(why)), reused=False)


FINISH = Job(finish_run, give_up)
"""What an engine does with the runs of a study."""


def stop_if_disk_is_full(error: Exception) -> None:
    """Raise `UserError` for an error that every further run would meet too."""
    if refusal := disk_trouble(error):
        raise UserError(
            f"nothing more can be written ({refusal}); make room and run the same command again, which goes on "
            "from what is complete"
        ) from error


def fill_stores(runs: Sequence[PreparedRun]) -> None:
    """Have all teacher signals before the first training, in the study's order whoever trains in what order."""
    announced = time.monotonic()
    for number, run in enumerate(runs):
        if time.monotonic() - announced > ANNOUNCE_SECONDS:
            announced = time.monotonic()
            run.inputs.announce(f"the teacher's signals are there for {number} of {len(runs)} runs")
        try:
            rehearse_run(run)
        except Exception as error:
            stop_if_disk_is_full(error)
            # Whatever else is wrong with a run is found again when it is executed, and goes into its record.


def _run(run: PreparedRun, on_progress: Callable[[float], None], company: Company) -> Record:
    tracking = Tracking(run)
    record = _recorded(run, on_progress, company, tracking)
    tracking.finish(record)
    return record


def _recorded(run: PreparedRun, on_progress: Callable[[float], None], company: Company, tracking: Tracking) -> Record:
    ledger = Ledger()
    try:
        reset_peak_memory()
        training = training_of(run, ledger, on_progress, company, DO_NOT_WAIT, tracking.row)
        tracking.rows_unless_seen(training.curve.to_dict("records"))
        ledger.tuning_trials = run.cell.entry.tuning_trials
        tasks = _score(run, training.model, ledger) if training.status == "completed" else []
        model = training.model
        vectors, speed = _look_at_vectors(run, model, ledger) if tasks and isinstance(model, StoredModel) else ({}, {})
        weights = training.model.hashes()["weights"]
        outcome = Outcome(
            status=training.status,
            ledger=ledger,
            curve=training.curve,
            tasks=[*tasks, *kept_tasks(run.record_folder, weights, {task.name for task in tasks})],
            identity={**training.identity, "weights": weights},
            response=training.response,
            vectors=vectors,
            speed=speed,
        )
        spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in ledger.seconds.items())
        _log.info("%s is %s: %s", run.name, training.status, spent)
        return write_record(run, outcome)
    except Timeout:
        raise
    except Exception as error:
        stop_if_disk_is_full(error)
        return write_failure(run, ledger, error)


def _score(run: PreparedRun, model: Source, ledger: Ledger) -> list[RecordedTask]:
    from distilbench.evaluation.score import score

    inputs, precision = run.inputs, known(run.inputs.study.evaluation.precision)
    with phase(ledger, "evaluation"):
        scores = score(model, inputs.tasks(), inputs.settings.cache, inputs.settings.device, precision)
    return [
        RecordedTask(
            name=item.task.name,
            facts={
                "type": item.task.kind,
                "main_metric": item.task.main_metric,
                "examples": len(item.examples),
                "data_sha256": item.task.data_sha256,
                "precision": precision,
                "key": item.key,
            },
            metrics=item.metrics,
            examples=item.examples,
            ranked=item.ranked,
            judged=item.judged,
            mteb_result=item.mteb_result,
        )
        for item in scores
    ]


def _look_at_vectors(run: PreparedRun, model: StoredModel, ledger: Ledger) -> tuple[dict[str, Any], dict[str, float]]:
    """The record's `vectors` and `speed`."""
    with phase(ledger, "evaluation"):
        student = model.load().to(run.inputs.settings.device)
        tokenizer = load_tokenizer(model.folder)
        vectors, speed = representation.encode_timed(student, tokenizer, model.folder)
        if run.inputs.teacher.shape is None:
            return {"sentences": len(vectors), "values": representation.describe(vectors), "layers": []}, speed
        teacher = as_model(run.inputs.teacher)
        layers = [teacher.views[f"layer-{layer}"] for layer in range(teacher.shape.dims.layers + 1)]
        looked = {
            "sentences": len(vectors),
            "values": representation.describe(vectors, teacher.views[representation.FINAL]),
            "layers": representation.layer_similarity(representation.pooled_layers(student, tokenizer), layers),
        }
        if run.cell.role != "ceiling" and student.output_width() == teacher.final_width:
            looked["asymmetric"] = _among_the_teachers_documents(run, model)
        return looked, speed


def _among_the_teachers_documents(run: PreparedRun, model: StoredModel) -> dict[str, float]:
    from distilbench.evaluation.asymmetric import TeacherIndex, asymmetric_scores

    inputs, teacher = run.inputs, as_model(run.inputs.teacher)
    device, precision = teacher.device, known(inputs.study.evaluation.precision)
    index = TeacherIndex(teacher.stored, teacher.shape, device, precision, inputs.settings.cache)
    return asymmetric_scores(model, index, inputs.tasks(), device, precision)
