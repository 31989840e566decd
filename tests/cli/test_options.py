"""Every option of every verb, driven from the command line to what it changes. A new option needs a row here."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pandas as pd
import pytest
import yaml
from mteb.abstasks import AbsTaskMultilabelClassification
from sentence_transformers import SentenceTransformer

from distilbench.cli import studies
from distilbench.cli.app import main, parsers
from distilbench.core.libraries import logging_at
from distilbench.evaluation.task_types.kinds import SCORED_TYPES
from distilbench.evaluation.tasks import content
from distilbench.evaluation.tasks.by_name import load_task
from distilbench.gate import history as gate_history
from distilbench.gate import run as gate_run
from distilbench.gate.baseline import Scores
from distilbench.gate.candidate import encoder_of
from distilbench.gate.check import CheckLine, CheckResult, Verdict, check
from distilbench.records.record import Record, read_study
from distilbench.reporting.figures import all_figures
from distilbench.runs.engines import EngineOptions, worker_pool
from distilbench.runs.engines.in_process import in_this_process
from distilbench.runs.engines.layout import Layout
from distilbench.runs.engines.worker import WorkerOrder
from distilbench.runs.prepare.prepared import PreparedRun
from distilbench.training.checkpoints import Checkpoints
from tests.conftest import sentences, shut_network

Cli = Callable[..., tuple[int, str, str]]
TASK = "DistilbenchSTS"
SHOWN: dict[tuple[str, str], str] = {}
"""Verb and option -> the test that shows what the option does."""


def shows(verb: str, *options: str) -> Callable[[Any], Any]:
    """Marks a test as the one that drives some options."""

    def mark(test: Any) -> Any:
        SHOWN.update({(verb, option): test.__name__ for option in options})
        return test

    return mark


@pytest.fixture(scope="module")
def place(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a study that has been run: two methods, two seeds, an STS and a retrieval task of its own."""
    folder = tmp_path_factory.mktemp("options")
    texts = sentences(240)
    (folder / "text.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    _write_search(folder / "search", texts)
    values = {
        "name": "tiny",
        "teacher": str(teacher_folder),
        "student": {"layers": 2, "width": 16},
        "text": {"source": str(folder / "text.txt"), "evaluation_text": "keep"},
        "budget": {"steps": 3},
        "methods": ["mse", "simcse"],
        "seeds": 2,
        "tasks": [TASK, {"search": {"source": str(folder / "search")}}],
        "train": {"batch_size": 16, "max_length": 64},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILBENCH_CACHE", str(folder / "cache"))
        patch.delenv("DISTILBENCH_MIRROR", raising=False)
        patch.chdir(folder)
        assert main(["run", "study.yaml"]) == 0
        assert main(["check", "results/tiny", "--baseline", "blessed.json", "--bless", "--drift"]) == 0
        yield folder


def _write_search(folder: Path, texts: list[str]) -> None:
    """Queries that are the beginnings of documents, in BEIR's layout."""
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{n}", "title": "", "text": text} for n, text in enumerate(texts[:60])]
    queries = [{"_id": f"q{n}", "text": " ".join(text.split()[:4])} for n, text in enumerate(texts[:30])]
    for name, rows in {"corpus": corpus, "queries": queries}.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    judged = "".join(f"q{n}\td{n}\t1\n" for n in range(30))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")


@pytest.fixture
def cli(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs distilbench in that folder; gives the exit code, the output and the errors."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("DISTILBENCH_CACHE", str(place / "cache"))
    monkeypatch.delenv("DISTILBENCH_MIRROR", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def record_of(folder: Path, label: str) -> Record:
    return next(record for record in read_study(folder) if record.label == label)


def run_of(place: Path, label: str) -> Path:
    """The folder of a row's first run."""
    return place / "results" / "tiny" / record_of(place / "results" / "tiny", label).run_id


def test_every_option_has_a_row() -> None:
    options = {
        (verb, action.option_strings[-1] if action.option_strings else action.dest)
        for verb, parser in parsers().items()
        for action in parser._actions
        if action.dest != "help"
    }
    assert options - set(SHOWN) == set()
    assert set(SHOWN) - options == set()


TABLES = {
    "run": ("run", "study.yaml", "--dry-run"),
    "power": ("power", "results/tiny"),
    "advise": ("advise", "--results", "results/tiny"),
    "check": ("check", "results/tiny", "--baseline", "blessed.json"),
    "studies": ("studies",),
    "methods": ("methods",),
    "tasks": ("tasks",),
    "conform": ("conform", "mse"),
    "prefetch": ("prefetch", "study.yaml", f"tasks=[{TASK}]", "--out", "filled"),
    "error-rates": ("error-rates", "results/tiny", "--studies", "2"),
    "diff": ("diff",),
    "calibrate": ("calibrate",),
}
"""Verbs that print tables -> how; the last two are shown with their other options."""


@shows("run", "--json")
@pytest.mark.parametrize("verb", [verb for verb in TABLES if verb not in ("diff", "calibrate")])
def test_tables_are_for_programs_too(verb: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    _, out, err = cli(*TABLES[verb], "--format", "tsv")
    lines = [line.split("\t") for line in out.split("\n\n")[0].splitlines()]
    assert len(lines) > 1 and len({len(line) for line in lines}) == 1 and len(lines[0]) > 1, out + err
    assert json.loads(cli(*TABLES[verb], "--json")[1])
    if verb != "check":
        assert max(map(len, cli(*TABLES[verb], "--wide")[1].splitlines())) > 40


for _verb in TABLES:
    SHOWN.update({(_verb, "--format"): "test_tables_are_for_programs_too", (_verb, "--wide"): "the same"})


for _verb in parsers():
    SHOWN.update(
        {(_verb, "--quiet"): "test_quiet_leaves_results_alone", (_verb, "--verbose"): "test_details_are_logged"}
    )
SHOWN["completion", "shell"] = "tests/cli/test_completion.py"


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "study.yaml", "seeds=1"),
        ("check", "results/tiny", "--baseline", "blessed.json"),
        ("tasks", "--find", "biosses"),
        ("conform", "mse"),
        ("methods", "mse", "--format", "tsv"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_quiet_leaves_results_alone(cli: Cli, arguments: tuple[str, ...]) -> None:
    loud, quiet = cli(*arguments), cli(*arguments, "--quiet")
    assert loud[2] != "" == quiet[2]
    assert quiet[:2] == loud[:2] == cli("-q", *arguments)[:2]
    assert cli("-q", "run", "no-such-study.yaml")[2].count("\n") == 1


def test_quiet_is_for_warnings_in_the_log_too(cli: Cli) -> None:
    logger = logging.getLogger("distilbench")
    levels: list[int] = []

    def note_the_level(_: object) -> int:
        levels.append(logger.level)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "action", note_the_level)
        for more in ([], ["-q"], ["-v"]):
            assert cli("studies", *more)[0] == 0
    assert levels == [logging.NOTSET, logging.ERROR, logging.INFO] and logger.level == logging.NOTSET


def test_details_are_logged(cli: Cli, tmp_path: Path) -> None:
    arguments = ("run", "study.yaml", "methods=[mse]", "seeds=1")
    plain = cli(*arguments, "--out", tmp_path / "plain")[2]
    code, _, err = cli(*arguments, "train.learning_rate=0.0123", "--out", tmp_path / "verbose", "-v")
    assert code == 0 and re.search(r"INFO distilbench\.runs\.run: mse seed 1 is completed: setup [\d.]+ s, ", err), err
    assert "the trial of mse is made in" in err and "INFO" not in plain
    code, _, err = cli("-v", "run", "no-such-study.yaml")
    assert code == 2 and "Traceback" in err and err.splitlines()[-1].startswith("distilbench: error: ")


def test_workers_log_as_their_driver_does(place: Path) -> None:
    with logging_at(logging.INFO):
        order = WorkerOrder(*([None] * 4))  # type: ignore[arg-type]
    assert order.log_level == logging.INFO and WorkerOrder(*([None] * 4)).log_level is None  # type: ignore[arg-type]


@shows("check", "--study")
def test_the_tasks_of_a_study_are_checked(cli: Cli) -> None:
    code, out, err = cli("check", "results/tiny", "--baseline", "blessed.json", "--study", "study.yaml")
    assert code in (0, 3) and TASK in out, err
    narrower = cli("check", "results/tiny", "--baseline", "blessed.json", "--study", "study.yaml", "--tasks", "no-such")
    assert narrower[0] == 2 and "no-such" in narrower[2]


# run


@shows("run", "study", "--out", "overrides")
def test_run_writes_records_of_the_changed_study_to_the_folder(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli(
        "run", "study.yaml", "methods=[mse]", "--out", tmp_path / "elsewhere", "seeds=1", "budget.steps=2"
    )
    assert code == 0, err
    records = read_study(tmp_path / "elsewhere" / "tiny")
    assert {(record.label, record.seed) for record in records} == {("teacher", 0), ("untrained", 1), ("mse", 1)}
    assert record_of(tmp_path / "elsewhere" / "tiny", "mse").ledger["steps"] == 2


@shows("run", "--dry-run", "--budget")
def test_a_budget_of_another_currency_is_another_study(cli: Cli, place: Path) -> None:
    code, out, err = cli("run", "study.yaml", "--budget", "sentences=32", "--dry-run")
    assert code == 0, err
    assert "tiny-sentences" in out and re.search(r"\b32\b", out)
    assert not (place / "results" / "tiny-sentences").exists()


@shows("run", "--mirror")
def test_text_is_read_from_the_mirror(cli: Cli, place: Path, tmp_path: Path) -> None:
    shutil.copy(place / "text.txt", tmp_path / "mirrored.txt")
    arguments = (
        "run",
        "study.yaml",
        "text.source=mirror:mirrored.txt",
        "text.sentences=99",
        "methods=[mse]",
        "seeds=1",
    )
    code, _, err = cli(*arguments, "--mirror", tmp_path, "--out", tmp_path / "out")
    assert code == 0, err
    read = record_of(tmp_path / "out" / "tiny", "mse").text
    assert (read["source"], read["sentences"]) == ("mirror:mirrored.txt", 99)
    assert "needs a mirror" in cli(*arguments)[2]


@shows("run", "--limit")
def test_a_limit_shortens_text_and_tasks(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("run", "study.yaml", "methods=[mse]", "seeds=1", "--limit", 20, "--out", tmp_path)
    assert code == 0, err
    record = record_of(tmp_path / "tiny-limit20", "mse")
    assert (record.limit, record.text["sentences"], record.tasks[TASK]["examples"]) == (20, 20, 20)


@shows("run", "--device")
def test_a_run_is_on_the_device_that_was_asked_for(cli: Cli, place: Path) -> None:
    assert "device: cpu" in cli("run", "study.yaml", "--device", "cpu", "--dry-run")[1]
    code, _, err = cli("run", "study.yaml", "--device", "cuda:9", "--dry-run")
    assert (code, "device cuda:9 is not available here" in err) == (2, True)


@shows("run", "--checkpoint-seconds")
@pytest.mark.parametrize(("seconds", "expected"), [("0", 3), ("1000", 0)])
def test_checkpoints_are_as_frequent_as_asked(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: str, expected: int
) -> None:
    saved: list[int] = []
    monkeypatch.setattr(Checkpoints, "save", lambda *_: saved.append(1))
    changes = ("methods=[mse]", "seeds=1", f"train.learning_rate={0.001 + 0.001 * expected}")
    code, _, err = cli("run", "study.yaml", *changes, "--checkpoint-seconds", seconds, "--out", tmp_path)
    assert (code, len(saved)) == (0, expected), err


@shows("run", "--threads")
def test_a_run_has_the_threads_that_were_asked_for(cli: Cli, tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        few = ("methods=[mse]", "seeds=1", "--limit", 20)
        assert cli("run", "study.yaml", *few, "--threads", 2, "--out", tmp_path)[0] == 0
    finally:
        torch.set_num_threads(before)
    assert record_of(tmp_path / "tiny-limit20", "teacher").environment["threads"] == 2


@shows("run", "--jobs")
def test_jobs_are_workers(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts: list[Layout] = []

    class Here:
        def __init__(self, layout: Layout) -> None:
            layouts.append(layout)

        def __call__(self, runs: list[PreparedRun], on_progress: Any, job: Any) -> Any:
            return in_this_process(runs, on_progress, job)

    monkeypatch.setattr(worker_pool, "Workers", Here)
    assert cli("run", "study.yaml", "methods=[mse]", "seeds=1", "--jobs", 3, "--out", tmp_path)[0] == 0
    assert [layout.jobs for layout in layouts] == [3]


@shows("run", "--log", "--log-dir")
def test_curves_are_shown_by_the_trackers_in_the_folder(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    changes = ("methods=[mse]", "seeds=1", "--out", tmp_path / "out")
    assert cli("run", "study.yaml", *changes, "--log", "tensorboard", "--log-dir", tmp_path / "logs")[0] == 0
    assert len(list((tmp_path / "logs" / "tiny").glob("*/events.out.tfevents.*"))) == 3
    assert "unknown tracker 'tensorbord'" in cli("run", "study.yaml", "--log", "tensorbord")[2]


@shows("run", "--engine", "--address", "--gpu-share")
def test_a_cluster_gets_its_address_and_the_share_of_a_gpu(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distilbench.runs.engines import on_ray

    given: list[EngineOptions] = []

    class Cluster:
        def __init__(self, options: EngineOptions, _: str) -> None:
            given.append(options)

        def __call__(self, runs: list[PreparedRun], on_progress: Any, job: Any) -> Any:
            return in_this_process(runs, on_progress, job)

    monkeypatch.setattr(on_ray, "OnRay", Cluster)
    changes = ("methods=[mse]", "seeds=1", "--out", tmp_path)
    code, _, err = cli(
        "run", "study.yaml", *changes, "--engine", "ray", "--address", "a-host:6379", "--gpu-share", "0.25"
    )
    assert code == 0, err
    assert given == [EngineOptions(engine="ray", address="a-host:6379", gpu_share=0.25)]
    assert "--address is for --engine ray" in cli("run", "study.yaml", "--address", "a-host:6379")[2]


# report, power, advise, diff, export


@shows("report", "--layout", "--columns", "--digits")
def test_latex_has_the_layout_and_the_columns_that_were_asked_for(cli: Cli, tmp_path: Path) -> None:
    options = ("--layout", "two-column", "--columns", "Method", "Mean (Task)", "--digits", 1)
    code, _, err = cli("report", "results/tiny", "--out", tmp_path, *options)
    assert code == 0, err
    tables = tmp_path / "tiny" / "tables"
    assert r"{Method} & \multicolumn{2}{c}{Mean (Task)} \\" in (tables / "main.tex").read_text()
    assert re.search(r"mse & \d+\.\d & \$\\pm\$ \d+\.\d ", (tables / "main.tex").read_text())
    assert r"\begin{table*}" in (tables / "verdicts.tex").read_text()


@pytest.mark.figures
@shows("report", "results", "--out", "--margin", "--reference")
def test_a_report_has_the_margin_and_the_reference_that_were_asked_for(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The one figure that is about a reference.
    monkeypatch.setattr(all_figures, "FIGURES", {"differences": all_figures.FIGURES["differences"]})
    verdicts, figures = {}, {}
    for margin, label in ((0, "mse"), (100, "mse"), (0, "simcse")):
        folder = tmp_path / f"{margin}-{label}"
        options = ("--out", folder, "--margin", margin, "--reference", label)
        code, out, err = cli("report", "results/tiny", *options)
        assert (code, out.strip()) == (0, str(folder / "tiny" / "index.html")), err
        verdicts[margin, label] = (folder / "tiny" / "tables" / "verdicts.csv").read_text()
        figures[margin, label] = (folder / "tiny" / "figures" / "differences.svg").read_bytes()
    assert "equivalent" in verdicts[100, "mse"] and "equivalent" not in verdicts[0, "mse"]
    assert figures[0, "mse"] != figures[0, "simcse"]
    code, _, err = cli("report", "results/tiny", "--out", tmp_path / "none", "--reference", "msee")
    assert (code, "did you mean 'mse'?" in err) == (2, True)


@shows("power", "results", "--delta", "--json")
def test_power_is_for_the_difference_that_is_to_be_found(cli: Cli) -> None:
    answers = [json.loads(cli("power", "results/tiny", "--delta", delta, "--json")[1]) for delta in ("0.5", "20")]
    assert answers[0] != answers[1]
    code, out, _ = cli("power", "results/tiny")
    assert (code, "mse" in out) == (0, True)


@shows(
    "error-rates",
    "results",
    "--methods",
    "--seeds",
    "--studies",
    "--variances",
    "--resampled",
    "--gate",
    "--margin",
    "--json",
)
def test_every_design_of_error_rates_is_its_own(cli: Cli) -> None:
    designs: list[tuple[str, ...]] = [
        (),
        ("--methods", "3"),
        ("--seeds", "4"),
        ("--variances", "equal"),
        ("--resampled",),
    ]
    headings = []
    for design in designs:
        code, out, err = cli("error-rates", "results/tiny", "--studies", "4", "--json", *design)
        assert code == 0, err
        table = json.loads(out)
        table = table[0] if isinstance(table, list) else table
        headings.append(next(name for name in table["shown"][0] if name != "Share (%)"))
        assert "4 studies" in " ".join(table["notes"])
    assert len(set(headings)) == 5
    path = Path("results/tiny/error_rates.json")
    kept = json.loads(path.read_text())
    assert (len(kept["rates"]), kept["margin"]) == (5, 0.005)
    code, out, err = cli("error-rates", "results/tiny", "--studies", "2", "--gate")
    assert (code, "how often the gate is wrong" in out) == (0, True), err
    assert json.loads(path.read_text())["rates"] == kept["rates"]
    assert cli("error-rates", "results/tiny", "--studies", "4", "--margin", "1")[0] == 0
    kept = json.loads(path.read_text())
    assert (len(kept["rates"]), kept["margin"]) == (1, 0.01)
    path.unlink()


@shows("advise", "--results", "--budget", "--size", "--latency", "--json")
def test_advice_is_for_the_situation(cli: Cli) -> None:
    code, out, _ = cli("advise", "--results", "results/tiny", "--budget", "steps=3", "--size", "1M", "--json")
    assert (code, "mse" in out) == (0, True)
    json.loads(out)
    for option, value in (("--budget", "flops=1"), ("--size", "1"), ("--latency", "0.000001")):
        code, out, err = cli("advise", "--results", "results/tiny", option, value)
        assert (code, out, "nothing can be said from" in err) == (3, "", True), option


@shows("diff", "first", "second", "--tasks", "--top", "--json")
def test_two_runs_differ_in_some_examples_of_some_tasks(cli: Cli, place: Path) -> None:
    runs = [
        place / "results" / "tiny" / record_of(place / "results" / "tiny", name).run_id for name in ("mse", "simcse")
    ]
    code, out, err = cli("diff", *runs, "--tasks", "search", "--top", 2, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert [row["task"] for row in answer["summary"]] == ["search"]
    assert len(answer["examples"]) == 2
    assert "mse -> simcse" in cli("diff", *runs)[1]


@shows("diff", "--texts", "--mirror")
def test_the_texts_of_examples_are_shown(
    cli: Cli, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [
        place / "results" / "tiny" / record_of(place / "results" / "tiny", name).run_id for name in ("mse", "simcse")
    ]
    arguments = ("diff", *runs, "--tasks", TASK, "--top", 3, "--json")
    plain, texts = (json.loads(cli(*arguments, *more)[1])["examples"] for more in ([], ["--texts"]))
    assert set(texts[0]) > set(plain[0])
    asked: list[Path | None] = []

    def load(name: str, mirror: Path | None, limit: int | None) -> Any:
        asked.append(mirror)
        return load_task(name, None, limit)

    monkeypatch.setattr(content, "load_task", load)
    assert cli(*arguments, "--texts", "--mirror", tmp_path)[0] == 0
    assert asked == [tmp_path]


@shows("export", "run", "--out", "--onnx")
def test_a_student_is_written_to_a_folder(cli: Cli, place: Path, tmp_path: Path) -> None:
    run = run_of(place, "mse")
    code, out, err = cli("export", run, "--out", tmp_path / "model")
    assert (code, out.strip()) == (0, str(tmp_path / "model")), err
    assert (tmp_path / "model" / "modules.json").is_file() and not (tmp_path / "model" / "onnx").exists()
    pytest.importorskip("onnxscript")
    assert cli("export", run, "--out", tmp_path / "graph", "--onnx")[0] == 0
    assert (tmp_path / "graph" / "onnx" / "model.onnx").is_file()


@shows("push", "run", "--repo", "--public")
def test_a_run_is_uploaded_to_the_repository(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distilbench.runs.sharing import push

    given: list[tuple[Any, ...]] = []

    def upload(folder: Path, *rest: Any) -> str:
        given.append(rest)
        return "https://somewhere"

    monkeypatch.setattr(push, "_upload", upload)
    assert cli("push", run_of(place, "mse"), "--repo", "me/mine")[:2] == (0, "https://somewhere\n")
    assert cli("push", run_of(place, "simcse"), "--repo", "me/other", "--public")[0] == 0
    (first, mine, private), (second, other, public) = given
    assert (first, second, private, public) == ("me/mine", "me/other", False, True)
    assert mine.startswith("mse seed ") and other.startswith("simcse seed ")


@shows("export", "--mteb")
def test_scores_are_not_written_for_mteb_where_it_knows_no_task(cli: Cli, place: Path, tmp_path: Path) -> None:
    run = run_of(place, "mse")
    code, out, err = cli("export", run, "--mteb", "--out", tmp_path / "kept")
    assert (code, out) == (2, "") and "no score of a task of mteb" in err
    code, out, err = cli("export", run, "--mteb", "--onnx", "--out", tmp_path / "kept")
    assert (code, out) == (2, "") and "give one of them" in err


# check and trend


@pytest.fixture
def worse(cli: Cli, tmp_path: Path) -> Path:
    """Records of students that were hardly trained, with other seeds."""
    code, _, err = cli("run", "study.yaml", "seeds=[7, 8]", "budget.steps=1", "--out", tmp_path / "worse")
    assert code == 0, err
    return tmp_path / "worse" / "tiny"


def checked(cli: Cli, *arguments: object) -> dict[str, Any]:
    """What check says, as a program reads it."""
    _, out, err = cli("check", *arguments, "--baseline", "blessed.json", "--json")
    assert out, err
    answer: dict[str, Any] = json.loads(out)
    return answer


@shows("check", "candidate", "--baseline", "--json", "--drift")
def test_results_pass_against_what_was_blessed_from_them(cli: Cli) -> None:
    answer = checked(cli, "results/tiny", "--drift")
    assert (answer["exit_code"], answer["verdict"]) == (0, "pass")
    assert "Drift" in {line["column"] for line in answer["lines"]}
    assert "Drift" not in {line["column"] for line in checked(cli, "results/tiny")["lines"]}


@shows("check", "--bless")
def test_what_is_blessed_is_written(cli: Cli, tmp_path: Path) -> None:
    assert cli("check", "results/tiny", "--baseline", tmp_path / "new.json", "--bless")[0] == 0
    assert cli("check", "results/tiny", "--baseline", tmp_path / "new.json")[0] == 0


@shows("check", "--accept-regression")
def test_a_reason_for_a_drop_is_kept_where_one_is_given(
    cli: Cli, worse: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def planted(*given: Any, **more: Any) -> CheckResult:
        line = CheckLine("mse", "Mean (Task)", True, "regressed")
        return replace(check(*given, **more), verdict="regressed", lines=[line])

    monkeypatch.setattr(gate_history, "check", planted)
    baseline = tmp_path / "own.json"
    assert cli("check", "results/tiny", "--baseline", baseline, "--bless")[0] == 0
    before, again = baseline.read_bytes(), ("check", worse, "--baseline", baseline, "--bless")
    assert cli(*again)[0] == 1
    assert baseline.read_bytes() == before
    assert cli(*again, "--accept-regression", "half the size")[0] == 0
    assert json.loads(baseline.read_text())["history"][0]["why"] == "half the size"


@shows("check", "--margin", "--alpha", "--plan")
def test_margin_and_error_decide_and_a_plan_says_what_is_missing(cli: Cli, worse: Path) -> None:
    wide, narrow = checked(cli, worse, "--margin", "100"), checked(cli, worse, "--margin", "0")
    assert wide["verdict"] == "pass" and narrow["verdict"] != "pass"
    sure, bold = (checked(cli, worse, "--margin", "0", "--alpha", alpha)["lines"] for alpha in ("0.001", "0.4"))
    assert sure != bold
    without, planned = (checked(cli, worse, "--margin", "1", *more)["notes"] for more in ([], ["--plan"]))
    assert len(planned) > len(without)


@shows("check", "--tasks")
def test_only_some_tasks_are_checked(cli: Cli) -> None:
    columns = {line["column"] for line in checked(cli, "results/tiny", "--tasks", "search")["lines"]}
    assert "search" in columns and TASK not in columns


@shows("check", "--slices")
def test_a_list_of_examples_is_a_row_of_its_own(cli: Cli, tmp_path: Path) -> None:
    rows = [{"task": "search", "example": f"q{number}", "slice": "beginnings"} for number in range(20)]
    pd.DataFrame(rows).to_csv(tmp_path / "slices.csv", index=False)
    columns = {line["column"] for line in checked(cli, "results/tiny", "--slices", tmp_path / "slices.csv")["lines"]}
    assert "search: beginnings" in columns


@shows("check", "--confirm")
def test_a_drop_counts_where_other_seeds_show_it_too(cli: Cli, worse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(scores: Scores, *rest: Any, **more: Any) -> CheckResult:
        result = check(scores, *rest, **more)
        verdict: Verdict = "regressed" if 7 in set(scores.runs["seed"]) else "pass"
        return replace(result, verdict=verdict, lines=[replace(line, verdict=verdict) for line in result.lines])

    monkeypatch.setattr(gate_run, "check", planted)
    assert checked(cli, worse)["exit_code"] == 1
    assert checked(cli, worse, "--confirm", "results/tiny")["verdict"] != "regressed"
    code, _, err = cli("check", worse, "--baseline", "blessed.json", "--confirm", worse)
    assert (code, "has the seeds [7, 8] of the candidate" in err) == (2, True)


@shows("check", "--row", "--device", "--changed")
def test_a_model_folder_stands_for_a_row(cli: Cli, place: Path, tmp_path: Path) -> None:
    models = {}
    for label in ("mse", "simcse"):
        run = run_of(place, label)
        models[label] = tmp_path / label
        assert cli("export", run, "--out", models[label])[0] == 0
    arguments = ("check", models["mse"], "--baseline", "blessed.json", "--tasks", TASK)
    assert "say which row of the baseline the model stands for" in cli(*arguments)[2]
    assert "cuda:9 is not available" in cli(*arguments, "--row", "mse", "--device", "cuda:9")[2]
    code, _, err = cli("check", "results/tiny", "--baseline", "blessed.json", "--row", "mse")
    assert (code, "has records with rows of their own; leave it out" in err) == (2, True), err
    other = ("check", models["simcse"], "--baseline", "blessed.json", "--tasks", TASK, "--row", "mse", "--json")
    as_blessed, on_purpose = (json.loads(cli(*other, *more)[1])["lines"] for more in ([], ["--changed"]))
    assert [line["column"] for line in as_blessed] == ["Drift"]
    assert TASK in {line["column"] for line in on_purpose}


@shows("check", "--mirror")
def test_a_model_is_scored_on_tasks_of_the_mirror(cli: Cli, place: Path, tmp_path: Path) -> None:
    run = run_of(place, "mse")
    assert cli("export", run, "--out", tmp_path / "model")[0] == 0
    folder = tmp_path / "mirror" / "mteb" / "stsbenchmark-sts"
    folder.mkdir(parents=True)
    texts = (place / "text.txt").read_text().splitlines()
    pairs = {"sentence1": texts[:50], "sentence2": texts[50:100], "score": [float(number % 6) for number in range(50)]}
    pd.DataFrame(pairs).to_parquet(folder / "test.parquet", index=False)
    arguments = ("check", tmp_path / "model", "--baseline", tmp_path / "b.json", "--bless", "--tasks", "STSBenchmark")
    code, _, err = cli(*arguments, "--mirror", tmp_path / "mirror")
    assert code == 0, err
    assert (tmp_path / "b.json").is_file()
    assert cli(*arguments, "--mirror", tmp_path / "nothing")[0] == 2


@shows("check", "--junit", "--summary", "--history")
@shows("trend", "history", "--out")
def test_the_outcome_is_written_where_it_is_asked_for(cli: Cli, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("junit.xml", "summary.md", "history.jsonl")]
    options = [word for pair in zip(("--junit", "--summary", "--history"), files, strict=True) for word in pair]
    for _ in range(2):
        assert cli("check", "results/tiny", "--baseline", "blessed.json", *options)[0] == 0
    assert "<testsuite" in files[0].read_text()
    assert files[1].read_text().startswith("|") or "| " in files[1].read_text()
    assert len(files[2].read_text().splitlines()) == 2
    code, out, err = cli("trend", files[2], "--out", tmp_path / "trend")
    assert code == 0, err
    assert any((tmp_path / "trend").iterdir()) and out


@shows("check", "--github")
def test_a_job_of_github_is_annotated_line_by_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        CheckLine("a,b", "x: 100%\n::error::y", True, "regressed", difference=-0.02, half_width=0.01),
        CheckLine("a", "x", True, "inconclusive", reason="one: 50%"),
        CheckLine("a", "guard", False, "inconclusive"),
        CheckLine("a", "good", True, "pass", difference=0.0),
    ]
    outcome = CheckResult("regressed", lines, 0.005, 0.05, [])
    monkeypatch.setattr(gate_run, "check_candidate", lambda *_: outcome)
    code, out, err = cli("check", "results/tiny", "--baseline", "blessed.json", "--github", "--json")
    commands = [line for line in err.splitlines() if line.startswith("::")]
    assert code == 1 and json.loads(out)["verdict"] == "regressed"
    assert [command.split(" ")[0] for command in commands] == ["::error", "::warning"]
    title = commands[0].split("::")[1]
    assert "a%2Cb on x%3A 100%25" in title and "," not in title and title.count(":") == 0
    assert "50%25" in commands[1]
    assert "::" not in cli("check", "results/tiny", "--baseline", "blessed.json")[2]


# listings, calibrate, prefetch, conform


@shows("methods", "name", "--json", "--markdown")
def test_methods_are_listed_shown_and_written_as_a_page(cli: Cli) -> None:
    assert "ibkd" in cli("methods")[1]
    assert json.loads(cli("methods", "ibkd", "--json")[1])[0]["name"] == "ibkd"
    assert cli("methods", "--markdown")[1].startswith("#")


@shows("tasks", "--json")
def test_tasks_are_listed(cli: Cli) -> None:
    assert "sts7" in cli("tasks")[1]
    assert "sts7" in {row["profile"] for row in json.loads(cli("tasks", "--json")[1])}


@shows("tasks", "--benchmark")
def test_benchmarks_are_listed(cli: Cli) -> None:
    assert "MTEB(eng, v2)" in {row["benchmark"] for row in json.loads(cli("tasks", "--benchmark", "--json")[1])}
    listed = [row["task"] for row in json.loads(cli("tasks", "--benchmark", "MTEB(eng, v2)", "--json")[1])]
    assert len(listed) == 41 and {"STS17@en-en", "MTOPDomainClassification@en#test", "BIOSSES"} < set(listed)
    _, out, err = cli("tasks", "--benchmark", "BEIR", "--json")
    assert {row["task"]: row["scored"] for row in json.loads(out)}["CQADupstackRetrieval"] == "no: several tasks in one"
    assert "@scored behind a benchmark's name" in err
    code, out, err = cli("tasks", "--benchmark", "MTEB(eng, v3)")
    assert (code, out) == (2, "") and "did you mean 'MTEB(eng, v2)'?" in err


@shows("tasks", "--find", "--language")
def test_the_catalogue_is_searched(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = shut_network(monkeypatch)
    german = {row["name"]: row for row in json.loads(cli("tasks", "--find", "sts", "--language", "deu", "--json")[1])}
    for row in german.values():
        task = mteb.get_task(row["name"])
        in_german = [
            subset
            for subset, scripts in task.metadata.hf_subsets_to_langscripts.items()
            if set(scripts) == {"deu-Latn"}
        ]
        assert row["subsets"] == [subset for subset in in_german if subset != "default"]
        assert in_german
        assert row["type"] in SCORED_TYPES
    # Its only pairs with German are with English.
    assert "STS22.v2" in german and "STS17" not in german
    expected = {
        task.metadata.name
        for task in mteb.get_tasks(task_types=list(SCORED_TYPES), modalities=["text"], exclude_superseded=False)
        if task.metadata.modalities == ["text"] and not isinstance(task, AbsTaskMultilabelClassification)
        if not task.is_aggregate
    } - {"NevIR"}  # whose score is no mean over queries
    # To make all of them takes seconds.
    known = mteb.get_tasks(exclude_superseded=False)
    monkeypatch.setattr(mteb, "get_tasks", lambda **_: known)
    every = {row["name"] for row in json.loads(cli("tasks", "--find", "", "--json")[1])}
    assert {"STS17", "NFCorpus", "STS22.v2"} < every
    assert every == expected
    code, out, err = cli("tasks", "--find", "biosses")
    assert code == 0 and "BIOSSES" in out and "; --json has all" in err
    code, out, err = cli("tasks", "--language", "german")
    assert (code, out) == (2, "") and "unknown language 'german'" in err
    assert tried == []


@shows("studies", "--json")
def test_studies_are_listed(cli: Cli) -> None:
    assert "demo" in cli("studies")[1]
    assert "demo" in {row["study"] for row in json.loads(cli("studies", "--json")[1])}


@shows("calibrate", "--teacher", "--tasks", "--mirror", "--device", "--json")
def test_calibration_is_of_a_model_on_tasks_of_the_mirror(
    cli: Cli, teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distilbench.core.machine import Settings
    from distilbench.evaluation import calibration

    asked: list[tuple[str, list[str] | None, Settings]] = []

    def answer(teacher: str, tasks: list[str] | None, settings: Settings) -> Any:
        asked.append((teacher, tasks, settings))
        figure = calibration.TaskCalibration("STS12", 0.5, 0.5, 10, 10, "a table")
        return type(calibrated)([figure], [], {}, None)

    calibrated = calibration.calibrate_by_name(
        str(teacher_folder), [TASK], Settings(tmp_path, tmp_path / "cache", None, "cpu")
    )
    assert calibrated.compared == []
    code, _, err = cli("calibrate", "--teacher", teacher_folder, "--tasks", TASK)
    assert (code, "nothing to compare" in err) == (3, True)
    monkeypatch.setattr(calibration, "calibrate_by_name", answer)
    options = ("--teacher", "some/model", "--tasks", "STS12", "STS13", "--mirror", tmp_path, "--device", "cpu")
    code, out, _ = cli("calibrate", *options, "--json")
    assert (code, json.loads(out)[0]["verdict"]) == (0, "agrees")
    ((teacher, tasks, settings),) = asked
    assert (teacher, tasks, settings.mirror, settings.device) == ("some/model", ["STS12", "STS13"], tmp_path, "cpu")


@shows("prefetch", "study", "overrides", "--out", "--json")
def test_the_parts_of_a_changed_study_are_looked_for(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mirrored.txt").write_text("A sentence.\n", encoding="utf-8")
    arguments = ("prefetch", "study.yaml", "--json", f"tasks=[{TASK}]", "text.source=mirror:mirrored.txt")
    code, out, err = cli(*arguments, "--out", tmp_path)
    assert code == 0, err
    parts = {row["kind"]: row for row in json.loads(out)}
    assert {kind: part["state"] for kind, part in parts.items()} == dict.fromkeys(("teacher", "text", "task"), "there")
    assert parts["task"]["name"] == TASK
    assert parts["text"]["where"] == str(tmp_path / "mirrored.txt")
    code, out, err = cli(*arguments, "--out", tmp_path / "empty")
    assert (code, [row["kind"] for row in json.loads(out) if row["state"] == "missing"]) == (2, ["text"]), err


@shows("encode", "--model", "--text", "--column", "--side", "--out")
def test_a_column_is_encoded_with_the_prompt_of_its_side(cli: Cli, teacher_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "prompted"
    shutil.copytree(teacher_folder, folder)
    prompts = {"prompts": {"query": "who sees "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts), encoding="utf-8")
    texts = ["the dog", "a red stone"]
    pd.DataFrame({"question": texts, "other": ["x", "y"]}).to_csv(tmp_path / "text.csv", index=False)
    given = ("encode", "--model", folder, "--text", tmp_path / "text.csv", "--column", "question")
    for side in ("query", "document"):
        code, _, err = cli(*given, *(["--side", "query"] if side == "query" else []), "--out", tmp_path / side)
        assert code == 0, err
    plain, asked = (pd.read_parquet(tmp_path / name / "vectors.parquet") for name in ("document", "query"))
    assert list(asked["text"]) == list(plain["text"]) == texts
    assert list(asked["side"]) == ["query"] * 2
    encode = encoder_of(folder, "cpu")
    for frame, before in ((plain, ""), (asked, "who sees ")):
        expected = encode([before + text for text in texts])
        np.testing.assert_allclose(np.stack(list(frame["vector"])), expected, atol=1e-5, rtol=0)
    assert cli(*given, "--out", tmp_path / "query")[0] == 2


@shows("encode", "--prompt", "--dtype")
def test_a_prompt_and_a_dtype_take_the_place_of_the_models(cli: Cli, teacher_folder: Path, tmp_path: Path) -> None:
    texts = ["the dog", "a red stone"]
    (tmp_path / "text.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    common = ("encode", "--model", teacher_folder, "--text", tmp_path / "text.txt", "--prompt", "now ")
    assert cli(*common, "--side", "other", "--out", tmp_path / "a")[0] == 0
    stored = pd.read_parquet(tmp_path / "a" / "vectors.parquet")
    assert list(stored["side"]) == ["other"] * 2
    theirs = SentenceTransformer(str(teacher_folder), device="cpu").encode(texts, prompt="now ")
    np.testing.assert_allclose(np.stack(list(stored["vector"])), theirs, atol=1e-5, rtol=0)
    assert cli(*common, "--dtype", "bf16", "--out", tmp_path / "b")[0] == 0
    rough = np.stack(list(pd.read_parquet(tmp_path / "b" / "vectors.parquet")["vector"]))
    assert 1e-5 < np.abs(rough - theirs).max() < 0.1 * np.abs(theirs).max()


@shows("encode", "--config", "--split")
def test_a_split_of_a_data_set_is_encoded(cli: Cli, teacher_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "org" / "set"
    for config in ("one", "two"):
        (folder / config).mkdir(parents=True)
        for split in ("train", "test"):
            (folder / config / f"{split}.csv").write_text(f"text\n{config} {split}\n", encoding="utf-8")
    configs = [{"config_name": config, "data_dir": config} for config in ("one", "two")]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n", encoding="utf-8")
    given = ("encode", "--model", teacher_folder, "--mirror", tmp_path, "--out", tmp_path / "out", "--text")
    assert cli(*given, "hub:org/set", "--config", "two", "--split", "test")[0] == 0
    assert list(pd.read_parquet(tmp_path / "out" / "vectors.parquet")["text"]) == ["two test"]
    code, _, err = cli(*given, "text.txt", "--split", "test")
    assert code == 2
    assert "--text: config and split are of data sets of the Hub" in err


@shows("encode", "--mirror", "--device")
def test_what_is_encoded_is_found_in_the_mirror(cli: Cli, teacher_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(teacher_folder, tmp_path / "mirror" / "some" / "model")
    (tmp_path / "mirror" / "text.txt").write_text("the dog\n", encoding="utf-8")
    out = tmp_path / "out"
    given = ("encode", "--model", "some/model", "--text", "mirror:text.txt", "--out", out)
    assert cli(*given, "--mirror", tmp_path / "mirror", "--device", "cpu")[0] == 0
    assert len(pd.read_parquet(out / "vectors.parquet")) == 1
    code, _, err = cli(*given, "--mirror", tmp_path / "mirror", "--device", "nonsense")
    assert code == 2
    assert "nonsense" in err


@shows("conform", "method", "overrides", "--json")
def test_a_method_is_checked_with_its_settings(cli: Cli) -> None:
    code, out, err = cli("conform", "mse", "--json", "metric=cosine")
    assert code == 0, err
    assert {row["status"] for row in json.loads(out)} <= {"passed", "not applicable"}
    assert "did you mean 'metric'?" in cli("conform", "mse", "metrik=cosine")[2]
