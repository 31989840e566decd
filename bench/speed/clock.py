"""Contestants run in turns, so that a machine that slows down slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from distilbench.study.budget import synchronize

Work = Callable[[], Any]
Contestant = Callable[[int], Work]
"""Makes ready for a round, by its number from 0, outside of the clock, and returns what is timed."""


@dataclass(frozen=True)
class Seconds:
    """What one piece of work took."""

    wall: float
    cpu: float
    """Of this process, all its threads together."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one contestant is as another, over rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Ratio:
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True)
class Race:
    """Times of all rounds, and what each contestant's work gave."""

    seconds: dict[str, list[Seconds]]
    gave: dict[str, list[Any]]

    def ratio(self, one: str, other: str, clock: str = "wall") -> Ratio:
        """How many times as fast `one` is as `other`, round by round."""
        pairs = zip(self.seconds[one], self.seconds[other], strict=True)
        return Ratio.of([getattr(slow, clock) / getattr(fast, clock) for fast, slow in pairs])

    def median(self, name: str, clock: str = "wall") -> float:
        return float(median(getattr(item, clock) for item in self.seconds[name]))


def timed(work: Work) -> tuple[Seconds, Any]:
    """Do some work; how long it took, with what was handed to an accelerator, and what it gave."""
    synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    gave = work()
    synchronize()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu), gave


def race(contestants: Mapping[str, Contestant], rounds: int) -> Race:
    """Time every contestant once in each round; who begins changes from round to round."""
    names = list(contestants)
    seconds: dict[str, list[Seconds]] = {name: [] for name in names}
    gave: dict[str, list[Any]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            took, given = timed(contestants[name](number))
            seconds[name].append(took)
            gave[name].append(given)
    return Race(seconds, gave)
