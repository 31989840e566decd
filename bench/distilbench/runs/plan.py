"""What a study would do: its runs, what is there already, and what the rest may cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from distilbench.evaluation.tasks.profiles import PROFILES, expand
from distilbench.runs.cost import TYPICAL_TOKENS, flops_per_second, makespan, training_flops
from distilbench.runs.engines import Layout
from distilbench.runs.preflight import check_methods
from distilbench.runs.run import known_record
from distilbench.runs.trained import is_trained
from distilbench.runs.workbench import Workbench
from distilbench.study.search_space import rows_to_tune, space_of
from distilbench.study.study import Run, Study, runs_of
from distilbench.training.teacher_store import store_size, stored_rows


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan."""

    run: Run
    run_id: str
    state: str
    """recorded, trained (weights in the cache, to be scored), or to do."""
    budget: str
    student_flops: float | None
    """Estimated; None for runs that do not train."""
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """A study's runs, with what is cached."""

    runs: list[PlannedRun]
    text: str
    signals: str
    estimates: dict[str, tuple[Layout, float]]
    """Seconds of training that are left, for each way to run it."""


def make_plan(bench: Workbench, layouts: dict[str, Layout]) -> Plan:
    """Look at the caches and estimate the rest. Trains nothing, and writes nothing but what of a cached text has to go.

    Raises `UserError` for methods that do not fit the models and for tasks that are not there, as the run would.
    """
    check_methods(bench)
    _check_tasks(bench)
    built = bench.text_is_built
    tokens = float(bench.corpus.lengths().mean()) if built else TYPICAL_TOKENS
    rate = flops_per_second(bench)
    runs = [_planned(bench, run, tokens, rate) for run in runs_of(bench.study)]
    text = f"{len(bench.corpus)} sentences, tokenised" if built else "not tokenised yet"
    signals = _signals(bench) if built else "not stored yet"
    to_do = [item.student_flops or 0.0 for item in runs if item.state == "to do"]
    estimates = {name: (layout, _seconds(bench, to_do, layout)) for name, layout in layouts.items()}
    return Plan(runs, text, signals, estimates)


def _signals(bench: Workbench) -> str:
    arrays, kind = bench.store_arrays, bench.study.train.signals
    if not arrays:
        return "none are stored"
    size = store_size(bench.teacher, arrays, len(bench.corpus), kind)
    return f"{stored_rows(bench.store_folder, arrays)} sentences in the store ({size / 1e6:.3g} MB for all, in {kind})"


def _seconds(bench: Workbench, flops: list[float], layout: Layout) -> float:
    """Seconds that trainings of so many FLOPs take, at the speed of one of them with its share of the threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(layout.threads)
    rate = flops_per_second(bench)
    torch.set_num_threads(before)
    # Runs that share a GPU share its speed too.
    slots = layout.jobs if bench.settings.device == "cpu" else max(1, len(layout.devices))
    return makespan(flops, min(slots, layout.jobs)) / rate


def planned_tuning(study: Study) -> str:
    """What a study's tuning would train, in words; which trials are there already is found when it runs."""
    if study.tune is None:
        return ""
    rows = rows_to_tune(study)
    trials, seeds = study.tune.trials, len(study.tune.seeds)
    count = f"{len(rows)} rows x {trials} trials x {seeds} seed{'s' if seeds > 1 else ''}"
    spaces = "; ".join(f"{entry.label}: {', '.join(space_of(entry))}" for entry in rows)
    return (
        f"before these, tuning: {count} = {len(rows) * trials * seeds} trainings by {study.tune.sampler} points "
        f"({spaces}); after these, {len(rows)} tuned rows x {len(study.seeds)} seeds"
    )


def _check_tasks(bench: Workbench) -> None:
    # The names of a profile are right: tasks are loaded, which takes time, to check others only.
    if not set(expand(bench.study.tasks)) <= {name for names in PROFILES.values() for name in names}:
        bench.tasks  # noqa: B018


def _planned(bench: Workbench, run: Run, tokens: float, rate: float) -> PlannedRun:
    run_id = bench.run_id(run)
    if run.role != "method":
        return PlannedRun(run, run_id, _state(bench, run), "-", None, None)
    flops = training_flops(bench, run, tokens, rate)
    budget = f"{bench.budget.amount:g} {bench.budget.currency}"
    return PlannedRun(run, run_id, _state(bench, run), budget, flops, flops / rate)


def _state(bench: Workbench, run: Run) -> str:
    if known_record(bench, run) is not None:
        return "recorded"
    return "trained" if is_trained(bench, run) else "to do"
