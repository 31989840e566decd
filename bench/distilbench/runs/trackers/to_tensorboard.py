"""TensorBoard: event files in a folder for each run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from distilbench.core.escape import escape_markdown
from distilbench.runs.trackers.tracker import TrackedRun

FLUSH_SECONDS = 10


class ToTensorboard:
    """A tracker."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / run.study / run.name
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(folder, flush_secs=FLUSH_SECONDS)
        rows = "\n".join(f"| {escape_markdown(k)} | {escape_markdown(str(v))} |" for k, v in run.settings.items())
        self._writer.add_text("settings", f"| | |\n|---|---|\n{rows}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()
