"""Where runs are executed: in this process, in worker processes, on a Ray cluster.

An engine takes a study's missing runs, or the trials of its tuning, and yields what came of each as it is done
(`engine.Engine`). All of them do the same job, with the same locks, records and checkpoints, and on a CPU, with equal
threads, get equal bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from distilbench.core.errors import UserError
from distilbench.runs.engines.layout import Layout, check_threads, cores, default_threads, make_layout

if TYPE_CHECKING:
    from distilbench.runs.engines.engine import Engine

__all__ = ["EngineOptions", "Layout", "layouts_of", "make_engine"]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Where runs are executed."""

    jobs: int | None = None
    """Runs at a time, each in a process of its own; unset, this process takes one after the other."""
    threads: int | None = None
    """CPU threads of each run; unset, OMP_NUM_THREADS or the cores divided by the jobs."""
    gpu_share: float = 1.0
    """Most of a GPU's memory that a run may take, above 0 and at most 1."""
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    """Of a Ray cluster."""

    def __post_init__(self) -> None:
        check_threads(self.threads, "--threads")


def make_engine(options: EngineOptions, device: str) -> Engine:
    """The engine that was asked for. Raises `UserError` where there is not enough for it."""
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    if options.engine == "ray":
        from distilbench.runs.engines.on_ray import OnRay

        return OnRay(options, device)
    if options.address:
        raise UserError("--address is for --engine ray; leave it out, or add that")
    from distilbench.runs.engines.in_process import in_this_process
    from distilbench.runs.engines.worker_pool import Workers

    layout = make_layout(options.jobs or 1, device, options.threads, options.gpu_share)
    return Workers(layout) if layout.jobs > 1 else in_this_process


def layouts_of(options: EngineOptions, device: str) -> dict[str, Layout]:
    """The ways in which a study could be run, for their estimated times."""
    layouts = {"in this process": Layout(1, options.threads or default_threads(1))}
    jobs = options.jobs or cores()
    if jobs > 1 and device == "cpu":
        layouts[f"--jobs {jobs}"] = make_layout(jobs, device, options.threads)
    elif options.jobs:
        layouts[f"--jobs {jobs}"] = make_layout(jobs, device, options.threads, options.gpu_share)
    if options.engine == "ray":
        from distilbench.runs.engines.on_ray import OnRay

        layouts["--engine ray"] = OnRay(options, device).layout()
    return layouts
