"""One run after the other, in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from bench.engines.backlog import POLL_SECONDS, Backlog
from bench.run import Finished, OnProgress, finish_run
from bench.study import Run
from bench.workbench import Workbench


def in_this_process(bench: Workbench, runs: list[Run], on_progress: OnProgress) -> Iterator[Finished]:
    """Execute runs in the study's order: one that is cut short then holds complete seeds."""
    backlog = Backlog(runs, bench.announce)
    while backlog:
        run = backlog.take()
        if run is None:
            time.sleep(POLL_SECONDS / 4)
            continue
        finished = finish_run(bench, run, partial(on_progress, run))
        if finished is None:
            backlog.elsewhere(run)
        else:
            backlog.done(run)
            yield finished
