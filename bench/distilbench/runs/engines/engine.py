"""What an engine is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from distilbench.runs.prepare.prepared import PreparedRun
from distilbench.study.study import Run
from distilbench.training.online import Company

OnProgress = Callable[[Run, float], None]
"""Told of the share of a run that is done: 0 when it begins."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Job(Generic[Answer]):
    """What is done with each run. Both functions are of a module, since they are pickled, as their answers are."""

    do: Callable[[PreparedRun, Callable[[float], None], Company], Answer | None]
    """What came of a run, which may be trained in company; None while another process is working on it.

    Raises `UserError` for what ends the whole study.
    """
    give_up: Callable[[PreparedRun, str], Answer]
    """What came of a run whose process ended without a word, time and again; the text says so."""


class Engine(Protocol):
    """Does a job for runs of equal inputs, at least one, and yields each answer as it comes, in any order.

    Runs that another process is working on are left to it, and waited for.
    """

    def __call__(self, runs: list[PreparedRun], on_progress: OnProgress, job: Job[Answer]) -> Iterator[Answer]: ...
