"""The Python interface: what its page shows runs, and each call gives what the command line gives."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml

import distilbench as db
from distilbench.cli.app import main
from distilbench.records.record import Record
from distilbench_methods.mse import MSE
from tests import typed_script

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(teacher_folder: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a study of two methods, its results, and a baseline of them."""
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILBENCH_CACHE", str(folder / "cache"))
        patch.delenv("DISTILBENCH_MIRROR", raising=False)
        patch.chdir(folder)
        db.run(db.load_study("mine.yaml", seeds=2), progress=False)
        assert main(["check", "results/mine", "--baseline", "baseline.json", "--bless"]) == 0
        yield folder


@pytest.fixture
def results(place: Path) -> db.Results:
    return db.read_results("results/mine")


# What is imported


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, distilbench\n"
        "assert 'run' in dir(distilbench) and distilbench.__version__\n"
        "sys.exit(' '.join({'torch', 'numpy', 'pandas', 'matplotlib', 'pydantic'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", db.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(db, name)
    assert value.__doc__ and name in dir(db)


def test_no_module_takes_the_place_of_a_public_name() -> None:
    modules = {path.stem for path in Path(db.__file__).parent.iterdir()}
    assert not modules & set(db.__all__)


def test_a_typed_script_runs(place: Path) -> None:
    assert typed_script.script("mine.yaml", "baseline.json") == "module 'distilbench' has no attribute 'nothing'"


def test_what_the_page_shows_runs(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine.yaml", "baseline.json", "baseline.parquet"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    script = tmp_path / "page.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), encoding="utf-8")
    names: dict[str, Any] = {"__name__": "page"}
    monkeypatch.setitem(sys.modules, "page", ModuleType("page"))
    exec(compile(script.read_text(encoding="utf-8"), script, "exec"), names)

    assert [page.is_file() for page in names["pages"]] == [True] and (tmp_path / "scores.pdf").is_file()
    assert names["checked"].verdict == "pass" and set(names["verdicts"]["other"]) == {"mse"}
    assert isinstance(names["study"], db.Study)


# Studies and runs


def test_keys_of_a_study_are_changed_as_on_the_command_line(place: Path) -> None:
    study = db.load_study("mine.yaml", "train.batch_size=8", methods=["mse"], budget={"tokens": 100}, limit=40)
    assert (study.train.batch_size, study.train.max_length) == (8, 64)
    assert (study.budget.currency, study.budget.amount, study.limit) == ("tokens", 100, 40)
    assert [entry.label for entry in study.methods] == ["mse"] and study.seeds == [1, 2, 3]
    assert db.load_study(Path("mine.yaml"), seeds=[4]).seeds == [4]


def test_a_run_is_quiet_and_leaves_libraries_as_they_were(
    place: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from transformers.utils import logging

    logging.set_verbosity_info()
    logging.enable_progress_bar()
    try:
        done = db.run(db.load_study("mine.yaml", methods=["mse"], seeds=1), out="silent", limit=40, progress=False)
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.INFO, True)
    finally:
        logging.set_verbosity_warning()
    assert capfd.readouterr() == ("", "") and [record.message for record in caplog.records] == []
    assert done.folder == Path("silent/mine-limit40").resolve() and set(done.runs["status"]) == {"completed"}


def test_options_of_a_run_reach_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distilbench.runs import study_run

    given: list[Any] = []

    def run_study(study: object, settings: object, options: object, watch: object) -> list[Any]:
        given.extend([study, settings, options, type(watch).__name__])
        return [SimpleNamespace(record=SimpleNamespace(study="mine"))]

    monkeypatch.setattr(study_run, "run_study", run_study)
    engine = {"engine": "ray", "address": "auto", "jobs": 3, "threads": 2, "gpu_share": 0.5}
    more = {"checkpoint_seconds": 9, "log": "tensorboard", "log_dir": "elsewhere"}
    db.run("mine.yaml", out="results", mirror=".", device="cpu", limit=7, **more, **engine)  # type: ignore[arg-type]

    study, settings, options, watch = given
    assert study.limit == 7 and watch == "ProgressBar"
    assert (settings.out, settings.mirror) == (Path("results"), Path())
    assert (settings.device, settings.checkpoint_seconds) == ("cpu", 9)
    assert (settings.trackers, settings.log_folder) == (("tensorboard",), Path("elsewhere"))
    assert {name: getattr(options, name) for name in engine} == engine


SEEDS = count(10)


@pytest.fixture
def study(place: Path) -> db.Study:
    """A study that takes a second, of a seed that nothing was run with."""
    return db.load_study("mine.yaml", methods=["mse"], seeds=[next(SEEDS)])


