"""A model folder is blessed and checked on the user's own data: a table, a BEIR folder, or the tasks of a study."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from distilbench.cli.app import main
from distilbench.gate.tasks import given_tasks, name_of
from distilbench.study.sections.texts import OwnTask, PartOfTask
from tests.reliability import workload

Writes = Callable[..., Path]


@pytest.fixture
def data(tmp_path: Path, write_pairs: Writes, write_beir: Writes) -> Path:
    """A table `pairs.csv` and a folder `search`."""
    write_beir(tmp_path / "search")
    shutil.move(write_pairs(tmp_path), tmp_path / "pairs.csv")
    return tmp_path


def check(model: Path, baseline: Path, *more: object) -> int:
    return main(["check", str(model), "--baseline", str(baseline), *map(str, more)])


@pytest.mark.slow
def test_own_data_are_blessed_and_checked(
    data: Path, teacher_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILBENCH_CACHE", str(data / "cache"))
    baseline, tasks = data / "base.json", (data / "pairs.csv", data / "search")
    assert check(teacher_folder, baseline, "--bless", "--tasks", *tasks) == 0, capsys.readouterr().err
    assert set(json.loads(baseline.read_text())["tasks"]) == {"pairs", "search"}
    assert check(teacher_folder, baseline, "--tasks", *tasks) == 0
    assert "pairs" in (out := capsys.readouterr().out) and "search" in out
    # A narrower check, and one that does not say where the data are.
    assert check(teacher_folder, baseline, "--tasks", data / "pairs.csv") == 0
    assert "search" not in capsys.readouterr().out
    assert check(teacher_folder, baseline) == 2
    assert "pairs is not a task of mteb but of your own data; give its file with --tasks" in capsys.readouterr().err
    # The data of another day are another task.
    with (data / "pairs.csv").open("a") as stream:
        stream.write("one,two,1.0\n")
    assert check(teacher_folder, baseline, "--tasks", *tasks) == 3
    assert "pairs is not the task of the baseline" in capsys.readouterr().out


@pytest.mark.slow
def test_the_tasks_of_a_study_are_checked(
    data: Path, teacher_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILBENCH_CACHE", str(data / "cache"))
    study = workload.make(data / "study", ["mse"])
    own = {"name": "Mine", "source": str(data / "pairs.csv")}
    settings = yaml.safe_load(study.read_text(encoding="utf-8")) | {"tasks": [own, "DistilbenchSTS"]}
    study.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert check(teacher_folder, data / "base.json", "--bless", "--study", study) == 0, capsys.readouterr().err
    assert set(json.loads((data / "base.json").read_text())["tasks"]) == {"Mine", "DistilbenchSTS"}
    assert check(teacher_folder, data / "base.json", "--study", study) == 0


def test_what_is_typed(data: Path) -> None:
    (pairs, search, sts) = given_tasks(["pairs.csv", "search", "STS12"], root=data)
    assert pairs == OwnTask(name="pairs", source=str(data / "pairs.csv"))
    assert search == OwnTask(name="search", source=str(data / "search")) and sts == "STS12"
    assert len(given_tasks(["sts7"])) == 7
    assert name_of(PartOfTask(name="STS17", subsets=("en-en",), splits=("test",))) == "STS17@en-en#test"


@pytest.mark.parametrize(
    ("typed", "said"),
    [("no-such.csv", "is not there"), ("no/such", "is not there"), ("odd name!.csv", "rename it to letters")],
)
def test_what_is_no_task(typed: str, said: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(data / "pairs.csv", data / "odd name!.csv")
    assert check(data / "search", data / "base.json", "--tasks", data / typed) == 2
    assert said in capsys.readouterr().err
