"""What the README prints, works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import distilbench_methods
from distilbench.analysis.frame import make_study, row_names
from distilbench.records.record import read_study
from distilbench.study.study_file import load_study

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_studies_are_valid(tmp_path: Path) -> None:
    whole, *parts = map(yaml.safe_load, blocks("yaml"))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    study = load_study(str(path), ["seeds=5", "budget.sentences=50000"])
    assert (study.name, study.seeds, study.budget.amount) == ("mine", [1, 2, 3, 4, 5], 50000)
    assert {key for part in parts for key in part} == {
        "labelled",
        "methods",
        "dev",
        "tasks",
        "teacher",
        "student",
    }
    for part in parts:
        path.write_text(yaml.safe_dump(whole | part), encoding="utf-8")
        study = load_study(str(path))
        if "labelled" in part:
            assert study.labelled is not None
            assert [stage.share for stage in study.methods[1].stages] == pytest.approx([0.8, 0.2])


def test_every_method_is_named() -> None:
    page = README.read_text(encoding="utf-8")
    missing = [
        name for name in (*distilbench_methods.registry(), *distilbench_methods.VARIANTS) if f"`{name}`" not in page
    ]
    assert not missing


def test_the_table_on_the_first_screen_is_that_of_the_records() -> None:
    study = make_study("minilm-50k", read_study(README.parent / "results" / "minilm-50k"))
    means = 100 * study.average.mean.rename(index=study.rows["row"].to_dict())
    table = re.search(r"\n\| Method .*?\n\n", README.read_text(encoding="utf-8"), re.DOTALL)
    assert table is not None
    heading, _, *rows = ([cell.strip(" *") for cell in line.split("|")[1:-1]] for line in table[0].split("\n")[1:-2])
    assert heading[1:5] == ["STS average", "Retrieval average", "Mean (Task)", "Mean (TaskType)"]
    shown = {row[0]: [float(cell.split()[0]) for cell in row[1:5]] for row in rows}
    expected = {str(name): [round(float(value), 2) for value in means.loc[name]] for name in means.index}
    assert shown == expected
    assert {row[6] for row in rows if row[0] in row_names(study, "method").values()} == {"5"}
