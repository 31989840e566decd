"""What a tracker is told of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SHOWN_OF_ID = 8


@dataclass(frozen=True)
class TrackedRun:
    """What is known of a run when it begins."""

    id: str
    study: str
    label: str
    seed: int
    settings: Mapping[str, str | int | float]
    folder: Path
    """Where trackers keep their files, unless their own environment variables say otherwise."""

    @property
    def name(self) -> str:
        """Equal for a run that goes on, and another one where its settings differ."""
        return f"{self.label}-seed{self.seed}-{self.id[:SHOWN_OF_ID]}"


class Tracker(Protocol):
    """One run's place in a tracking library. It is opened afresh for a run that goes on, which tells it all rows again:
    what it held of that run is replaced.
    """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers after so many steps. They may be NaN or infinite."""

    def finish(self) -> None:
        """The run has ended: write what is buffered."""
