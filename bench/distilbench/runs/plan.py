"""What a study would do: its runs, what is there already, and what the rest may cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial

import torch

from distilbench.core.machine import Settings
from distilbench.evaluation.tasks.profiles import PROFILES, expand
from distilbench.runs.cost import TYPICAL_TOKENS, flops_per_second, makespan, training_flops
from distilbench.runs.engines import EngineOptions, Layout, layouts_of
from distilbench.runs.prepare.inputs import Inputs, inputs_of_parts
from distilbench.runs.prepare.preflight import check_methods
from distilbench.runs.prepare.prepared import PreparedRun, prepare
from distilbench.runs.prepare.texts import Announce
from distilbench.runs.recording import known_record
from distilbench.runs.trackers.tracking import check_trackers
from distilbench.runs.trained import is_trained, ledger_so_far
from distilbench.runs.trial import try_rows
from distilbench.study.ablation import parts
from distilbench.study.search_space import rows_to_tune, space_of
from distilbench.study.study import Run, Study

RECORDED, TRAINED, TO_DO = "recorded", "trained", "to do"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan."""

    run: Run
    run_id: str
    state: str
    """recorded; trained (weights in the cache, to be scored); at step N (of a checkpoint, from which it goes on); or
    to do."""
    budget: str
    student_flops: float | None
    """Estimated, of the whole training; None for runs that do not train."""
    seconds: float | None
    """Estimated, of the training that is left."""
    flops_left: float = 0.0
    """Estimated, of the training that is left."""

    @property
    def is_open(self) -> bool:
        """Whether it is still to be trained, or to be trained on."""
        return self.state not in (RECORDED, TRAINED)


@dataclass(frozen=True)
class Plan:
    """The runs of one part of a study, with what is cached."""

    study: str
    runs: list[PlannedRun]
    text: str
    signals: str
    device: str
    estimates: dict[str, tuple[Layout, float]]
    """Seconds of training that are left, for each way to run it."""


def plan_study(study: Study, settings: Settings, options: EngineOptions, announce: Announce) -> list[Plan]:
    """A plan for each part of a study."""
    check_trackers(settings)
    layouts = layouts_of(options, settings.device)
    return [make_plan(inputs, layouts) for inputs in inputs_of_parts(parts(study), settings, announce)]


def make_plan(inputs: Inputs, layouts: dict[str, Layout]) -> Plan:
    """Look at the caches, try each row for a step, and estimate the rest. Trains nothing that is kept.

    Raises `UserError` for methods that do not fit the models and for tasks that are not there, as the run would.
    """
    check_methods(inputs)
    _check_tasks(inputs)
    try_rows(inputs, keep=False)
    text = inputs.text
    tokens = float(text.corpus.lengths().mean()) if text.is_built else TYPICAL_TOKENS
    # Each of these trains for some steps, and ways to run often have equally many threads.
    rate_of = cache(partial(_rate, inputs))
    rate = rate_of(torch.get_num_threads())
    (prepared,) = prepare([inputs])
    runs = [_planned(run, tokens, rate) for run in prepared]
    to_do = [item.flops_left for item in runs if item.is_open]
    return Plan(
        study=inputs.study.name,
        runs=runs,
        text=f"{len(text.corpus)} sentences, tokenised" if text.is_built else "not tokenised yet",
        signals=_signals(prepared) if text.is_built else "not stored yet",
        device=inputs.settings.device,
        estimates={
            name: (layout, _seconds(inputs, to_do, layout, rate_of(layout.threads))) for name, layout in layouts.items()
        },
    )


def _signals(runs: list[PreparedRun]) -> str:
    inputs, kind = runs[0].inputs, runs[0].inputs.study.train.signals
    stages = [stage for run in runs for stage in run.stages if not stage.needs.candidates and stage.arrays]
    if not stages:
        return "none are stored"
    arrays = stages[0].arrays
    size = inputs.stores.size(arrays, len(inputs.text.corpus), kind)
    rows = inputs.stores.rows_there(inputs.text, arrays, kind)
    return f"{rows} sentences in the store ({size / 1e6:.3g} MB for all, in {kind})"


def _rate(inputs: Inputs, threads: int) -> float:
    """FLOPs a second of one training with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return flops_per_second(inputs)
    finally:
        torch.set_num_threads(before)


def _seconds(inputs: Inputs, flops: list[float], layout: Layout, rate: float) -> float:
    """Seconds that trainings of so many FLOPs take; `rate` is that of one of them with its share of the threads."""
    # Runs that share a GPU share its speed too.
    slots = layout.jobs if inputs.settings.device == "cpu" else max(1, len(layout.devices))
    return makespan(flops, min(slots, layout.jobs)) / rate


def planned_tuning(study: Study) -> str:
    """What a study's tuning would train, in words; which trials are there already is found when it runs."""
    if study.tune is None:
        return ""
    rows = rows_to_tune(study)
    trials, seeds = study.tune.trials, len(study.tune.seeds)
    count = f"{len(rows)} rows x {trials} trials x {seeds} seed{'s' if seeds > 1 else ''}"
    spaces = "; ".join(f"{entry.label}: {', '.join(space_of(entry, study.tune))}" for entry in rows)
    return (
        f"before these, tuning: {count} = {len(rows) * trials * seeds} trainings by {study.tune.sampler} points "
        f"({spaces}); after these, {len(rows)} tuned rows x {len(study.seeds)} seeds"
    )


def _check_tasks(inputs: Inputs) -> None:
    # The names of a profile are right: tasks are loaded, which takes time, to check others only.
    if not set(expand(inputs.study.tasks)) <= {name for names in PROFILES.values() for name in names}:
        inputs.tasks()


def _planned(run: PreparedRun, tokens: float, rate: float) -> PlannedRun:
    if run.cell.role != "method":
        return PlannedRun(run.cell, run.id, _state(run)[0], "-", None, None)
    flops, budget = training_flops(run, tokens, rate), run.inputs.budget
    state, done = _state(run)
    left = flops * (1 - done)
    return PlannedRun(run.cell, run.id, state, f"{budget.amount:g} {budget.currency}", flops, left / rate, left)


def _state(run: PreparedRun) -> tuple[str, float]:
    """A run's state, and the share of its training that is done."""
    if known_record(run) is not None:
        return RECORDED, 1.0
    if is_trained(run):
        return TRAINED, 1.0
    ledger = ledger_so_far(run)
    if ledger is None:
        return TO_DO, 0.0
    return f"at step {ledger.steps}", min(1.0, run.inputs.budget.progress(ledger))
