"""The workflow of docs/gate.md, step by step in a shell: only the package's installation is a stand-in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from distilbench.cli.app import main

ROOT = Path(__file__).parents[2]
STAND_INS = {
    "pip": '[[ "$*" = "install uv" ]]',
    "uv": '[[ "$1 $2 $3" = "pip install --system" && "${@: -1}" = "wheels/distilbench-*.whl" ]]',
    "distilbench": f'exec {sys.executable} -m distilbench "$@"',
}


def steps(job: str = "gate") -> list[dict[str, Any]]:
    page = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    [workflow] = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if text.startswith("jobs:")]
    found: list[dict[str, Any]] = yaml.safe_load(workflow)["jobs"][job]["steps"]
    return found


def run_steps(repository: Path, job: str = "gate") -> int:
    """The exit code of the first step that fails, as a runner has it; 0 where none does."""
    tools = repository / ".tools"
    tools.mkdir(exist_ok=True)
    for name, line in STAND_INS.items():
        (tools / name).write_text(f"#!/bin/bash\n{line}\n")
        (tools / name).chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DISTILBENCH_")}
    given = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(repository / ".summary.md"),
        "GITHUB_SHA": "0" * 40,
    }
    for step in steps(job):
        if "run" in step:
            env = inherited | given | step.get("env", {})
            shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
            if code := subprocess.run(shell, cwd=repository, env=env, check=False).returncode:
                return code
    return 0


@pytest.fixture
def repository(tmp_path: Path, teacher_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As it is checked out: a study and its blessed baseline, neither results nor a cache."""
    values = {
        "name": "mine",
        "teacher": str(teacher_folder),
        "student": {"layers": 2, "width": 16},
        "text": {"source": str(text_file)},
        "budget": {"steps": 4},
        "methods": ["mse"],
        "seeds": 2,
        "tasks": ["DistilbenchSTS"],
        "train": {"batch_size": 16, "max_length": 64},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    for name in [name for name in os.environ if name.startswith("DISTILBENCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    bless = ["check", "results/mine", "--baseline", "results/baselines/mine.json", "--bless", "--drift"]
    for arguments in (["run", "mine.yaml"], bless):
        assert main(arguments) == 0
    for name in ("cache", "results/mine"):
        shutil.rmtree(tmp_path / name)
    return tmp_path


@pytest.mark.slow
def test_the_workflow_passes_the_code_that_was_blessed_and_stops_what_diverged(repository: Path) -> None:
    assert run_steps(repository) == 0
    assert "PASS" in (repository / ".summary.md").read_text()
    suite = ElementTree.parse(repository / "gate.xml").getroot()
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")
    [cached] = [step["with"]["path"] for step in steps() if "cache@" in step.get("uses", "")]
    assert (repository / cached).is_dir()
    (kept,) = [step["with"]["path"] for step in steps() if "upload-artifact@" in step.get("uses", "")]
    assert [name for name in kept.split("\n") if not (repository / name).exists()] == []

    study = repository / "mine.yaml"
    study.write_text(study.read_text().replace("train:\n", "train:\n  learning_rate: 1.0e+30\n"))
    shutil.rmtree(repository / "results" / "mine")
    (repository / "gate.xml").unlink()
    # Other systems say whether it can be trained at all; what diverges can.
    assert run_steps(repository, "elsewhere") == 0
    assert run_steps(repository) == 1
    assert "REGRESSED" in (repository / ".summary.md").read_text()
    assert ElementTree.parse(repository / "gate.xml").getroot().get("failures") != "0"
