"""A Ray cluster: one task for each run, with the cores, or the share of a GPU, that the run is given.

The driver needs a device of the kind that the runs use: it computes the teacher's signals before the first of them.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilbench.core.errors import UserError
from distilbench.runs.cost import longest_first
from distilbench.runs.engines.backlog import MOST_LOSSES, POLL_SECONDS, Backlog
from distilbench.runs.engines.engine import Answer, Job, OnProgress
from distilbench.runs.engines.layout import Layout, told_threads
from distilbench.runs.engines.ray_board import Board
from distilbench.runs.engines.ray_task import TaskOrder, execute, installed
from distilbench.runs.prepare.inputs import Inputs
from distilbench.runs.prepare.prepared import PreparedRun

if TYPE_CHECKING:
    from distilbench.runs.engines import EngineOptions

ADDRESS_VARIABLE = "RAY_ADDRESS"
KNOCK_SECONDS = 10.0


class OnRay:
    """An engine: runs are submitted longest first; one that is lost with its process or node is submitted again."""

    def __init__(self, options: EngineOptions, device: str) -> None:
        self._ray = connect(options.address)
        self._layout = _layout(options, device)
        self._on_gpu = device == "cuda"
        self._most = options.jobs
        if not self._slots():
            gpus = f" and {self._layout.gpu_share:g} of a GPU" if self._on_gpu else ""
            raise UserError(
                f"no node of the Ray cluster has the {self._layout.threads} CPUs{gpus} that a run is to get; "
                "choose other --threads or another --gpu-share"
            )

    def __call__(self, runs: list[PreparedRun], on_progress: OnProgress, job: Job[Answer]) -> Iterator[Answer]:
        ray = self._ray
        backlog = Backlog(longest_first(runs), runs[0].inputs.announce)
        board, task = self._board(), self._task()
        order = ray.put(pickle.dumps(_order(runs[0].inputs, self._layout, job)))
        begun: list[PreparedRun] = []
        waiting: dict[Any, int] = {}
        try:
            while backlog:
                # One more than there is room for: a cluster that grows by itself has to see that more is wanted.
                room = min(self._slots() + 1, self._most or len(runs))
                while len(waiting) < room and (run := backlog.take()) is not None:
                    waiting[task.remote(order, run.cell, board, len(begun))] = len(begun)
                    begun.append(run)
                for ref in ray.wait(list(waiting), timeout=POLL_SECONDS)[0] if waiting else _nap():
                    answer = self._hear(backlog, ref, begun[waiting.pop(ref)], job)
                    if answer is not None:
                        yield answer
                for number, share in ray.get(board.read.remote()).items():
                    if number in waiting.values():
                        on_progress(begun[number].cell, share)
        finally:
            for ref in waiting:
                ray.cancel(ref, force=True)
            ray.kill(board)

    def _board(self) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = self._ray.get_runtime_context().get_node_id()
        with_driver = NodeAffinitySchedulingStrategy(node, soft=False)
        return self._ray.remote(Board).options(num_cpus=0, scheduling_strategy=with_driver).remote()

    def _task(self) -> Any:
        # Lost tasks are submitted again by this engine, which counts them, and not by Ray. They are spread, so that a
        # node that is lost takes few runs with it.
        share = self._layout.gpu_share if self._on_gpu else 0
        remote = self._ray.remote(execute)
        return remote.options(
            num_cpus=self._layout.threads, num_gpus=share, max_retries=0, scheduling_strategy="SPREAD"
        )

    def _slots(self) -> int:
        """How many runs the cluster has room for, other users' work not counted."""
        return sum(_room(node["Resources"], self._layout, self._on_gpu) for node in self._ray.nodes() if node["Alive"])

    def layout(self) -> Layout:
        """What the cluster's runs get, and how many of them go on at a time."""
        return replace(self._layout, jobs=min(self._slots(), self._most or self._slots()))

    def _hear(self, backlog: Backlog, ref: Any, run: PreparedRun, job: Job[Answer]) -> Answer | None:
        try:
            answer: Answer | UserError | None = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            if backlog.lost(run):
                why = type(error).__name__
                run.inputs.announce(f"{run.name} was lost with its process or node ({why}); it is begun again")
                return None
            backlog.done(run)
            return job.give_up(run, f"it was lost {MOST_LOSSES} times, last with {' '.join(str(error).split())}")
        if isinstance(answer, UserError):
            raise answer
        if answer is None:
            backlog.elsewhere(run)
            return None
        backlog.done(run)
        return answer


def connect(address: str | None) -> Any:
    """Ray, connected to a cluster, or to one that is started on this machine where no address is given.

    Raises `UserError` where there is no Ray or no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs Ray, which is not installed; pip install 'distilbench[ray]'") from None
    if ray.is_initialized():
        return ray
    wanted = address or os.environ.get(ADDRESS_VARIABLE) or "local"
    try:
        _knock(wanted)
        ray.init(address=wanted, logging_level="ERROR", include_dashboard=False if wanted == "local" else None)
    except Exception as error:
        # Ray has no error of its own for a cluster that cannot be reached, or does not start in time.
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"no connection to the Ray cluster {wanted} ({why}); ray status tells whether it is running, and whether "
            "this process has its token"
        ) from None
    return ray


def disconnect() -> None:
    """End the connection of this process to Ray, if there is one."""
    if (ray := sys.modules.get("ray")) is not None and ray.is_initialized():
        ray.shutdown()


def _knock(address: str) -> None:
    """Find out in seconds what takes Ray minutes: that nobody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


def _layout(options: EngineOptions, device: str) -> Layout:
    if device.startswith("cuda:"):
        raise UserError(f"Ray chooses the GPU of each run; use --device cuda instead of {device}")
    return Layout(1, options.threads or told_threads() or 1, gpu_share=options.gpu_share if device == "cuda" else 1.0)


def _room(resources: dict[str, float], layout: Layout, on_gpu: bool) -> int:
    """How many runs fit on a node."""
    by_cpu = int(resources.get("CPU", 0) // layout.threads)
    return min(by_cpu, int(resources.get("GPU", 0)) * int(1 / layout.gpu_share + 1e-9)) if on_gpu else by_cpu


def _order(inputs: Inputs, layout: Layout, job: Job[Any]) -> TaskOrder:
    given = inputs.settings
    mirror = given.mirror.absolute() if given.mirror else None
    folders = {name: getattr(given, name).absolute() for name in ("out", "cache", "log_folder")}
    there = replace(given, **folders, mirror=mirror)
    return TaskOrder(inputs.study, there, layout, job, Path.cwd(), installed())


def _nap() -> list[Any]:
    time.sleep(POLL_SECONDS / 4)
    return []
