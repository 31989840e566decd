"""Weights & Biases: kept on this machine for `wandb sync`, unless WANDB_MODE asks for more."""

from __future__ import annotations

import os
from collections.abc import Mapping

from distilbench.runs.trackers.tracker import TrackedRun


class ToWandb:
    """A tracker."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        run.folder.mkdir(parents=True, exist_ok=True)
        # Without a mode it would ask for a key, or wait for a network. Runs in lock-step are open at the same time.
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", run.study),
            id=run.id,
            name=run.name,
            group=run.label,
            config=dict(run.settings),
            dir=str(run.folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def finish(self) -> None:
        self._run.finish()
