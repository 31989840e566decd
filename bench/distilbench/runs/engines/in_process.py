"""Runs in this process: one after the other, and side by side those that can share the teacher's passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from distilbench.runs.engines.backlog import POLL_SECONDS, Backlog
from distilbench.runs.run import Finished, OnProgress, finish_run
from distilbench.runs.workbench import Workbench
from distilbench.study.study import Run
from distilbench.training.lock_step import LockStep
from distilbench.training.online import ALONE

MOST_SIDE_BY_SIDE = 8
"""Each has a student, an optimiser and heads in memory."""


def in_this_process(bench: Workbench, runs: list[Run], on_progress: OnProgress) -> Iterator[Finished]:
    """Execute runs in the study's order: one that is cut short then holds complete seeds."""
    backlog = Backlog(runs, bench.announce)
    while backlog:
        run = backlog.take()
        if run is None:
            time.sleep(POLL_SECONDS / 4)
            continue
        for done, finished in _finish(bench, [run, *_companions(bench, run, backlog)], on_progress):
            if finished is None:
                backlog.elsewhere(done)
            else:
                backlog.done(done)
                yield finished


def _companions(bench: Workbench, run: Run, backlog: Backlog) -> Iterator[Run]:
    """Further runs whose methods make the teacher pass over the same batches."""
    if not _asks_online(bench, run):
        return
    for _ in range(MOST_SIDE_BY_SIDE - 1):
        other = backlog.take(lambda other: other.seed == run.seed and _asks_online(bench, other))
        if other is None:
            return
        yield other


def _asks_online(bench: Workbench, run: Run) -> bool:
    """Whether the teacher runs on every batch; not said of recipes, nor where the clock decides when training ends."""
    stages = bench.stages(run.entry)
    return bench.budget.currency != "seconds" and len(stages) == 1 and stages[0][1].teacher_online


def _finish(bench: Workbench, runs: list[Run], on_progress: OnProgress) -> Iterator[tuple[Run, Finished | None]]:
    def finish(run: Run) -> Finished | None:
        return finish_run(bench, run, partial(on_progress, run))

    if len(runs) == 1:
        yield runs[0], finish(runs[0])
        return
    lock_step = LockStep([bench.stages(run.entry)[0][1] for run in runs])
    bench.company = lock_step
    try:
        yield from lock_step.run(runs, finish)
    finally:
        bench.company = ALONE
