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

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

import distilbench as db
from distilbench.cli.app import main
from distilbench.records.record import Record
from distilbench.reporting.figures.all_figures import FIGURES
from distilbench.reporting.figures.style import styled
from distilbench_methods.mse import MSE
from tests import typed_script
from tests.reporting.conftest import make_record, write_study
from tests.reporting.planted import factorial, simulate

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "results" / "minilm-50k"
REPORT = ROOT / "reports" / "minilm-50k"


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


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A factorial ablation of which one factor matters."""
    folder = tmp_path_factory.mktemp("results") / "planted"
    ablation = factorial(a=["no", "yes"], b=["no", "yes"])
    effect = simulate(ablation, lambda levels: 0.3 + 0.2 * (levels["a"] == "yes"), 3, np.random.default_rng(0))
    effect.write(folder, ablation)
    return folder


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
    db.run("mine.yaml", out="results", mirror=".", device="cpu", limit=7, checkpoint_seconds=9, **engine)  # type: ignore[arg-type]

    study, settings, options, watch = given
    assert study.limit == 7 and watch == "ProgressBar"
    assert (settings.out, settings.mirror) == (Path("results"), Path())
    assert (settings.device, settings.checkpoint_seconds) == ("cpu", 9)
    assert {name: getattr(options, name) for name in engine} == engine


SEEDS = count(10)


@pytest.fixture
def study(place: Path) -> db.Study:
    """A study that takes a second, of a seed that nothing was run with."""
    return db.load_study("mine.yaml", methods=["mse"], seeds=[next(SEEDS)])


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


def test_failed_runs_have_no_scores_and_are_counted(tmp_path: Path) -> None:
    records = [make_record("mse", 1, (0.6, 0.7, 0.5)), make_record("<b>", 1, None, status="failed", error="no disk")]
    results = db.read_results(write_study(tmp_path / "demo", records))
    assert set(results.scores["row"]) == {"mse"}
    assert [None if pd.isna(error) else error for error in results.runs["error"]] == ["no disk", None]
    assert repr(results) == (
        "Results of demo: 2 methods x 1 seed, 3 tasks (STS-A, STS-B, Search); runs: 1 failed, 1 completed"
    )
    assert results._repr_html_().startswith("Results of <b>demo</b>: 2 methods x 1 seed, 3 tasks")
    nothing = db.read_results(write_study(tmp_path / "none", [make_record("mse", 1, None, status="failed")], False))
    assert len(nothing.scores) == len(nothing.costs) == 0 and nothing.scores["value"].dtype == "float64"
    assert nothing.plots == []


def test_rows_of_different_settings_have_names_of_their_own(tmp_path: Path) -> None:
    budgets = ({"currency": "steps", "amount": 3}, {"currency": "steps", "amount": 4})
    records = [make_record("mse", n, (0.6, 0.7, 0.5), run_id=str(n), budget=budgets[n]) for n in (0, 1)]
    results = db.read_results(write_study(tmp_path / "demo", records))
    assert set(results.scores["row"]) == set(results.costs["row"]) == {"mse [a]", "mse [b]"}


# Verdicts


def verdicts(folder: Path) -> list[tuple[str, ...]]:
    """The table of a report as it is printed: names, difference with its interval, verdict."""
    table = json.loads((folder / "tables" / "verdicts.json").read_text(encoding="utf-8"))
    return [(row["Method"], row["Against"], row["Difference"], row["Verdict"]) for row in table["shown"]]


def printed(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """The same from what `compare` gives."""
    return [
        (line["row"], line["other"], f"{line['points']:+.2f} ± {line['high'] - line['points']:.2f}", line["verdict"])
        for line in frame.to_dict("records")
    ]


@pytest.mark.parametrize("margin", [0.5, 30.0])
def test_verdicts_are_those_of_the_report(
    planted: Path, tmp_path: Path, margin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distilbench.reporting.figures.all_figures.FIGURES", {})
    results = db.read_results(planted)
    [page] = db.report(results, tmp_path, margin=margin)
    mine = results.compare(margin=margin)
    assert printed(mine) == verdicts(page.parent)
    assert len(set(mine["verdict"])) > 1 or margin > 1
    assert ((mine["points"] - mine["low"]) - (mine["high"] - mine["points"])).abs().max() < 1e-9


def test_each_row_is_compared_with_the_reference(planted: Path) -> None:
    results = db.read_results(planted)
    pairs, reference = results.compare(column="STS"), "yes+no"
    against = results.compare(reference, column="STS")
    assert list(against["other"]) == [reference] * 3 and set(against["row"]) == {"no+no", "no+yes", "yes+yes"}
    known = {(line["row"], line["other"]): line for line in pairs.to_dict("records")}
    turned = {"better": "worse", "worse": "better"}
    for line in against.to_dict("records"):
        if (line["row"], reference) in known:
            assert line == known[line["row"], reference]
            continue
        other = known[reference, line["row"]]
        assert (line["points"], line["low"], line["high"]) == (-other["points"], -other["high"], -other["low"])
        assert line["verdict"] == turned.get(other["verdict"], other["verdict"])
        assert (line["p_differs"], line["p_within"]) == (other["p_differs"], other["p_within"])


@pytest.mark.slow
def test_the_checked_in_records_give_the_checked_in_verdicts_and_figures() -> None:
    results = db.read_results(RECORDS)
    assert printed(results.compare()) == verdicts(REPORT)
    assert len(results.compare("mse")) == 9
    assert set(results.plots) == {path.stem for path in (REPORT / "figures").glob("*.svg")}


# Figures


def drawn(path: Path) -> list[tuple[str, str]]:
    """All elements and texts of a drawing; where they are depends on how often it was laid out, by fractions."""
    return re.findall(r"<(\w+)|<!-- (.*?) -->", path.read_text(encoding="utf-8"))


def test_figures_are_those_of_the_report(planted: Path, tmp_path: Path) -> None:
    results = db.read_results(planted)
    [page] = db.report(results, tmp_path, reference="no+yes")
    assert {"scores", "differences", "ranks", "ablation", "interactions"} <= set(results.plots)
    assert set(results.plots) == {path.stem for path in (page.parent / "figures").glob("*.svg")}
    for name in results.plots:
        figure = results.plot(name, reference="no+yes")
        assert isinstance(figure, Figure)
        with styled(name):
            figure.savefig(tmp_path / f"{name}.svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        assert drawn(tmp_path / f"{name}.svg") == drawn(page.parent / "figures" / f"{name}.svg")


def test_a_notebook_shows_a_figure(results: db.Results) -> None:
    figure: Any = results.plot("scores")
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_without_data_says_what_is_missing(tmp_path: Path, name: str) -> None:
    results = db.read_results(write_study(tmp_path / "demo", [make_record("mse", 1, None, status="failed")], False))
    with pytest.raises(db.UserError, match=f"demo has no data for the figure {name}: it needs .{{10}}"):
        results.plot(name)


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
    "unknown column": (lambda: db.read_results("results/mine").compare(column="Overal"), "did you mean 'Overall'?"),
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


def test_one_of_several_studies_is_to_be_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_study(tmp_path / name, [make_record("mse", 1, (0.6, 0.7, 0.5))])
    with pytest.raises(db.UserError, match=r"holds 2 studies; read one of them: .*one, .*two$"):
        db.read_results(tmp_path)


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    results = db.read_results(write_study(tmp_path / "demo", [make_record("mse", 1, (0.6, 0.7, 0.5))]))
    with pytest.raises(db.UserError, match="there is nothing to compare"):
        results.compare()
