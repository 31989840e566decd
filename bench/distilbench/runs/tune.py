"""Equal tuning: as many trials for each method, chosen by pairs that no task holds, never by the final runs.

A trial is a training with settings from the method's search space, for each tuning seed, scored on `dev` at the end
of its budget; it is not evaluated on the tasks. All rows are tuned together, trial by trial. Trials are kept beside
the records and trainings lie in the cache under their run's id, so the same command goes on after a kill: the sampler
draws the same settings again, and those whose runs are known are not trained again.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from filelock import Timeout

from distilbench.core.errors import UserError
from distilbench.records.design import TUNED, Trial, Tuned, Tuning, read_design, write_tuning
from distilbench.runs.engines.engine import Engine, Job
from distilbench.runs.engines.in_process import in_this_process
from distilbench.runs.prepare.inputs import Inputs, with_methods
from distilbench.runs.prepare.preflight import check_methods, check_scores, preflight
from distilbench.runs.prepare.prepared import PreparedRun, prepare_run
from distilbench.runs.progress import Watch
from distilbench.runs.run import DO_NOT_WAIT, fill_stores, stop_if_disk_is_full
from distilbench.runs.trained import Training, is_trained, training_of
from distilbench.runs.trial import try_rows
from distilbench.study.budget import Ledger, spent
from distilbench.study.row_changes import changed
from distilbench.study.rows import MethodEntry
from distilbench.study.search_space import Sampler, rows_to_tune, space_of
from distilbench.study.sections.training import TuneSpec
from distilbench.study.study import Run
from distilbench.training.online import Company


def tune(inputs: Inputs, watch: Watch, engine: Engine = in_this_process) -> Tuning:
    """Tune the rows of a study, write the trials beside its records as they are done, and return them.

    Raises `UserError` where `dev` shares pairs with a task, or ranks nothing.
    """
    preflight(inputs)
    try_rows(inputs)
    spec, folder = _spec(inputs), inputs.settings.out / inputs.name
    before = read_design(folder).tuning
    known = _known_trials(before)
    rows = [_Row(inputs, entry) for entry in rows_to_tune(inputs.study)]
    for number in range(1, spec.trials + 1):
        for row, trial, found in _next_trials(rows, known, engine):
            write_tuning(folder, _tuning(inputs, rows, before))
            watch.trial((number, spec.trials), row.entry.label, trial, found)
    return _tuning(inputs, rows)


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


def _tuning(inputs: Inputs, rows: list[_Row], before: Tuning | None = None) -> Tuning:
    spec, source = _spec(inputs), inputs.study.dev.source if inputs.study.dev else ""
    done = [tuned for row in rows if (tuned := _with_those_ahead(row.tuned, before)).trials]
    return Tuning(spec.trials, spec.sampler, spec.seeds, source, version("optuna"), done)


def _with_those_ahead(tuned: Tuned, before: Tuning | None) -> Tuned:
    """With the row's trials that were there and are not reached yet: a kill may not lose them."""
    there = (
        [item for item in before.methods if (item.label, item.space) == (tuned.label, tuned.space)] if before else []
    )
    ahead = [trial for item in there for trial in item.trials[len(tuned.trials) :]]
    return dataclasses.replace(tuned, trials=[*tuned.trials, *ahead])


def _known_trials(tuning: Tuning | None) -> dict[tuple[str, ...], Trial]:
    """The trials beside a study's records that have a score, by their runs, whose ids hold all that decides it."""
    trials = [trial for item in tuning.methods for trial in item.trials] if tuning else []
    return {tuple(trial.runs): trial for trial in trials if trial.score is not None}


class _Row:
    """A row that is tuned, its sampler, and its trials so far."""

    def __init__(self, inputs: Inputs, entry: MethodEntry) -> None:
        spec = _spec(inputs)
        space = space_of(entry, spec)
        self.inputs, self.entry = inputs, entry
        self._sampler, self._seeds = Sampler(space, spec), spec.seeds
        described = {name: values.described() for name, values in space.items()}
        self.tuned = Tuned(entry.label, f"{entry.label}{TUNED}", described)

    def ask(self) -> _Asked:
        """The next settings to try, and the runs that try them."""
        asked, settings = self._sampler.ask()
        try:
            row = changed(self.entry, settings, f"{self.entry.label}-trial")
            own = with_methods(self.inputs, [row])
            check_methods(own)
            check_scores(own)
        except (ValueError, UserError) as error:
            return _Asked(self, asked, settings, [], f"{error}")
        cells = [Run(role="method", entry=row, seed=seed) for seed in self._seeds]
        return _Asked(self, asked, settings, [prepare_run(self.inputs, cell) for cell in cells])

    def tell(self, asked: Any, trial: Trial) -> None:
        """Note what came of settings that were asked for."""
        self._sampler.tell(asked, trial.score)
        self.tuned = dataclasses.replace(self.tuned, trials=[*self.tuned.trials, trial])


