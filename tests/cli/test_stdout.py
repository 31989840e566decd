"""What is on stdout for programs is there alone, whatever libraries and workers print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from distilbench.runs.engines.in_process import in_this_process

Cli = Callable[..., tuple[int, str, str]]


class Talking(ModuleType):
    """Stands for Ray, which passes on what its workers print, some of it only as the connection ends."""

    connected = True

    def is_initialized(self) -> bool:
        return self.connected

    def shutdown(self) -> None:
        self.connected = False
        sys.stdout.write("(execute pid=1) the rest of what a worker printed\n")


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_stdout_has_nothing_of_what_others_print(
    engine: str, cli: Cli, study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def talk(*_: object) -> Any:
        sys.stdout.write("a library has something to say\n")
        return in_this_process

    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "ray", ray := Talking("ray"))
    monkeypatch.setattr("distilbench.runs.study_run.make_engine", talk)
    code, out, err = cli("run", study(), "--engine", engine, "--out", tmp_path / "results", "--json", "-q")
    assert code == 0, err
    assert json.loads(out)
    assert "a library has something to say" in err
    assert ("the rest of what a worker printed" in err, ray.connected) == (engine == "ray", engine != "ray")
