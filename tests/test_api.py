"""The Python interface: what the page shows runs, and each call gives what the command line gives."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

import distilbench as db
from distilbench.cli.app import main

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "results" / "minilm-50k"


@pytest.fixture(scope="module")
def place(teacher_folder: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two methods."""
    folder = tmp_path_factory.mktemp("api")
    values = {
        "name": "mine",
        "teacher": str(teacher_folder),
        "student": {"layers": 2, "width": 16},
        "text": {"source": str(text_file)},
        "budget": {"steps": 3},
        "methods": ["mse", "simcse"],
        "seeds": 3,
        "tasks": ["DistilbenchSTS"],
        "train": {"batch_size": 16, "max_length": 64},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    monkeypatch.setenv("DISTILBENCH_CACHE", str(place / "cache"))
    monkeypatch.delenv("DISTILBENCH_MIRROR", raising=False)
    return place


@pytest.fixture
def results(here: Path) -> db.Results:
    return db.run(db.load_study("mine.yaml", seeds=2), progress=False)


def test_what_the_page_shows_runs(here: Path, results: db.Results) -> None:
    assert main(["check", "results/mine", "--baseline", "baseline.json", "--bless"]) == 0
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (here / "page.py").write_text("\n".join(blocks), encoding="utf-8")
    names = runpy.run_path(str(here / "page.py"), run_name="page")
    assert (here / "scores.pdf").is_file() and (here / "reports" / "mine" / "index.html").is_file()
    assert names["checked"].verdict == "pass"


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, distilbench\n"
        "assert 'run' in dir(distilbench) and distilbench.__version__\n"
        "sys.exit(' '.join({'torch', 'numpy', 'pandas', 'matplotlib', 'pydantic'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", db.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(db, name) is getattr(db, name)


def test_unknown_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = db.nothing


def test_every_name_stays_what_it_is_after_rooms_were_imported() -> None:
    code = (
        "import distilbench as db\nfrom distilbench.cli.app import main\n"
        "main(['conform', 'sp', '--json'])\nmain(['report', 'nothing'])\nmain(['check', 'x', '--baseline', 'y'])\n"
        "assert all(callable(getattr(db, name)) for name in ('run', 'report', 'check', 'conform'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_scores_are_those_of_the_records(results: db.Results) -> None:
    scores = results.scores
    assert list(scores.columns) == ["row", "role", "seed", "task", "metric", "value"]
    assert set(zip(scores["row"], scores["seed"], strict=True)) == {
        ("teacher", 0),
        *((row, seed) for row in ("untrained", "mse", "simcse") for seed in (1, 2)),
    }
    by_run = {(record.label, record.seed): record for record in results.records}
    for line in scores.to_dict("records"):
        assert by_run[line["row"], line["seed"]].scores[line["task"]][line["metric"]] == line["value"]


def test_runs_and_costs_have_a_line_each(results: db.Results) -> None:
    assert set(results.runs["status"]) == {"completed"}
    assert len(results.runs) == len(results.records) == 7
    costs = results.costs.set_index(["row", "seed", "cost"])["value"]
    assert costs["mse", 1, "steps"] == 3
    assert costs["mse", 1, "seconds_train"] > 0
    assert repr(results) == "Results of mine: 2 methods x 2 seeds, 1 tasks; runs: 7 completed"


def test_a_study_is_run_with_the_options_that_are_given(
    here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = db.load_study("mine.yaml", "budget.steps=2", methods=["mse"], seeds=[5], limit=40)
    silent = db.run(study, out=tmp_path / "one", progress=False)
    assert capfd.readouterr() == ("", "")
    assert {(record.label, record.seed) for record in silent.records} == {("teacher", 0), ("untrained", 5), ("mse", 5)}
    assert silent.folder == (tmp_path / "one" / "mine-limit40").resolve()
    db.run(study, out=tmp_path / "two", threads=1)
    told = capfd.readouterr().err
    assert "[3/3] mse seed 5: DistilbenchSTS" in told and "LOAD REPORT" not in told and "Loading weights" not in told


def test_mistakes_are_one_sentence(results: db.Results, tmp_path: Path) -> None:
    for wrong, message in (
        (lambda: db.load_study("mine.yaml", seedz=3), "did you mean 'seeds'?"),
        (lambda: db.read_results(tmp_path / "nothing"), "does not exist"),
        (lambda: results.compare(reference="msee"), "did you mean 'mse'?"),
        (lambda: results.compare(column="Overal"), "did you mean 'Overall'?"),
        (lambda: results.plot("score"), "did you mean 'scores'?"),
        (lambda: results.plot("tuning"), "unknown figure"),
        (lambda: results.plot("dev_scores" if "dev_scores" in results.plots else "response"), "nothing to draw"),
        (lambda: db.conform("msee"), "did you mean 'mse'?"),
        (lambda: db.check(results, tmp_path / "none.json"), "none.json"),
    ):
        call: Callable[[], object] = wrong
        with pytest.raises(db.UserError) as caught:
            call()
        assert message in str(caught.value) or "nothing to draw" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_every_figure_with_data_is_a_figure() -> None:
    results = db.read_results(RECORDS)
    drawn = 0
    for name in results.plots:
        try:
            assert isinstance(results.plot(name), Figure)
            drawn += 1
        except db.UserError as error:
            assert "nothing to draw" in str(error)
    assert drawn == len(list((ROOT / "reports" / "minilm-50k" / "figures").glob("*.svg")))


def test_verdicts_are_those_of_the_report() -> None:
    results = db.read_results(RECORDS)
    table = pd.read_csv(ROOT / "reports" / "minilm-50k" / "tables" / "verdicts.csv")
    table = table[table["Column"] == "Overall"] if "Column" in table else table
    mine = results.compare()
    assert len(mine) == len(table) > 0
    for line, row in zip(mine.itertuples(), table.to_dict("records"), strict=True):
        assert line.verdict == row["Verdict"]
        assert line.points == pytest.approx(row["Difference"], abs=1e-9)
    against = results.compare(reference="mse")
    assert set(against["other"]) == {"mse"} and len(against) == 9
    turned = mine.set_index(["row", "other"])["points"]
    for line in against.itertuples():
        known = turned.get((line.row, "mse"), -turned.get(("mse", line.row), 0.0))
        assert line.points == pytest.approx(known)
    everything = db.read_results(RECORDS, margin=100).compare()
    assert set(everything["verdict"]) == {"equivalent"}


def test_results_of_several_studies_are_named() -> None:
    with pytest.raises(db.UserError, match="name one"):
        db.read_results(ROOT / "results")


def test_a_class_is_checked_as_a_registered_method_is() -> None:
    from distilbench_methods.mse import MSE

    by_name, by_class = db.conform("mse", metric="l2"), db.conform(MSE, metric="l2")
    assert [item.status for item in by_name] == [item.status for item in by_class]
    assert "failed" not in {item.status for item in by_class}
    with pytest.raises(db.UserError, match="metric"):
        db.conform(MSE, metric="none")
