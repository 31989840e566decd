"""The budget is a contract: one currency binds, all are measured, and progress through it drives every schedule."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distilbench.study.sections.training import BudgetSpec

Phase = Literal["setup", "teacher", "train", "evaluation", "checkpoint"]
CHARGED_PHASE: Phase = "train"
"""What the currency `seconds` counts. The teacher's store is filled once for all runs and stands apart."""


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
    teacher_flops_stored: float | None = 0.0
    """What the signals read from the store would have cost this run alone; None where only vectors are known."""
    teacher_flops_online: float = 0.0
    extra_parameters: int = 0
    """Trainable parameters of the method that are dropped at export."""
    state_bytes: int = 0
    """Bytes of the method's buffers (banks, queues)."""
    peak_memory_bytes: int = 0
    """Of the process while the run went on: of runs in lock-step, all of them together."""
    tuning_trials: int = 0
    """Trainings spent on the choice of the method's hyperparameters."""
    micro_batch: int = 0
    """Rows that passed the student at a time, at the end of training."""
    out_of_memory: int = 0
    """How often memory did not suffice, and the micro-batch was halved."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By phase: setup, teacher (filling the store), train, evaluation, checkpoint."""


@contextmanager
def phase(ledger: Ledger, name: Phase, wait: bool = True) -> Iterator[None]:
    """Charge a phase with the time spent inside, that of work handed to an accelerator included.

    Unless it is not waited for: then whichever phase waits next is charged with the rest of it.
    """
    start = time.perf_counter()
    try:
        yield
    finally:
        if wait:
            synchronize()
        charge(ledger, name, time.perf_counter() - start)


def charge(ledger: Ledger, name: Phase, seconds: float) -> None:
    """Add time to a phase."""
    ledger.seconds[name] = ledger.seconds.get(name, 0.0) + seconds


def spent(ledger: Ledger, currency: str) -> float:
    """How much of one currency is gone. Teacher passes that a method asks for online count as its FLOPs."""
    if currency == "seconds":
        return ledger.seconds.get(CHARGED_PHASE, 0.0)
    if currency == "flops":
        return ledger.student_flops + ledger.teacher_flops_online
    return float(getattr(ledger, currency))


def restore(ledger: Ledger, values: dict[str, Any]) -> None:
    """Take over what another ledger held, as `asdict` gives it."""
    for name, value in values.items():
        setattr(ledger, name, value)


@dataclass(frozen=True)
class Budget:
    """An amount of one currency. A run stops at the first step boundary at which nothing is left."""

    currency: str
    amount: float
    start: float = 0.0
    """What had been spent of the currency when this budget began: more than 0 for the later stages of a recipe."""

    def share(self, begin: float, end: float) -> Budget:
        """The part of this budget between two shares of it."""
        return Budget(self.currency, self.amount * (end - begin), self.start + self.amount * begin)

    @classmethod
    def of(cls, spec: BudgetSpec, limit: int | None = None, batch_size: int | None = None) -> Budget:
        """The study's budget; or that of a smoke run, which spends at most `limit` sentences.

        A smoke run never spends more than the study's own budget where that is known in sentences: where the currency
        is sentences, or steps of `batch_size`.
        """
        if limit is None:
            return cls(spec.currency, spec.amount)
        if spec.steps is not None and batch_size is not None:
            return cls("sentences", min(limit, spec.steps * batch_size))
        return cls("sentences", min(limit, spec.sentences or limit))

    def progress(self, ledger: Ledger) -> float:
        """Share of the budget that is spent, 1 or more when it is exhausted."""
        return (spent(ledger, self.currency) - self.start) / self.amount


def synchronize() -> None:
    """Wait until the accelerator in use has done what it was given; there is nothing to wait for on a CPU."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


def reset_peak_memory() -> None:
    """Start counting peak memory anew: on a CUDA device, else of this process, where the system allows it (Linux)."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_bytes() -> int:
    """Peak memory since the last reset: of tensors on the CUDA device in use, else of this process.

    For a process it is resident memory, and where the system knows no reset (other than Linux) since its start.
    """
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Of this process; 0 on Windows, which has another way to tell."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
