"""The budget is a contract: one currency binds, all are measured, and progress through it drives every schedule."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.study import BudgetSpec

Phase = Literal["setup", "data", "teacher", "train", "evaluation"]
CHARGED_PHASES: tuple[Phase, ...] = ("data", "train")
"""Phases that the currency `seconds` counts. The teacher's store is filled once for all runs and stands apart."""


@dataclass
class Ledger:
    """What one run spent, in every currency."""

    steps: int = 0
    sentences: int = 0
    """Sentences drawn from the text, counted once however many views a method takes of them."""
    tokens: int = 0
    """Real tokens of those sentences, padding not counted."""
    epochs: float = 0.0
    student_passes: int = 0
    """Sentences that went through the student; two for each sentence when a method takes two views."""
    student_flops: float = 0.0
    """Student forward and backward, and the method's own products. Padding is computed, so it is counted."""
    teacher_sentences_stored: int = 0
    """Sentences whose teacher signals were read from the store."""
    teacher_sentences_online: int = 0
    """Sentences for which the method made the teacher run."""
    teacher_flops_stored: float = 0.0
    """What the signals read from the store would have cost this run alone."""
    teacher_flops_online: float = 0.0
    extra_parameters: int = 0
    """Trainable parameters of the method that are dropped at export."""
    state_bytes: int = 0
    """Bytes of the method's buffers (banks, queues)."""
    peak_memory_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """By phase: setup, data, teacher (filling the store), train, evaluation."""

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Add the time spent inside to a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def spent(self, currency: str) -> float:
        """How much of one currency is gone. Teacher passes that a method asks for online count as its FLOPs."""
        if currency == "seconds":
            return sum(self.seconds.get(phase, 0.0) for phase in CHARGED_PHASES)
        if currency == "flops":
            return self.student_flops + self.teacher_flops_online
        return float(getattr(self, currency))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Budget:
    """An amount of one currency. A run stops at the first step boundary at which nothing is left."""

    currency: str
    amount: float

    @classmethod
    def of(cls, spec: BudgetSpec, limit: int | None = None) -> Budget:
        """The study's budget, cut to `limit` sentences for a smoke run."""
        if limit is None:
            return cls(spec.currency, spec.amount)
        return cls("sentences", limit if spec.currency != "sentences" else min(limit, spec.amount))

    def progress(self, ledger: Ledger) -> float:
        """Share of the budget that is spent, 1 or more when it is exhausted."""
        return ledger.spent(self.currency) / self.amount


def reset_peak_memory() -> None:
    """Start counting this process's peak memory anew, where the system allows it (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_bytes() -> int:
    """Peak resident memory of this process since the last reset (Linux), else since its start."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
