"""A whole study: its parts are looked at, its rows tuned where it asks for that, and what is missing is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from distilbench.core.errors import UserError
from distilbench.core.machine import Settings
from distilbench.evaluation.calibration import compare, explain, figures
from distilbench.evaluation.tasks.profiles import is_benchmark
from distilbench.records.design import write_ablations, write_benchmarks
from distilbench.records.example_texts import read_example_texts, write_example_texts
from distilbench.records.record import Record
from distilbench.runs.engines import EngineOptions, make_engine
from distilbench.runs.engines.engine import Engine
from distilbench.runs.prepare.inputs import Inputs, inputs_of_parts
from distilbench.runs.prepare.preflight import preflight
from distilbench.runs.prepare.prepared import PreparedRun, prepare
from distilbench.runs.prepare.vector_teacher import as_model
from distilbench.runs.progress import Watch
from distilbench.runs.recording import known_record
from distilbench.runs.run import FINISH, Finished, fill_stores
from distilbench.runs.trackers.tracking import check_trackers, ready_trackers
from distilbench.runs.trial import try_rows
from distilbench.runs.tune import tune, with_tuned
from distilbench.study.ablation import designs, parts
from distilbench.study.study import Study

if TYPE_CHECKING:
    from distilbench.evaluation.tasks.by_name import Task


def run_study(study: Study, settings: Settings, options: EngineOptions, watch: Watch) -> list[Finished]:
    """Run what is missing of a study, write its records, and return all of its runs in the study's order.

    A run that fails becomes a record with status `failed` and does not stop the others; it is tried again next time.
    Raises `UserError`, before anything is trained, for what a study cannot do and for trackers that are not installed;
    and for a teacher whose scores are not those that were published of it, unless the study says calibrate: false.
    """
    check_trackers(settings)
    all_inputs = inputs_of_parts(parts(study), settings, watch.announce)
    ready_trackers(settings, all_inputs[0].name)
    engine = make_engine(options, settings.device)
    if study.ablate:
        write_ablations(settings.out / all_inputs[0].name, designs(study))
    if any(isinstance(task, str) and is_benchmark(task) for task in study.tasks):
        from distilbench.evaluation.task_types.benchmarks import benchmarks_among

        write_benchmarks(settings.out / all_inputs[0].name, benchmarks_among(study.tasks))
    if study.tune:
        all_inputs = [with_tuned(all_inputs[0], tune(all_inputs[0], watch, engine))]
    for inputs in all_inputs:
        preflight(inputs)
        try_rows(inputs)
    _note_texts(all_inputs[0])
    prepared = prepare(all_inputs)
    watch.begin([run for runs in prepared for run in runs])
    finished: list[Finished] = []
    with watch:
        for runs in prepared:
            places = {(run.cell.entry.label, run.cell.seed): place for place, run in enumerate(runs)}
            of_part = list(run_part(runs, engine, watch))
            finished += sorted(of_part, key=lambda item: places[item.run.entry.label, item.run.seed])
    return finished


def _note_texts(inputs: Inputs) -> None:
    """Write which texts the examples of the tasks share, which the report's errors answer to."""
    from distilbench.evaluation.tasks.overlap import text_numbers

    folder = inputs.settings.out / inputs.name
    known = read_example_texts(folder)
    written = {(str(name), str(sha)) for name, sha in zip(known["task"], known["data_sha256"], strict=True)}
    lacking = [task for task in inputs.tasks() if (task.name, task.data_sha256) not in written]
    if lacking:
        write_example_texts(folder, text_numbers(lacking))


def run_part(runs: Sequence[PreparedRun], engine: Engine, watch: Watch) -> Iterator[Finished]:
    """Run what is missing of some runs of equal inputs, the ceiling first, and yield each as it is done."""
    inputs = runs[0].inputs
    first = list(runs[:1]) if _published(inputs) else []
    for finished in _finish_all(first, engine, watch):
        _refuse_uncalibrated(inputs, finished.record)
        yield finished
    yield from _finish_all(list(runs[len(first) :]), engine, watch)


def _published(inputs: Inputs) -> list[Task]:
    """The study's tasks that the teacher has published scores on, where they are to be compared."""
    # Shortened tasks have no published figures.
    stored = inputs.teacher.stored
    if not inputs.study.calibrate or inputs.study.limit is not None or stored is None:
        return []
    known = figures(stored, inputs.teacher.hashes)
    return [task for task in inputs.tasks() if task.name in known]


def _refuse_uncalibrated(inputs: Inputs, ceiling: Record) -> None:
    way_out = "mend it, or set calibrate=false to go on without"
    if ceiling.status != "completed":
        raise UserError(f"the teacher {inputs.teacher.name} could not be scored ({ceiling.error}); {way_out}")
    stored, settings = as_model(inputs.teacher).stored, inputs.settings
    examples = {name: facts["examples"] for name, facts in ceiling.tasks.items()}
    published = figures(stored, inputs.teacher.hashes)
    halves = "bf16" in (stored.dtype, inputs.study.evaluation.precision)
    compared = compare(published, ceiling.scores, examples, "bf16" if halves else "fp32")
    wrong = explain(stored, _published(inputs), compared, settings.cache, settings.device)
    if wrong is not None:
        raise UserError(f"the teacher {wrong}; {way_out}")
    inputs.announce(f"the teacher has its published scores on {', '.join(item.task for item in compared)}")


def _finish_all(runs: list[PreparedRun], engine: Engine, watch: Watch) -> Iterator[Finished]:
    missing = []
    for run in runs:
        known = known_record(run)
        if known is None:
            missing.append(run)
        else:
            yield watch.finished(Finished(run.cell, known, reused=True))
    if missing:
        fill_stores(missing)
        yield from map(watch.finished, engine(missing, watch.progress, FINISH))
