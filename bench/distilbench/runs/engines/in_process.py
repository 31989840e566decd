"""Runs in this process: one after the other, and side by side those that can share the teacher's passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from distilbench.runs.engines.backlog import POLL_SECONDS, Backlog
from distilbench.runs.engines.engine import Answer, Job, OnProgress
from distilbench.runs.prepare.prepared import PreparedRun
from distilbench.training.lock_step import LockStep
from distilbench.training.online import ALONE

MOST_SIDE_BY_SIDE = 8
"""Each has a student, an optimiser and heads in memory."""


def in_this_process(runs: list[PreparedRun], on_progress: OnProgress, job: Job[Answer]) -> Iterator[Answer]:
    """Execute runs in the study's order: one that is cut short then holds complete seeds."""
    backlog = Backlog(runs, runs[0].inputs.announce)
    while backlog:
        run = backlog.take()
        if run is None:
            time.sleep(POLL_SECONDS / 4)
            continue
        for done, answer in _do([run, *_companions(run, backlog)], on_progress, job):
            if answer is None:
                backlog.elsewhere(done)
            else:
                backlog.done(done)
                yield answer


def _companions(run: PreparedRun, backlog: Backlog) -> Iterator[PreparedRun]:
    """Further runs whose methods make the teacher pass over the same batches."""
    if not run.asks_online:
        return
    for _ in range(MOST_SIDE_BY_SIDE - 1):
        other = backlog.take(lambda other: other.cell.seed == run.cell.seed and other.asks_online)
        if other is None:
            return
        yield other


def _do(
    runs: list[PreparedRun], on_progress: OnProgress, job: Job[Answer]
) -> Iterator[tuple[PreparedRun, Answer | None]]:
    if len(runs) == 1:
        yield runs[0], job.do(runs[0], partial(on_progress, runs[0].cell), ALONE)
        return
    lock_step = LockStep([run.stages[0].needs for run in runs])
    yield from lock_step.run(runs, lambda run: job.do(run, partial(on_progress, run.cell), lock_step))