@dataclass
class _Asked:
    """Settings to try."""

    row: _Row
    asked: Any
    """What the sampler knows them by."""
    settings: dict[str, Any]
    runs: list[PreparedRun]
    refused: str | None = None
    """Why the method does not take them."""
    outcomes: dict[int, _Outcome] = field(default_factory=dict)
    """Tuning seed -> what came of its run."""

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(run.id for run in self.runs)

    def trial(self) -> Trial:
        """The trial, of which all runs are done."""
        if self.refused is not None:
            return Trial(self.settings, [], None, 0.0, self.refused)
        outcomes = [self.outcomes[run.cell.seed] for run in self.runs]
        flops = sum(outcome.flops for outcome in outcomes)
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if errors:
            return Trial(self.settings, list(self.ids), None, flops, errors[0])
        scores = [outcome.score for outcome in outcomes if outcome.score is not None]
        return Trial(self.settings, list(self.ids), sum(scores) / len(scores), flops)


@dataclass(frozen=True)
class _Outcome:
    """What came of a run of a trial."""

    cell: Run
    score: float | None
    flops: float
    error: str | None = None
    found: bool = False
    """Whether it was trained before."""


def _next_trials(
    rows: list[_Row], known: dict[tuple[str, ...], Trial], engine: Engine
) -> Iterator[tuple[_Row, Trial, bool]]:
    """One further trial of each row, as they are done, and whether it was there already."""
    waiting: dict[str, _Asked] = {}
    for asked in [row.ask() for row in rows]:
        found = known.get(asked.ids) if asked.runs else None
        if found is None and asked.runs:
            waiting[asked.runs[0].cell.entry.label] = asked
            continue
        trial = asked.trial() if found is None else found
        asked.row.tell(asked.asked, trial)
        yield asked.row, trial, found is not None
    runs = [run for asked in waiting.values() for run in asked.runs]
    if not runs:
        return
    fill_stores(runs)
    for outcome in engine(runs, lambda run, share: None, TRY):
        asked = waiting[outcome.cell.entry.label]
        asked.outcomes[outcome.cell.seed] = outcome
        if len(asked.outcomes) == len(asked.runs):
            trial = asked.trial()
            asked.row.tell(asked.asked, trial)
            yield asked.row, trial, all(item.found for item in asked.outcomes.values())


def _try(run: PreparedRun, on_progress: Callable[[float], None], company: Company) -> _Outcome | None:
    ledger, found = Ledger(), is_trained(run)
    try:
        training = training_of(run, ledger, on_progress, company, DO_NOT_WAIT)
    except Timeout:
        return None
    except UserError:
        raise
    except Exception as error:
        stop_if_disk_is_full(error)
        traceback.print_exc()
        return _Outcome(run.cell, None, 0.0, f"{type(error).__name__}: {error}")
    flops = spent(ledger, "flops")
    if training.status != "completed":
        return _Outcome(run.cell, None, flops, "a training diverged", found)
    score = _dev_score(training)
    if score is None:
        lacking = "a dev score is undefined: the student's vectors are all equal, or not finite"
        return _Outcome(run.cell, None, flops, lacking, found)
    return _Outcome(run.cell, score, flops, found=found)


def _give_up(run: PreparedRun, why: str) -> _Outcome:
    return _Outcome(run.cell, None, 0.0, why)


TRY = Job(_try, _give_up)


def _dev_score(training: Training) -> float | None:
    """The score of the weights that would ship; None where it is undefined."""
    chosen = [row for row in training.response if row.get("chosen")] or training.response[-1:]
    if not chosen:
        return None
    score: float | None = chosen[-1]["score"]
    return score
