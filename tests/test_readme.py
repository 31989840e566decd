"""What the README prints, works: its study and its Python are run, with small models under the names of large ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import distilbench as db
from distilbench.analysis.frame import make_study, row_names
from distilbench.records.record import read_study
from distilbench.study.study_file import load_study
from tests.conftest import Cli
from tests.models.families import make_family

README = Path(__file__).parents[1] / "README.md"
LONGEST = 120


def block(language: str, number: int = 0) -> str:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return found[number]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(block("yaml"), encoding="utf-8")
    return path


def test_it_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < LONGEST


def test_its_study_takes_ten_lines_at_most(mine: Path) -> None:
    study = load_study(str(mine), ["seeds=5"])
    assert (study.name, study.seeds, study.budget.amount) == ("mine", [1, 2, 3, 4, 5], 20000)
    assert len(block("yaml").splitlines()) <= 10


@pytest.mark.slow
def test_its_study_and_its_python_run(mine: Path, text_file: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are printed, but for how much is read: a small text, one seed, one small task."""
    study = load_study(str(mine))
    mirror = mine.parent / "mirror"
    names = study.teacher if isinstance(study.teacher, str) else "", str(study.student.model)
    for name, family in zip(names, ("qwen3", "bert"), strict=True):
        made = make_family(family, mine.parent / family, normalize=True, max_length=64)
        (mirror / name).parent.mkdir(parents=True)
        made.rename(mirror / name)
    monkeypatch.setenv("DISTILBENCH_MIRROR", str(mirror))
    small = [
        f"text.source={text_file}",
        "student.layers=1",
        "budget.sentences=64",
        "train.batch_size=16",
        "train.max_length=64",
        "tasks=[DistilbenchSTS]",
    ]
    code, out, err = cli("run", "mine.yaml", "--limit", 64, *small, "seeds=1")
    assert code == 0, err
    assert "ibkd-hot" in out

    given: dict[str, Any] = {}
    monkeypatch.setattr(db, "load_study", lambda *args, **keys: given.update(args=args, keys=keys) or (args, keys))
    monkeypatch.setattr(db, "run", lambda *_, **keys: given.update(run=keys) or db.read_results("results/mine-limit64"))
    exec(compile(block("python"), "README.md", "exec"), {})
    assert given == {"args": ("mine.yaml",), "keys": {"seeds": 5}, "run": {"jobs": 2}}
    assert Path("scores.pdf").stat().st_size > 0


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
