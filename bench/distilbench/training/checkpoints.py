"""Where a training stands, kept on disk, so that one that was killed goes on and ends as if nothing had happened.

checkpoints/<run_id>/tensors.safetensors   weights, optimiser, banks, random state
                     facts.json            everything else
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distilbench.core.cache import fault, is_usable, put
from distilbench.core.sealed import clear_up

TENSORS_FILE, FACTS_FILE = "tensors.safetensors", "facts.json"
FORMAT = 1
"""Raised when snapshots of earlier versions cannot be gone on from."""
MOST_COST = 0.02
"""Share of a run's time that may go into checkpoints."""


@dataclass(frozen=True)
class Snapshot:
    """One moment of a training."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    """JSON values; numbers that are not finite are allowed."""

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix.`, under the rest of their names."""
        return {name.removeprefix(f"{prefix}."): t for name, t in self.tensors.items() if name.startswith(f"{prefix}.")}


def tensors_of(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's parameters and buffers, named for a snapshot."""
    return {f"{prefix}.{name}": value.detach().clone() for name, value in module.state_dict().items()}


class Checkpoints:
    """The last snapshot of one run."""

    def __init__(self, folder: Path, least_seconds: float) -> None:
        """`folder` is named by the run's id. `least_seconds` is the time between snapshots; 0 takes one after every
        step, whatever it costs.
        """
        self._folder, self._least = folder, least_seconds
        self.context: dict[str, Any] = {}
        """JSON values that every snapshot holds beside its own."""
        self._spent = self._cost = 0.0
        self._start = self._last = time.perf_counter()

    def load(self) -> Snapshot | None:
        """The last snapshot; None where there is none, or it is damaged or another run's: this one then begins anew."""
        clear_up(self._folder)
        if not is_usable(self._folder, "the checkpoint"):
            return None
        facts = self._facts()
        return None if facts is None else Snapshot(load_file(self._folder / TENSORS_FILE), facts)

    def peek(self) -> dict[str, Any] | None:
        """The facts of the snapshot that `load` would give, without its tensors. Clears nothing up."""
        return self._facts() if fault(self._folder) is None else None

    def _facts(self) -> dict[str, Any] | None:
        facts: dict[str, Any] = json.loads((self._folder / FACTS_FILE).read_text(encoding="utf-8"))
        return facts if facts["format"] == FORMAT else None

    def due(self, side_by_side: int = 1) -> bool:
        """Whether it is time for a snapshot: with one as dear as the last, all stay a small share of the time.

        `side_by_side` is the number of trainings that this time goes to.
        """
        if not self._least:
            return True
        now = time.perf_counter()
        own = (now - self._start) / side_by_side
        return now - self._last >= self._least and self._spent + self._cost <= MOST_COST * own

    def save(self, take: Callable[[], Snapshot]) -> None:
        """Replace the last snapshot by one taken now."""
        start = time.perf_counter()
        snapshot = take()

        def write(folder: Path) -> None:
            save_file({name: tensor.contiguous() for name, tensor in snapshot.tensors.items()}, folder / TENSORS_FILE)
            facts = {**snapshot.facts, "context": self.context, "format": FORMAT}
            (folder / FACTS_FILE).write_text(json.dumps(facts), encoding="utf-8")

        put(self._folder, write)
        self._last = time.perf_counter()
        self._cost = self._last - start
        self._spent += self._cost

    def drop(self) -> None:
        """Forget it: the run is complete."""
        shutil.rmtree(self._folder, ignore_errors=True)
