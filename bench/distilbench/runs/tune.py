"""Equal tuning: as many trials for each method, chosen by pairs that no task holds, never by the final runs.

A trial is a training with settings from the method's search space, for each tuning seed, scored on `dev` at the end
of its budget; it is not evaluated on the tasks. Trainings lie in the cache under their run's id, so the same command
goes on after a kill: the sampler draws the same settings again, and those that were trained are not trained again.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from filelock import FileLock

from distilbench.core.errors import UserError
from distilbench.core.sealed import disk_trouble
from distilbench.records.design import TUNED, Trial, Tuned, Tuning, write_tuning
from distilbench.runs.preflight import check, check_methods
from distilbench.runs.trained import Training, is_trained, training_of
from distilbench.runs.workbench import Workbench
from distilbench.study.ablation import changed
from distilbench.study.budget import Ledger
from distilbench.study.rows import MethodEntry
from distilbench.study.search_space import Sampler, rows_to_tune, space_of
from distilbench.study.sections import TuneSpec
from distilbench.study.study import Run

OnProgress = Callable[[MethodEntry, int, float], None]
OnTrial = Callable[[MethodEntry, int, Trial, bool], None]
"""Row, number of the trial from 0, the trial, and whether it was there already."""


@dataclass(frozen=True)
class Told:
    """What a tuning tells while it goes on."""

    progress: OnProgress = lambda _entry, _number, _share: None
    trial: OnTrial = lambda _entry, _number, _trial, _known: None


def tune(bench: Workbench, told: Told = Told()) -> Tuning:
    """Tune the rows of a study, write the trials beside its records as they are done, and return them.

    Raises `UserError` where `dev` shares pairs with a task.
    """
    check(bench)
    spec = _spec(bench)
    done: list[Tuned] = []
    for entry in rows_to_tune(bench.study):
        for tuned in _trials(bench, entry, told):
            write_tuning(bench.settings.out / bench.name, _tuning(bench, spec, [*done, tuned]))
        done.append(tuned)
    return _tuning(bench, spec, done)


def with_tuned(bench: Workbench, tuning: Tuning) -> Workbench:
    """The final runs: each row at its own settings, and those that were tuned at the chosen ones too."""
    spec, rows = _spec(bench), {entry.label: entry for entry in bench.study.methods}
    chosen = [(item, trial) for item in tuning.methods if (trial := item.chosen) is not None]
    tuned = [
        dataclasses.replace(changed(rows[item.label], trial.hyperparameters, item.tuned), tuning_trials=trainings(spec))
        for item, trial in chosen
    ]
    return _with_methods(bench, [*bench.study.methods, *tuned])


def trainings(spec: TuneSpec) -> int:
    """What the choice of each row's settings costs."""
    return spec.trials * len(spec.seeds)


def _spec(bench: Workbench) -> TuneSpec:
    assert bench.study.tune is not None
    return bench.study.tune


def _tuning(bench: Workbench, spec: TuneSpec, done: list[Tuned]) -> Tuning:
    source = bench.study.dev.source if bench.study.dev else ""
    return Tuning(spec.trials, spec.sampler, spec.seeds, source, version("optuna"), done)


def _trials(bench: Workbench, entry: MethodEntry, told: Told) -> Iterator[Tuned]:
    """A row's trials so far, after each of them."""
    spec, space = _spec(bench), space_of(entry)
    sampler = Sampler(space, spec)
    described = {name: values.described() for name, values in space.items()}
    tuned = Tuned(entry.label, f"{entry.label}{TUNED}", described)
    for number in range(spec.trials):
        asked, settings = sampler.ask()
        trial, known = _trial(bench, entry, settings, partial(told.progress, entry, number))
        sampler.tell(asked, trial.score)
        tuned = dataclasses.replace(tuned, trials=[*tuned.trials, trial])
        told.trial(entry, number, trial, known)
        yield tuned


def _trial(
    bench: Workbench, entry: MethodEntry, settings: dict[str, Any], on_progress: Callable[[float], None]
) -> tuple[Trial, bool]:
    """One setting, trained for every tuning seed, and whether all of that was there already."""
    try:
        row = changed(entry, settings, f"{entry.label}-trial")
        own = _with_methods(bench, [row])
        check_methods(own)
    except (ValueError, UserError) as error:
        return Trial(settings, [], None, 0.0, f"{error}"), False
    runs = [Run(role="method", entry=row, seed=seed) for seed in _spec(bench).seeds]
    known = all(is_trained(own, run) for run in runs)
    scores: list[float | None] = []
    flops, failure = 0.0, None
    for run in runs:
        try:
            training, ledger = _trained(own, run, on_progress)
        except Exception as error:
            if isinstance(error, UserError) or disk_trouble(error):
                raise
            traceback.print_exc()
            failure = f"{type(error).__name__}: {error}"
            break
        flops += ledger.spent("flops")
        scores.append(_dev_score(training))
    there = [score for score in scores if score is not None]
    if len(there) < len(runs):
        return Trial(settings, [own.run_id(run) for run in runs], None, flops, failure or "a training diverged"), False
    return Trial(settings, [own.run_id(run) for run in runs], sum(there) / len(there), flops), known


def _trained(bench: Workbench, run: Run, on_progress: Callable[[float], None]) -> tuple[Training, Ledger]:
    locks = bench.settings.cache / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    ledger = Ledger()
    # Another process that is at this run is waited for: its training is this one's.
    with FileLock(locks / f"{bench.run_id(run)}.lock"):
        return training_of(bench, run, ledger, on_progress), ledger


def _dev_score(training: Training) -> float | None:
    """The score of the weights that would ship; None where the training diverged."""
    if training.status != "completed" or not training.response:
        return None
    chosen = [row for row in training.response if row.get("chosen")] or [training.response[-1]]
    score: float | None = chosen[-1]["score"]
    return score


def _with_methods(bench: Workbench, rows: Sequence[MethodEntry]) -> Workbench:
    study = bench.study.model_copy(update={"methods": list(rows)})
    return Workbench(study, bench.settings, bench.announce, origin=bench)