def test_workers_do_not_import_the_script_that_asks_for_them(
    study: db.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"open({str(tmp_path / 'imported')!r}, 'x')")
    main_module: Any = ModuleType("__main__")
    main_module.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main_module)
    done = db.run(study, out=tmp_path, jobs=2, progress=False)
    assert set(done.runs["status"]) == {"completed"} and not (tmp_path / "imported").exists()


def test_without_a_terminal_progress_is_lines(
    study: db.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db.run(study, out=tmp_path)
    out, err = capsys.readouterr()
    assert re.search(rf"^\[3/3\] mse seed {study.seeds[0]}: DistilbenchSTS \d", err, re.MULTILINE)
    assert out == "" and "running" not in err


def test_in_a_terminal_there_is_a_bar(
    study: db.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rich takes what it writes to for a terminal then.
    monkeypatch.setenv("FORCE_COLOR", "1")
    db.run(study, out=tmp_path)
    assert f"1 running (mse seed {study.seeds[0]}), 2 done, 0 failed" in capsys.readouterr().err


class Widget:
    """A stand-in for ipywidgets.Output."""

    def __enter__(self) -> None: ...

    def __exit__(self, *exception: object) -> None: ...

    def clear_output(self, wait: bool) -> None: ...

    def close(self) -> None: ...


def notebook(monkeypatch: pytest.MonkeyPatch, *, widgets: bool) -> list[str]:
    """Have rich believe that it is in a notebook; what is displayed there."""
    shown: list[str] = []
    module = ModuleType("IPython.display")
    module.__dict__["display"] = lambda item: shown.append(getattr(item, "text", type(item).__name__))
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    if widgets:
        package = ModuleType("ipywidgets")
        package.__spec__ = ModuleSpec("ipywidgets", None)
        package.__dict__["Output"] = Widget
        monkeypatch.setitem(sys.modules, "ipywidgets", package)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    return shown


def test_in_a_notebook_there_is_a_bar(study: db.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = notebook(monkeypatch, widgets=True)
    db.run(study, out=tmp_path)
    assert "Widget" in shown and any(f"1 running (mse seed {study.seeds[0]})" in text for text in shown)
    assert any(f"[3/3] mse seed {study.seeds[0]}: DistilbenchSTS" in text for text in shown)


def test_in_a_notebook_without_widgets_progress_is_lines(
    study: db.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = notebook(monkeypatch, widgets=False)
    db.run(study, out=tmp_path)
    assert shown == [] and f"[3/3] mse seed {study.seeds[0]}: " in capsys.readouterr().err


# Frames


def test_scores_are_those_of_the_records(results: db.Results) -> None:
    scores = results.scores
    assert dict(scores.dtypes.drop(["row", "role", "task", "metric"])) == {"seed": "int64", "value": "float64"}
    assert set(scores[["row", "role", "seed"]].itertuples(index=False, name=None)) == {
        ("ceiling (teacher)", "ceiling", 0),
        *((row, "method", seed) for row in ("mse", "simcse") for seed in (1, 2)),
        *(("floor (untrained)", "floor", seed) for seed in (1, 2)),
    }
    by_run = {(record.role, record.seed, record.label): record for record in results.records}
    names = {"ceiling (teacher)": "teacher", "floor (untrained)": "untrained"}
    for line in scores.to_dict("records"):
        record: Record = by_run[line["role"], line["seed"], names.get(line["row"], line["row"])]
        assert record.scores[line["task"]][str(line["metric"])] == line["value"]
    assert len(scores) == sum(len(values) for record in results.records for values in record.scores.values())


def test_runs_and_costs_have_a_line_each(results: db.Results) -> None:
    assert list(results.runs) == ["run_id", "row", "role", "method", "seed", "status", "error"]
    assert list(results.runs["run_id"]) == [record.run_id for record in results.records]
    costs = results.costs.set_index(["row", "seed", "cost"])["value"]
    ledger = next(record.ledger for record in results.records if (record.label, record.seed) == ("mse", 1))
    assert costs["mse", 1, "steps"] == ledger["steps"] == 3
    assert costs["mse", 1, "seconds_train"] == ledger["seconds"]["train"] > 0


# Gate and kit


def test_check_takes_the_options_of_the_command_line(
    place: Path, results: db.Results, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--margin", "40", "--alpha", "0.2", "--tasks", "DistilbenchSTS", "--json"]
    code = main(["check", "results/mine", "--baseline", "baseline.json", *options])
    told = json.loads(capsys.readouterr().out)
    checked = db.check(results, "baseline.json", margin=40, alpha=0.2, tasks=["DistilbenchSTS"])
    assert (checked.verdict, checked.exit_code) == (told["verdict"], code)
    assert json.loads(json.dumps(checked.as_dict())) == {key: told[key] for key in checked.as_dict()}
    frame = pd.DataFrame(checked.lines)
    assert list(frame["verdict"]) == [line["verdict"] for line in told["lines"]]
    assert set(frame["label"]) == {"mse", "simcse"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row": "msee"}, "did you mean 'mse'"),
        ({"row": "mse", "mirror": "nowhere"}, "the mirror nowhere is not a folder"),
        ({"row": "mse", "device": "gpu"}, "'gpu' is not a device"),
        ({"row": "mse", "tasks": ["STS"]}, "the baseline has no scores of STS"),
    ],
)
def test_options_of_a_model_s_check_reach_it(results: db.Results, options: dict[str, Any], message: str) -> None:
    run_id = next(record.run_id for record in results.records if record.label == "mse")
    with pytest.raises(db.UserError, match=message):
        db.check(f"cache/runs/{run_id}/model", "baseline.json", **options)


def test_options_of_a_study_s_check_reach_it(results: db.Results, tmp_path: Path) -> None:
    (tmp_path / "slices.csv").write_text("task,example,slice\nDistilbenchSTS,0,first\n")
    sliced = db.check(results, "baseline.json", slices=tmp_path / "slices.csv")
    assert any("first" in line.column for line in sliced.lines)
    with pytest.raises(db.UserError, match="has no vectors of mse"):
        db.check("results/mine", "baseline.json", drift=True)


def test_a_class_is_checked_as_a_registered_method_is() -> None:
    by_name, by_class = db.conform("mse", metric="l2"), db.conform(MSE, metric="l2")
    assert [item.status for item in by_name] == [item.status for item in by_class]
    assert "failed" not in {item.status for item in by_class}


def test_a_class_that_breaks_its_contract_fails() -> None:
    class Unnamed(MSE):
        name = "something else "

        def extra_flops(self, dims: db.Dims, batch_size: int, num_tokens: int) -> float:
            return -1.0

    failed = {outcome.check: outcome.explanation for outcome in db.conform(Unnamed) if outcome.status == "failed"}
    assert any("flops" in check for check in failed), failed


# Mistakes


def broken_study(**changes: Any) -> db.Study:
    values = db.load_study("mine.yaml").model_dump(exclude_unset=True)
    return db.Study(**{**values, "methods": ["mse"], **changes})


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "unknown study": (lambda: db.load_study("demoo"), "did you mean 'demo'?"),
    "unknown key": (lambda: db.load_study("mine.yaml", seedz=3), "did you mean 'seeds'?"),
    "unknown key in Python": (lambda: broken_study(seedz=3), "did you mean 'seeds'?"),
    "unknown key of a section": (lambda: broken_study(budget={"stps": 3}), "did you mean 'steps'?"),
    "unknown method": (lambda: broken_study(methods=["msee"]), "did you mean 'mse'?"),
    "wrong ablation": (
        lambda: db.run(broken_study(ablate={"mse": {"factors": {"metrc": ["l2"]}}}), progress=False),
        "did you mean 'metric'?",
    ),
    "no results": (lambda: db.read_results("nothing"), "does not exist"),
    "unknown reference": (lambda: db.read_results("results/mine").compare("msee"), "did you mean 'mse'?"),
    "unknown column": (
        lambda: db.read_results("results/mine").compare(column="Mean (Tas)"),
        "did you mean 'Mean (Task)'?",
    ),
    "unknown figure": (lambda: db.read_results("results/mine").plot("score"), "did you mean 'scores'?"),
    "unknown figure's reference": (
        lambda: db.read_results("results/mine").plot("differences", reference="msee"),
        "did you mean 'mse'?",
    ),
    "report in place of records": (lambda: db.report("results/mine", "results"), "would replace the records"),
    "no baseline": (lambda: db.check("results/mine", "none.json"), "none.json"),
    "unknown method's name": (lambda: db.conform("msee"), "did you mean 'mse'?"),
    "unknown hyperparameter": (lambda: db.conform("mse", metrik="l2"), "did you mean 'metric'?"),
    "unknown hyperparameter of a class": (lambda: db.conform(MSE, metrik="l2"), "metrik"),
    "wrong hyperparameter of a class": (lambda: db.conform(MSE, metric="none"), "metric"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence(place: Path, mistake: str) -> None:
    call, message = MISTAKES[mistake]
    with pytest.raises(db.UserError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
