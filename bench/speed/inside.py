"""Where a training step's time goes, and what share of the machine's measured peak it reaches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch

from distilbench.models.encoder import Encoder
from distilbench.runs.prepare.precision import FASTER, bf16_speedup
from distilbench.study.budget import Ledger, synchronize
from distilbench.study.sections.training import Precision
from distilbench.training.loop import train
from speed.clock import Seconds, timed
from speed.setting import Setting
from speed.training import METHODS, job_of

SIZE = 1024
PRODUCTS = 5
"""Timed one by one; the fastest counts."""
WARM_UP_STEPS = 2


def peak_flops(device: str, dtype: torch.dtype) -> float:
    """FLOPs a second of a product of square matrices: what the machine reaches, rather than what its maker says."""
    one, other = (torch.randn(SIZE, SIZE, device=device).to(dtype) for _ in range(2))

    def product() -> torch.Tensor:
        return one @ other

    timed(product)
    return 2.0 * SIZE**3 / min(computing(timed(product)[0], device) for _ in range(PRODUCTS))


def computing(seconds: Seconds, device: str) -> float:
    """Time that the device worked for this process: on a CPU, that of all threads, whatever else runs there."""
    return seconds.cpu if device == "cpu" else seconds.wall


def choose_precision(device: str) -> tuple[Precision, float]:
    """The precision that pays on a device, and how many times as fast bf16 multiplies there as fp32."""
    factor = bf16_speedup(device)
    return ("bf16" if factor >= FASTER else "fp32"), factor


@dataclass
class Parts:
    """Seconds of a training, by what they went into."""

    seconds: dict[str, float] = field(default_factory=dict)
    total: float = 0.0
    """By the wall clock."""
    computing: float = 0.0
    """As `computing` counts."""
    steps: int = 0
    flops: float = 0.0

    @property
    def rest(self) -> float:
        """Share of the time outside of forward, backward and optimiser."""
        return 1 - sum(self.seconds.values()) / self.total

    def shares(self) -> dict[str, float]:
        return {**{name: value / self.total for name, value in self.seconds.items()}, "rest": self.rest}


def parts_of_a_step(setting: Setting, method: str = "mse") -> Parts:
    """Train, and put the time of every step under forward, backward, optimiser, or the rest.

    Clipping, teacher signals, batches and records are the rest.
    """
    inputs = setting.inputs([METHODS[method]])
    train(job_of(inputs, steps=WARM_UP_STEPS), Ledger())
    cell, ledger, found = job_of(inputs), Ledger(), Parts()
    optimizer = torch.optim.AdamW
    with (
        _counted(Encoder, "forward", found, "forward"),
        _counted(type(cell.method), "loss", found, "forward"),
        _counted(torch.Tensor, "backward", found, "backward"),
        _counted(optimizer, "step", found, "optimiser"),
    ):
        seconds, _ = timed(lambda: train(cell, ledger))
    found.total, found.computing = seconds.wall, computing(seconds, setting.device)
    found.steps, found.flops = ledger.steps, ledger.student_flops
    return found


@contextmanager
def _counted(owner: Any, name: str, found: Parts, part: str) -> Iterator[None]:
    original: Callable[..., Any] = getattr(owner, name)

    def counted(*values: Any, **named: Any) -> Any:
        synchronize()
        start = time.perf_counter()
        gave = original(*values, **named)
        synchronize()
        found.seconds[part] = found.seconds.get(part, 0.0) + time.perf_counter() - start
        return gave

    with patch.object(owner, name, counted):
        yield
