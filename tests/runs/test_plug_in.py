"""A method of another package, as CONTRIBUTING.md shows one: found, listed, put in a study, conformed."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import distilbench_methods
from distilbench.cli.app import main
from distilbench.study.study_file import load_study

ROOT = Path(__file__).parents[2]
STUDY = """
name: theirs
teacher: anything
student: {layers: 2}
text: {source: embedded}
budget: {steps: 4}
methods: [mse, cosine-table, strong: {method: cosine-table, scale: 3}]
seeds: 1
tasks: [embedded]
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package, laid out as an installer leaves it."""
    project = tomllib.loads(blocks("toml")[0])["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (tmp_path / "my_distillation.py").write_text(blocks("python")[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_distillation", raising=False)
    distilbench_methods.plug_ins.cache_clear()
    yield
    distilbench_methods.plug_ins.cache_clear()


def test_it_is_found_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert distilbench_methods.registry()["cosine-table"] == "my_distillation:CosineTable"
    assert main(["methods", "--json"]) == 0
    (entry,) = (entry for entry in json.loads(capsys.readouterr().out) if entry["name"] == "cosine-table")
    assert entry["summary"] == "Match the table of the teacher's pairwise cosines, whatever the widths."
    assert [item["meaning"] for item in entry["hyperparameters"]] == ["Multiplies the loss."]


def test_a_study_may_name_it(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text(STUDY)
    study = load_study(str(tmp_path / "theirs.yaml"))
    built = [entry.stages[0].build() for entry in study.methods]
    assert [type(method).__name__ for method in built] == ["MSE", "CosineTable", "CosineTable"]
    assert study.methods[2].hyperparameters == {"scale": 3}


@pytest.mark.parametrize("settings", [[], ["scale=2"]])
def test_it_keeps_the_contract(capsys: pytest.CaptureFixture[str], settings: list[str]) -> None:
    code = main(["conform", "cosine-table", *settings, "--json"])
    failed = [outcome for outcome in json.loads(capsys.readouterr().out) if outcome["status"] == "failed"]
    assert (code, failed) == (0, [])


def test_the_test_that_is_shown_runs() -> None:
    names: dict[str, object] = {}
    exec(blocks("python")[1], names)
    test = names["test_it_keeps_the_contract"]
    assert callable(test)
    test()
