"""Worker processes on this machine, each with its share of the cores, or of a GPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import cast

from distilbench.core.errors import UserError
from distilbench.runs.cost import longest_first
from distilbench.runs.engines.backlog import MOST_LOSSES, POLL_SECONDS, Backlog
from distilbench.runs.engines.engine import Answer, Job, OnProgress
from distilbench.runs.engines.layout import Layout
from distilbench.runs.engines.worker import WorkerOrder, work
from distilbench.runs.prepare.prepared import PreparedRun

PATIENCE_SECONDS = 5.0
"""How long a worker may take to end when told to."""
PRELOADED = ("distilbench.runs.engines.worker", "distilbench.evaluation.score")


class Workers:
    """An engine: runs are begun longest first, each by the worker that is free first.

    A worker that dies is replaced, and its run begun again, from its checkpoint.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def __call__(self, runs: list[PreparedRun], on_progress: OnProgress, job: Job[Answer]) -> Iterator[Answer]:
        backlog = Backlog(longest_first(runs), runs[0].inputs.announce)
        order = WorkerOrder(runs[0].inputs.study, runs[0].inputs.settings, self.layout, job)
        workers = [_Worker(order, number) for number in range(min(self.layout.jobs, len(runs)))]
        try:
            while backlog:
                _hand_out(backlog, workers)
                busy = {worker.pipe: worker for worker in workers if worker.run is not None}
                for pipe in wait(list(busy), POLL_SECONDS / 4):
                    answer = _hear(backlog, busy[cast(Connection, pipe)], on_progress, job)
                    if answer is not None:
                        yield answer
        finally:
            for worker in workers:
                worker.stop()


class _Worker:
    """A worker process, started when it is first needed, and the run that it is working on."""

    def __init__(self, order: WorkerOrder, number: int) -> None:
        self._order, self._number = order, number
        self._process: BaseProcess | None = None
        self.pipe: Connection
        self.run: PreparedRun | None = None

    def begin(self, run: PreparedRun) -> None:
        if self._process is not None and not self._process.is_alive():
            self.stop()
        if self._process is None:
            self._start()
        self.run = run
        # One that has just died is noticed when its answer is read.
        with suppress(OSError):
            self.pipe.send(run.cell)

    def _start(self) -> None:
        context = _context(self._order.settings.device)
        self.pipe, theirs = context.Pipe()
        process = context.Process(target=work, args=(self._order, theirs), daemon=True)
        with _inherited(self._order.layout.environment(self._number)), _without_main():
            process.start()
        self._process = process
        # With this end closed, the pipe ends when the worker does.
        theirs.close()

    def stop(self) -> int | None:
        """End the process at once; its exit code."""
        if self._process is None:
            return None
        self._process.terminate()
        self._process.join(PATIENCE_SECONDS)
        self._process.kill()
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        self.pipe.close()
        self._process, self.run = None, None
        return code


def _hand_out(backlog: Backlog, workers: list[_Worker]) -> None:
    for worker in workers:
        if worker.run is None and (run := backlog.take()) is not None:
            worker.begin(run)


def _hear(backlog: Backlog, worker: _Worker, on_progress: OnProgress, job: Job[Answer]) -> Answer | None:
    """One message of a worker; what came of its run if it was that."""
    run = worker.run
    assert run is not None
    try:
        message = worker.pipe.recv()
    except (EOFError, OSError):
        return _bury(backlog, worker, run, job)
    if isinstance(message, UserError):
        raise message
    if isinstance(message, float):
        on_progress(run.cell, message)
        return None
    worker.run = None
    if message is None:
        backlog.elsewhere(run)
        return None
    backlog.done(run)
    answer: Answer = message
    return answer


def _bury(backlog: Backlog, worker: _Worker, run: PreparedRun, job: Job[Answer]) -> Answer | None:
    code = worker.stop()
    if backlog.lost(run):
        run.inputs.announce(f"the process of {run.name} ended (exit code {code}); it is begun again")
        return None
    backlog.done(run)
    return job.give_up(run, f"its process ended {MOST_LOSSES} times without a word, last with exit code {code}")


def _context(device: str) -> SpawnContext | ForkServerContext:
    """How workers are started: each by itself, or on CPUs from one process that has loaded everything once.

    That takes a fraction of the time; what drives an accelerator may not survive a fork.
    """
    if device != "cpu" or sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(PRELOADED))
    return server


@contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not import the user's script, which may not be made for that."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _inherited(environment: dict[str, str]) -> Iterator[None]:
    """Start processes with more in their environment, and deaf to Ctrl-C from their first moment on."""
    before = {name: os.environ.get(name) for name in environment}
    with _deaf_to_interrupts():
        os.environ.update(environment)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that are started within do not hear Ctrl-C; on Windows they do until they say otherwise."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
