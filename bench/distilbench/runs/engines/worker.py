"""A worker process: takes runs from its driver, one at a time, and tells how far it is and what came of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from distilbench.core.errors import UserError
from distilbench.core.libraries import log_level, logging_at, quiet_libraries
from distilbench.core.machine import Settings
from distilbench.runs.engines.engine import Job
from distilbench.runs.engines.layout import Layout, use
from distilbench.runs.prepare.inputs import make_inputs
from distilbench.runs.prepare.prepared import prepare_run
from distilbench.study.study import Run, Study
from distilbench.training.online import ALONE


@dataclass(frozen=True)
class WorkerOrder:
    """What a worker is started with."""

    study: Study
    settings: Settings
    layout: Layout
    job: Job[Any]
    log_level: int | None = field(default_factory=log_level)
    """The driver's."""


def work(order: WorkerOrder, driver: Connection) -> None:
    """Execute the runs that come in. Answers each with shares from 0 to 1, then with what the job gave.

    A `UserError`, which ends the study, is answered as it is.
    """
    # The driver hears the terminal's Ctrl-C too, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    with logging_at(order.log_level):
        _serve(order, driver)


def _serve(order: WorkerOrder, driver: Connection) -> None:
    quiet_libraries()
    use(order.layout)
    inputs = make_inputs(order.study, order.settings)
    while True:
        run: Run = driver.recv()
        try:
            driver.send(0.0)
            driver.send(order.job.do(prepare_run(inputs, run), driver.send, ALONE))
        except UserError as error:
            driver.send(error)


def _end_with_the_driver() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # A run that is cut off goes on from its checkpoint, under whoever takes it up.
        os._exit(1)
