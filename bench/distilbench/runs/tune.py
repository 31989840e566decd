"""Equal tuning: as many trials for each method, chosen by pairs that no task holds, never by the final runs.

A trial is a training with settings from the method's search space, for each tuning seed, scored on `dev` at the end
of its budget; it is not evaluated on the tasks. Trainings lie in the cache under their run's id, so the same command
goes on after a kill: the sampler draws the same settings again, and those that were trained are not trained again.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from distilbench.core.errors import UserError
from distilbench.core.sealed import disk_trouble
from distilbench.records.design import TUNED, Trial, Tuned, Tuning, write_tuning
from distilbench.runs.prepare.inputs import Inputs, with_methods
from distilbench.runs.prepare.preflight import check_methods, check_scores, preflight
from distilbench.runs.prepare.prepared import PreparedRun, prepare_run
from distilbench.runs.progress import Watch
from distilbench.runs.trained import Training, is_trained, training_of
from distilbench.runs.trial import try_rows
from distilbench.study.budget import Ledger, spent
from distilbench.study.row_changes import changed
from distilbench.study.rows import MethodEntry
from distilbench.study.search_space import Sampler, rows_to_tune, space_of
from distilbench.study.sections.training import TuneSpec
from distilbench.study.study import Run


def tune(inputs: Inputs, watch: Watch) -> Tuning:
    """Tune the rows of a study, write the trials beside its records as they are done, and return them.

    Raises `UserError` where `dev` shares pairs with a task, or ranks nothing.
    """
    preflight(inputs)
    try_rows(inputs)
    spec = _spec(inputs)
    done: list[Tuned] = []
    for entry in rows_to_tune(inputs.study):
        for tuned in _trials(inputs, entry, watch):
            write_tuning(inputs.settings.out / inputs.name, _tuning(inputs, spec, [*done, tuned]))
        done.append(tuned)
    return _tuning(inputs, spec, done)


def with_tuned(inputs: Inputs, tuning: Tuning) -> Inputs:
    """The final runs: each row at its own settings, and those that were tuned at the chosen ones too."""
    spec, rows = _spec(inputs), {entry.label: entry for entry in inputs.study.methods}
    chosen = [(item, trial) for item in tuning.methods if (trial := item.chosen) is not None]
    tuned = [
        dataclasses.replace(changed(rows[item.label], trial.hyperparameters, item.tuned), tuning_trials=trainings(spec))
        for item, trial in chosen
    ]
    return with_methods(inputs, [*inputs.study.methods, *tuned])


def trainings(spec: TuneSpec) -> int:
    """What the choice of each row's settings costs."""
    return spec.trials * len(spec.seeds)


def _spec(inputs: Inputs) -> TuneSpec:
    assert inputs.study.tune is not None
    return inputs.study.tune


def _tuning(inputs: Inputs, spec: TuneSpec, done: list[Tuned]) -> Tuning:
    source = inputs.study.dev.source if inputs.study.dev else ""
    return Tuning(spec.trials, spec.sampler, spec.seeds, source, version("optuna"), done)


def _trials(inputs: Inputs, entry: MethodEntry, watch: Watch) -> Iterator[Tuned]:
    """A row's trials so far, after each of them."""
    spec = _spec(inputs)
    space = space_of(entry, spec)
    sampler = Sampler(space, spec)
    described = {name: values.described() for name, values in space.items()}
    tuned = Tuned(entry.label, f"{entry.label}{TUNED}", described)
    for number in range(1, spec.trials + 1):
        asked, settings = sampler.ask()
        trial, known = _trial(inputs, entry, settings)
        sampler.tell(asked, trial.score)
        tuned = dataclasses.replace(tuned, trials=[*tuned.trials, trial])
        watch.trial((number, spec.trials), entry.label, trial, known)
        yield tuned


def _trial(inputs: Inputs, entry: MethodEntry, settings: dict[str, Any]) -> tuple[Trial, bool]:
    """One setting, trained for every tuning seed, and whether all of that was there already."""
    try:
        row = changed(entry, settings, f"{entry.label}-trial")
        own = with_methods(inputs, [row])
        check_methods(own)
        check_scores(own)
    except (ValueError, UserError) as error:
        return Trial(settings, [], None, 0.0, f"{error}"), False
    cells = [Run(role="method", entry=row, seed=seed) for seed in _spec(inputs).seeds]
    runs = [prepare_run(own, cell) for cell in cells]
    ids, known = [run.id for run in runs], all(is_trained(run) for run in runs)
    scores: list[float] = []
    lacking: list[str] = []
    flops = 0.0
    for run in runs:
        try:
            training, ledger = _trained(run)
        except Exception as error:
            if isinstance(error, UserError) or disk_trouble(error):
                raise
            traceback.print_exc()
            return Trial(settings, ids, None, flops, f"{type(error).__name__}: {error}"), False
        flops += spent(ledger, "flops")
        if training.status != "completed":
            lacking.append("a training diverged")
        elif (score := _dev_score(training)) is not None:
            scores.append(score)
        else:
            lacking.append("a dev score is undefined: the student's vectors are all equal, or not finite")
    if lacking:
        return Trial(settings, ids, None, flops, lacking[0]), False
    return Trial(settings, ids, sum(scores) / len(scores), flops), known


def _trained(run: PreparedRun) -> tuple[Training, Ledger]:
    ledger = Ledger()
    # Another process that trains this run is waited for: its training is this one's.
    return training_of(run, ledger, lambda _: None), ledger


def _dev_score(training: Training) -> float | None:
    """The score of the weights that would ship; None where it is undefined."""
    chosen = [row for row in training.response if row.get("chosen")] or training.response[-1:]
    if not chosen:
        return None
    score: float | None = chosen[-1]["score"]
    return score
