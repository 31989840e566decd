"""trackio: kept on this machine (TRACKIO_DIR), or in a Space (TRACKIO_SPACE_ID)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from contextvars import copy_context

from distilbench.runs.trackers.tracker import TrackedRun


class ToTrackio:
    """A tracker."""

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        # Of a project that is not there yet, the list of runs is an error.
        with suppress(Exception):
            for before in trackio.Api().runs(run.study):
                if before.name == run.name:
                    before.delete()

        def begin() -> object:
            return trackio.init(
                run.study,
                name=run.name,
                group=run.label,
                config=dict(run.settings),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

        # In a context of its own: it ends whatever run was begun before in the same one.
        self._context = copy_context()
        self._run = self._context.run(begin)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)  # type: ignore[attr-defined]

    def finish(self) -> None:
        self._context.run(self._run.finish)  # type: ignore[attr-defined]
