"""The runs that are left, and which of them is next."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from distilbench.runs.prepare.prepared import PreparedRun
from distilbench.runs.prepare.texts import Announce

POLL_SECONDS = 1.0
"""How long a run is left alone that another process is working on."""
MOST_LOSSES = 3
"""Processes that a run may take down with it before it counts as failed."""


class Backlog:
    """Runs in the order in which they are to begin. One that was handed out is left until it is done."""

    def __init__(self, runs: list[PreparedRun], announce: Announce) -> None:
        self._waiting: list[tuple[float, PreparedRun]] = [(0.0, run) for run in runs]
        self._announce = announce
        self._left = len(runs)
        self._losses = Counter[str]()
        self._elsewhere: set[str] = set()
        self._announced = False

    def __bool__(self) -> bool:
        """Whether some run is not done."""
        return self._left > 0

    def take(self, wanted: Callable[[PreparedRun], bool] = lambda _: True) -> PreparedRun | None:
        """The next run, or the next of those that are wanted; None when there is none at the moment."""
        for place, (due, run) in enumerate(self._waiting):
            if due <= time.monotonic() and wanted(run):
                del self._waiting[place]
                return run
        return None

    def done(self, run: PreparedRun) -> None:
        self._left -= 1
        self._elsewhere.discard(run.id)

    def elsewhere(self, run: PreparedRun) -> None:
        """Try a run again later: another process is working on it."""
        self._elsewhere.add(run.id)
        self._waiting.append((time.monotonic() + POLL_SECONDS, run))
        if len(self._elsewhere) == self._left and not self._announced:
            self._announced = True
            self._announce(f"waiting for {self._left} runs that another process is working on")

    def lost(self, run: PreparedRun) -> bool:
        """Try a run again whose process ended without a word; False if that happened too often."""
        self._losses[run.id] += 1
        again = self._losses[run.id] < MOST_LOSSES
        if again:
            self._waiting.insert(0, (0.0, run))
        return again
