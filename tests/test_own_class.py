"""A method of one's own that is registered by the process that uses it, as a notebook does."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import distilbench as db
import distilbench_methods
from distilbench_methods.mse import MSE
from tests.conftest import Writes

FILE = """
from dataclasses import dataclass
from typing import ClassVar

from distilbench_methods.mse import MSE


@dataclass(frozen=True, kw_only=True)
class Mine(MSE):
    name: ClassVar[str] = "mine-alone"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "mine_alone.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine_alone", raising=False)
    monkeypatch.setattr(distilbench_methods, "_registered", {})
    yield importlib.import_module("mine_alone")
    sys.modules.pop("mine_alone", None)


def test_a_registered_class_is_trained(module: ModuleType, study: Writes, tmp_path: Path) -> None:
    with pytest.raises(db.UserError, match="unknown method 'mine-alone'"):
        db.load_study(study(methods=["mine-alone"]))
    assert db.register(module.Mine) is module.Mine and db.register(module.Mine) is module.Mine
    results = db.run(study(methods=["mine-alone"]), out=tmp_path / "results", progress=False)
    assert set(results.runs.query("row == 'mine-alone'")["status"]) == {"completed"}


def test_its_file_is_part_of_the_runs_identity(module: ModuleType, study: Writes, tmp_path: Path) -> None:
    db.register(module.Mine)
    path = study(methods=["mine-alone"])
    first = db.run(path, out=tmp_path / "results", progress=False)
    assert module.__file__ is not None
    Path(module.__file__).write_text(f"{FILE}\nCHANGED = True\n")
    db.register(importlib.reload(module).Mine)
    both = db.run(path, out=tmp_path / "results", progress=False)
    assert len(first.runs.query("method == 'mine-alone'")) == 1
    assert len(both.runs.query("method == 'mine-alone'")) == 2


@pytest.mark.parametrize("options", [{"jobs": 2}, {"engine": "ray"}])
def test_other_processes_do_not_know_it(module: ModuleType, study: Writes, options: dict[str, object]) -> None:
    db.register(module.Mine)
    with pytest.raises(db.UserError, match=r"other processes do not know mine-alone.*install the method as a package"):
        db.run(study(methods=["mse", {"renamed": {"method": "mine-alone"}}]), **options)  # type: ignore[arg-type]


def test_what_cannot_be_registered_is_refused(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Inner(MSE):
        name = "inner"

    with pytest.raises(db.UserError, match=r"inner is not in a file of its own.*%%writefile my_loss\.py"):
        db.register(Inner)
    with pytest.raises(db.UserError, match="which is no dataclass made from Method"):
        db.register(int)  # type: ignore[type-var]
    monkeypatch.setattr(module.Mine, "name", "simcse")
    with pytest.raises(db.UserError, match="'simcse' is taken by"):
        db.register(module.Mine)
    monkeypatch.setattr(module, "__file__", None)
    with pytest.raises(db.UserError, match="not in a file of its own"):
        db.register(module.Mine)
