"""Processes to be killed: those below another, and the nodes of a small Ray cluster; and what they all wrote."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RENAMES_VARIABLE = "TEST_RENAMES"
LONGEST_START = 400.0
LOOPBACK = "127.0.0.2"
"""Ray puts the machine's outer address in the place of 127.0.0.1."""
HOOK = f"""
import os
if "{RENAMES_VARIABLE}" in os.environ:
    from tests.reliability.processes import write_down_renames
    write_down_renames()
"""
"""What every Python process below does first."""


def write_down_renames() -> None:
    """From now on, write the target of every rename into a file: an artefact is complete when its folder is renamed."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename":
            line = os.open(os.environ[RENAMES_VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(line, os.fsencode(arguments[1]) + b"\n")
            os.close(line)

    sys.addaudithook(hook)


@contextmanager
def hooked(folder: Path) -> Iterator[None]:
    """Have renames written down by every Python process that is started below."""
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder / "hook"), str(ROOT), before.get("PYTHONPATH", "")])
    os.environ[RENAMES_VARIABLE] = str(folder / "renames")
    try:
        yield
    finally:
        # The hook stays in this process, and so must the file's name.
        os.environ.update({"PYTHONPATH": before.get("PYTHONPATH", ""), RENAMES_VARIABLE: os.devnull})


def below(ancestor: int) -> dict[int, str]:
    """Command lines of all processes below one."""
    parents, commands = dict[int, int](), dict[int, str]()
    for path in Path("/proc").glob("[0-9]*"):
        # One that has just ended.
        with suppress(OSError):
            commands[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            status = (path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            parents[int(path.name)] = int(status[1]) if status[0] != "Z" else 0
    found, rest = set[int](), {ancestor}
    while rest := {pid for pid, parent in parents.items() if parent in rest and pid not in found}:
        found |= rest
    return {pid: commands[pid] for pid in sorted(found)}


class Nodes:
    """A Ray cluster of nodes of one CPU each, on the loopback interface of this machine."""

    def __init__(self, count: int) -> None:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            self._port = probe.getsockname()[1]
        self.address = f"{LOOPBACK}:{self._port}"
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled"}
        self._nodes = [self._start("--head", f"--port={self._port}", "--include-dashboard=false")]
        self._nodes += [self._start(f"--address={self.address}") for _ in range(count - 1)]

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        small = ("--num-cpus=1", "--object-store-memory=100000000", f"--node-ip-address={LOOPBACK}", "--block")
        # By its module: an entry point's first folder on the path would be its own, without the project.
        command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *arguments, *small]
        node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        end = time.monotonic() + LONGEST_START
        while not any("raylet" in text.split(" ")[0] for text in below(node.pid).values()):
            if node.poll() is not None or time.monotonic() > end:
                sys.exit(f"a Ray node could not be started: {' '.join(command)}")
            time.sleep(0.1)
        return node

    def busy(self) -> list[int]:
        """Processes that are at a run."""
        return [pid for node in self._nodes for pid in _busy(node)]

    def kill_a_busy_one(self, rng: random.Random) -> bool:
        """Kill all processes of a node that is at a run, not the head, and start another; False if there is none."""
        there = [node for node in self._nodes[1:] if _busy(node)]
        if there:
            node = rng.choice(there)
            _end(node)
            self._nodes.remove(node)
            self._nodes.append(self._start(f"--address={self.address}"))
        return bool(there)

    def stop(self) -> None:
        """Kill all of them."""
        for node in reversed(self._nodes):
            _end(node)


def _busy(node: subprocess.Popen[bytes]) -> list[int]:
    return [pid for pid, command in below(node.pid).items() if command.startswith("ray::execute")]


def _end(node: subprocess.Popen[bytes]) -> None:
    for pid in [*below(node.pid), node.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.wait()
