"""What a study would do: its runs, what is there already, and what the rest may cost."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from bench.budget import synchronize
from bench.evaluation.profiles import PROFILES, expand
from bench.run import known_record
from bench.store import stored_rows
from bench.study import Run, Stage, runs_of
from bench.trained import is_trained
from bench.workbench import Workbench
from methods.base import Needs

PROBE_TOKENS = 32
PROBE_STEPS = 3
TYPICAL_TOKENS = 24
"""Tokens per sentence that the estimate assumes while the text is not tokenised yet."""


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


def make_plan(bench: Workbench) -> Plan:
    """Look at the caches and estimate the rest. Trains nothing, and writes nothing but what of a cached text has to go.

    Raises `UserError` for methods that do not fit the models and for tasks that are not there, as the run would.
    """
    bench.check_methods()
    _check_tasks(bench)
    built = bench.text_is_built
    tokens = float(bench.corpus.lengths().mean()) if built else TYPICAL_TOKENS
    rate = _flops_per_second(bench)
    runs = [_planned(bench, run, tokens, rate) for run in runs_of(bench.study)]
    text = f"{len(bench.corpus)} sentences, tokenised" if built else "not tokenised yet"
    rows = stored_rows(bench.store_folder, bench.store_arrays) if built else 0
    return Plan(runs, text, f"{rows} sentences in the store")


def _check_tasks(bench: Workbench) -> None:
    # The names of a profile are right: tasks are loaded, which takes time, to check others only.
    if not set(expand(bench.study.tasks)) <= {name for names in PROFILES.values() for name in names}:
        bench.tasks  # noqa: B018


def _planned(bench: Workbench, run: Run, tokens: float, rate: float) -> PlannedRun:
    run_id = bench.run_id(run)
    if run.role != "method":
        return PlannedRun(run, run_id, _state(bench, run), "-", None, None)
    flops = _estimated_flops(bench, run, tokens, rate)
    budget = f"{bench.budget.amount:g} {bench.budget.currency}"
    return PlannedRun(run, run_id, _state(bench, run), budget, flops, flops / rate)


def _state(bench: Workbench, run: Run) -> str:
    if known_record(bench, run) is not None:
        return "recorded"
    return "trained" if is_trained(bench, run) else "to do"


def _estimated_flops(bench: Workbench, run: Run, tokens: float, rate: float) -> float:
    """FLOPs of the whole budget, from those of one typical step of each stage."""
    return sum(
        _stage_flops(bench, stage, needs, tokens, rate) * stage.share for stage, needs in bench.stages(run.entry)
    )


def _stage_flops(bench: Workbench, stage: Stage, needs: Needs, tokens: float, rate: float) -> float:
    """FLOPs of a whole budget spent on one stage."""
    batch_size, length = bench.study.train.batch_size, round(tokens)
    passes = batch_size * (needs.student_views + needs.masked_tokens + needs.candidates)
    step = 3 * bench.untrained.forward_flops(passes, length)
    step += stage.build().extra_flops(bench.dims, batch_size, length)
    if needs.teacher_online:
        step += bench.teacher.forward_flops(batch_size, length)
    amount, sentences = bench.budget.amount, batch_size * (1 + needs.candidates)
    steps = {
        "steps": amount,
        "sentences": amount / sentences,
        "tokens": amount / (sentences * tokens),
        "flops": amount / step,
        "seconds": amount * rate / step,
    }
    return step * steps[bench.budget.currency]


def _flops_per_second(bench: Workbench) -> float:
    """Measured on a few forward and backward passes of the study's own student."""
    student = bench.student(bench.study.seeds[0]).train()
    shape = (bench.study.train.batch_size, PROBE_TOKENS)
    ids = torch.ones(shape, dtype=torch.long, device=bench.settings.device)
    for step in range(PROBE_STEPS + 1):
        if step == 1:
            synchronize()
            start = time.perf_counter()
        student(ids, torch.ones_like(ids)).final.square().sum().backward()
    synchronize()
    elapsed = time.perf_counter() - start
    return PROBE_STEPS * 3 * student.forward_flops(*shape) / elapsed
