"""How many runs go on at a time, and what each of them gets of the machine."""

from __future__ import annotations

import os
from dataclasses import dataclass

from distilbench.core.errors import UserError

THREADS_VARIABLE = "OMP_NUM_THREADS"
DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
MOST_THREADS = 1024
"""torch ends the process, without a word, where the system gives it fewer threads than it asks for."""


@dataclass(frozen=True)
class Layout:
    """Shares of one machine."""

    jobs: int
    threads: int
    """CPU threads of each run. Another number may change the last bits of what is trained."""
    devices: tuple[str, ...] = ()
    """CUDA devices, as `CUDA_VISIBLE_DEVICES` names them, that runs are dealt out to; none where runs are on CPUs."""
    gpu_share: float = 1.0
    """Share of a device's memory that one run may take."""

    def environment(self, worker: int) -> dict[str, str]:
        """What a worker process must find in its environment before it loads torch."""
        found = {THREADS_VARIABLE: str(self.threads)}
        if self.devices:
            # Each worker sees one device only: a device's number is part of a run's identity.
            found[DEVICES_VARIABLE] = self.devices[worker % len(self.devices)]
        return found


def make_layout(jobs: int, device: str, threads: int | None = None, gpu_share: float = 1.0) -> Layout:
    """Deal the cores, and for the device `cuda` all CUDA devices, out to `jobs` worker processes.

    Raises `UserError` where a run's share of a CUDA device is too large for so many.
    """
    devices = _visible_devices() if device == "cuda" else ()
    on_gpu = device.startswith("cuda")
    places = max(1, len(devices)) * int(1 / gpu_share + 1e-9)
    if on_gpu and jobs > places:
        raise UserError(
            f"--jobs {jobs} with --gpu-share {gpu_share:g} needs more than the {max(1, len(devices))} CUDA devices in "
            f"use; ask for {places} jobs or for a share of {max(1, len(devices)) / jobs:.3g}"
        )
    return Layout(jobs, threads or default_threads(jobs), devices, gpu_share if on_gpu else 1.0)


def use(layout: Layout) -> None:
    """Keep to the threads and the memory of a layout, in this process."""
    import torch

    torch.set_num_threads(layout.threads)
    if layout.gpu_share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(layout.gpu_share)


def default_threads(jobs: int) -> int:
    """A run's share of the cores, unless the environment tells."""
    return told_threads() or max(1, cores() // jobs)


def told_threads() -> int | None:
    """The threads that the environment asks for."""
    told = os.environ.get(THREADS_VARIABLE, "")
    threads = int(told) if told.isdecimal() and int(told) else None
    check_threads(threads, THREADS_VARIABLE)
    return threads


def check_threads(threads: int | None, name: str) -> None:
    """Raise `UserError` for more threads than torch can be asked for."""
    if threads is not None and threads > MOST_THREADS:
        raise UserError(
            f"{name} {threads} is more than {MOST_THREADS}; there are {cores()} cores here, ask for no more"
        )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _visible_devices() -> tuple[str, ...]:
    import torch

    named = os.environ.get(DEVICES_VARIABLE)
    if named:
        return tuple(named.split(","))
    return tuple(str(number) for number in range(torch.cuda.device_count()))
