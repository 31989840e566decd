"""Where runs are executed: in this process, in worker processes, on a Ray cluster.

An engine takes a study's missing runs and yields each as it is finished (`distilbench.runs.run.Engine`). All of
them take runs through `finish_run` of the same module: the same locks, records and checkpoints, and on a CPU, with
equal threads, equal bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from distilbench.core.errors import UserError
from distilbench.runs.engines.layout import Layout, cores, default_threads, make_layout

if TYPE_CHECKING:
    from distilbench.runs.run import Engine

__all__ = ["EngineOptions", "Layout", "layouts_of", "make_engine"]


@dataclass(frozen=True)
class EngineOptions:
    """What the command line says about where runs are executed."""

    jobs: int | None = None
    threads: int | None = None
    gpu_share: float = 1.0
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    """Of a Ray cluster."""
    ship: str | None = None
    """URI through which nodes get what they need that share no file system with the driver."""


def make_engine(options: EngineOptions, device: str) -> Engine:
    """The engine that was asked for. Raises `UserError` where there is not enough for it."""
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    if options.engine == "ray":
        from distilbench.runs.engines.on_ray import OnRay

        return OnRay(options, device)
    if options.ship or options.address:
        raise UserError("--ship and --address are for --engine ray; leave them out, or add it")
    from distilbench.runs.engines.in_process import in_this_process
    from distilbench.runs.engines.worker_pool import Workers

    layout = make_layout(options.jobs or 1, device, options.threads, options.gpu_share)
    return Workers(layout) if layout.jobs > 1 else in_this_process


def layouts_of(options: EngineOptions, device: str) -> dict[str, Layout]:
    """The ways in which a study could be run, for their estimated times."""
    found = {"in this process": Layout(1, options.threads or default_threads(1))}
    jobs = options.jobs or cores()
    if jobs > 1 and device == "cpu":
        found[f"--jobs {jobs}"] = make_layout(jobs, device, options.threads)
    elif options.jobs:
        found[f"--jobs {jobs}"] = make_layout(jobs, device, options.threads, options.gpu_share)
    if options.engine == "ray":
        from distilbench.runs.engines.on_ray import OnRay

        found["--engine ray"] = OnRay(options, device).layout()
    return found
