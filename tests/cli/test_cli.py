"""The command line from end to end on a tiny teacher, and one sentence for everything a user can get wrong."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import distilbench_methods
from distilbench.cli.run import duration
from distilbench.core.errors import UserError
from distilbench.core.machine import choose_device, environment, settings
from distilbench.records.record import Record, read_study
from distilbench.runs.engines import EngineOptions
from distilbench.runs.plan import plan_study
from distilbench.study.study_file import load_study
from distilbench.training.checkpoints import Checkpoints, Snapshot
from distilbench_methods.base import UnsuitableError

Cli = Callable[..., tuple[int, str, str]]
LABELS = ["mse", "ibkd", "codir", "internal-kd", "simcse"]


@pytest.fixture
def study(study: Callable[..., Path]) -> Callable[..., Path]:
    return partial(study, methods=LABELS)


def by_label(folder: Path) -> dict[str, Record]:
    return {record.label: record for record in read_study(folder)}


@pytest.mark.slow
def test_recipes_and_references_from_study_to_report(
    cli: Cli, study: Callable[..., Path], labelled_file: Path, tmp_path: Path
) -> None:
    recipe = ["leaf", {"simcse-supervised": {"share": 0.25, "hard_negatives": False}}]
    entries = [{"two-stages": recipe}, "simcse-supervised"]
    section = {"source": str(labelled_file), "columns": ["anchor", "positive", "negative"]}
    budget = {"sentences": 320}
    code, _, err = cli("run", study(methods=entries, labelled=section, static={"width": 8}, budget=budget))
    assert code == 0, err
    records = by_label(tmp_path / "results" / "tiny")
    assert {record.status for record in records.values()} == {"completed"}
    two = records["two-stages"]
    assert two.method == "mse+simcse-supervised"
    assert [stage["share"] for stage in two.hyperparameters["stages"]] == [0.75, 0.25]
    # 15 batches of 16 sentences, then 3 of 16 pairs; one text each, two texts each
    assert (two.ledger["steps"], two.ledger["sentences"]) == (18, 15 * 16 + 3 * 32)
    curve = pd.read_parquet(tmp_path / "results" / "tiny" / two.run_id / "curve.parquet")
    assert curve.groupby("stage")["progress"].min().tolist() == [0.0, 0.0]
    assert curve["term_final"].notna().tolist() == (curve["stage"] == 1).tolist()
    assert two.ledger["extra_parameters"] == 0
    assert (records["static"].role, records["static"].student["width"]) == ("reference", 8)
    assert cli("report", tmp_path / "results" / "tiny", "--out", tmp_path / "reports")[0] == 0
    page = (tmp_path / "reports" / "tiny" / "index.html").read_text()
    assert "reference (static)" in page
    assert cli("run", study(methods=entries, labelled=section, static={"width": 8}, budget=budget))[2].count("complete")


@pytest.mark.slow
@pytest.mark.figures
def test_from_study_to_report(cli: Cli, study: Callable[..., Path], tmp_path: Path) -> None:
    code, out, err = cli("run", study())
    assert code == 0, err
    assert "DistilbenchSTS" in err
    assert "codir" in out
    records = by_label(tmp_path / "results" / "tiny")
    assert set(records) == {"teacher", "untrained", *LABELS}
    assert {record.status for record in records.values()} == {"completed"}
    for label in LABELS:
        record = records[label]
        assert record.ledger["steps"] == 4
        assert record.ledger["student_flops"] > 0
        assert record.ledger["peak_memory_bytes"] > 0
        folder = tmp_path / "results" / "tiny" / record.run_id
        assert {"step", "loss", "lr", "grad_norm"} <= set(pd.read_parquet(folder / "curve.parquet").columns)
        assert len(pd.read_parquet(folder / "examples.parquet")) == record.tasks["DistilbenchSTS"]["examples"]
        assert json.loads((folder / "mteb" / "DistilbenchSTS.json").read_text())["task_name"] == "DistilbenchSTS"
    assert records["simcse"].ledger["student_passes"] == 2 * records["mse"].ledger["student_passes"]
    assert records["internal-kd"].ledger["teacher_sentences_online"] == 64
    assert records["simcse"].ledger["teacher_sentences_stored"] == 0

    code, out, _ = cli("report", "results/tiny", "--out", "reports")
    assert code == 0
    page = Path(out.strip())
    assert page == Path("reports/tiny/index.html")
    assert "internal-kd" in page.read_text(encoding="utf-8")

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("record.json")}
    code, _, err = cli("run", study())
    assert code == 0
    assert err.count("found complete") == len(before) == 7
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("record.json")} == before

    shutil.rmtree(tmp_path / "results")
    shutil.rmtree(tmp_path / "cache" / "scores")
    cli("run", study())
    again = by_label(tmp_path / "results" / "tiny")
    assert {label: record.scores for label, record in again.items()} == {
        label: record.scores for label, record in records.items()
    }


@pytest.mark.slow
def test_a_failing_run_is_recorded_and_the_others_go_on(
    cli: Cli, study: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distilbench_methods.ibkd import IBKD

    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    path = study(methods=["ibkd", "mse"])
    with monkeypatch.context() as patched:
        patched.setattr(IBKD, "loss", fail)
        # What fails from the first step on is refused by the trial.
        patched.setattr("distilbench.runs.study_run.try_rows", lambda _: None)
        code, _, err = cli("run", path)
    assert code == 3
    assert "1 of 4 runs failed: ibkd seed 1 (RuntimeError: planted)" in err
    records = by_label(tmp_path / "results" / "tiny")
    assert (records["ibkd"].status, records["mse"].status) == ("failed", "completed")
    code, _, err = cli("run", path)
    assert code == 0
    assert err.count("found complete") == 3
    assert by_label(tmp_path / "results" / "tiny")["ibkd"].status == "completed"


def test_a_dry_run_prints_the_plan_and_writes_nothing(cli: Cli, study: Callable[..., Path], tmp_path: Path) -> None:
    code, out, err = cli("run", study(seeds=2), "--dry-run")
    assert code == 0, err
    assert "13 runs, 13 to do" in out
    assert "not tokenised yet" in out
    assert re.search(r"in this process: (\d+ seconds|\d+ minutes|\d+ h \d\d min) ", out)
    assert "minutes" in out.partition("─")[0]  # in the heading, which a narrow terminal breaks
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"methods": [{"planted": {"method": "mse"}}]}, "method planted cannot run in this study"),
        pytest.param(
            {"tasks": ["embedded", "STSBenchmrk"]},
            "unknown task 'STSBenchmrk'; did you mean 'STSBenchmark'?",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_a_dry_run_refuses_what_the_run_refuses(
    cli: Cli,
    study: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    expected: str,
) -> None:
    from distilbench_methods.mse import MSE

    def refuse(*_: object) -> None:
        raise UnsuitableError("planted")

    if "methods" in changes:
        monkeypatch.setattr(MSE, "needs", refuse)
    code, _, err = cli("run", study(**changes), "--dry-run")
    assert (code, expected in err) == (2, True), err
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_a_dry_run_knows_what_the_run_would_do_again(cli: Cli, study: Callable[..., Path], tmp_path: Path) -> None:
    path = study(methods=["mse"])
    assert cli("run", path)[0] == 0
    assert "3 runs, 0 to do" in cli("run", path, "--dry-run")[1]
    for file in (tmp_path / "results").rglob("record.json"):
        record = json.loads(file.read_text())
        record["tasks"]["DistilbenchSTS"]["data_sha256"] = "of other data"
        file.write_text(json.dumps(record))
    out = cli("run", path, "--dry-run")[1]
    assert "recorded" not in out
    assert "trained" in out


def test_a_dry_run_knows_checkpoints(cli: Cli, study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path, save = study(methods=["mse"], budget={"steps": 8}), Checkpoints.save
    saved: list[int] = []

    def die_at_the_sixth(self: Checkpoints, take: Callable[[], Snapshot]) -> None:
        save(self, take)
        saved.append(1)
        if len(saved) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", die_at_the_sixth)
    assert cli("run", path, "--checkpoint-seconds", 0)[0] == 130
    code, out, err = cli("run", path, "--dry-run")
    assert code == 0 and "1 to do (1 from a checkpoint)" in out, out + err
    (row,) = [row for row in json.loads(cli("run", path, "--dry-run", "--json")[1]) if row["method"] == "mse"]
    assert row["state"] == "at step 6"
    # Nothing of it is used up or cleared away by looking.
    monkeypatch.setattr(Checkpoints, "save", save)
    left = plan_study(load_study(str(path)), settings(), EngineOptions(threads=1), lambda _: None)[0].runs[-1]
    assert left.student_flops is not None and left.flops_left == pytest.approx(left.student_flops / 4)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "0 seconds"), (91, "2 minutes"), (5000, "83 minutes"), (7264, "2 h 01 min")]
)
def test_durations_are_said_in_a_fitting_unit(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize("place", [2, 4, 5])
def test_overrides_may_stand_before_and_behind_options(cli: Cli, study: Callable[..., Path], place: int) -> None:
    arguments = ["run", study(methods=["mse"]), "--limit", "32", "--dry-run"]
    arguments[place:place] = ["seeds=3", "budget.sentences=31"]
    code, out, err = cli(*arguments)
    assert code == 0, err
    assert "7 runs" in out
    assert re.search(r"\b31\b", out)


@pytest.mark.slow
def test_limit_marks_its_records(cli: Cli, study: Callable[..., Path], tmp_path: Path) -> None:
    code, _, err = cli("run", study(methods=["mse"]), "--limit", 32)
    assert code == 0, err
    record = by_label(tmp_path / "results" / "tiny-limit32")["mse"]
    assert "tiny-limit32" in err
    assert (record.limit, record.text["sentences"], record.ledger["sentences"]) == (32, 32, 32)
    assert record.tasks["DistilbenchSTS"]["examples"] == 32


def test_a_broken_method_of_another_package_is_listed_with_a_note(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(distilbench_methods.BUILT_IN, "broken", "no_such_module_here:Method")
    code, out, err = cli("methods")
    assert (code, err) == (0, "")
    assert "ibkd" in out
    assert "not usable" in out
    code, _, err = cli("methods", "broken")
    assert (code, "no_such_module_here" in err) == (2, True)


@pytest.mark.parametrize("verb", ["methods", "tasks", "studies"])
def test_listings(cli: Cli, verb: str) -> None:
    code, out, _ = cli(verb)
    assert code == 0
    rows = json.loads(cli(verb, "--json")[1])
    names = [next(iter(row.values())) for row in rows]
    assert {"methods": "ibkd", "tasks": "embedded", "studies": "demo"}[verb] in names
    assert all(name in out for name in names)
    assert all(all(value != "" for key, value in row.items() if key != "unverified") for row in rows)


def test_one_method_in_detail(cli: Cli) -> None:
    code, out, _ = cli("methods", "ibkd")
    assert code == 0
    assert "2311.05472" in out
    assert "hsic_weight" in out
    (entry,) = json.loads(cli("methods", "ibkd", "--json")[1])
    assert {item["name"]: item["default"] for item in entry["hyperparameters"]}["temperature"] == "1.0"
    assert all(item["meaning"] for item in entry["hyperparameters"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"methods": ["msee"]}, "unknown method 'msee'; did you mean 'mse'?"),
        ({"tasks": ["STSBenchmrk"]}, "unknown task 'STSBenchmrk'; did you mean 'STSBenchmark'?"),
        ({"taks": []}, "unknown key 'taks'; did you mean 'tasks'?"),
        ({"methods": [{"mse": {"metrik": 1}}]}, "did you mean 'metric'?"),
        ({"student": {"layers": 9}}, "the teacher has 4 layers"),
        ({"budget": {"sentences": 0}}, "budget.sentences"),
        ({"budget": {"flops": -1}}, "budget.flops"),
        ({"teacher": "org/nothing"}, "give a local folder"),
        ({"text": {"source": "empty.txt"}}, "has 0 distinct sentences"),
        ({"text": {"source": "blank.txt"}}, "blank.txt line 2 is empty"),
        ({"text": {"source": "nul.txt"}}, "nul.txt line 1 holds a NUL byte"),
        ({"text": {"source": "latin.txt"}}, "latin.txt line 1 is not valid UTF-8"),
        ({"text": {"source": "long.txt"}}, "long.txt line 1 has 100001 characters"),
        ({"text": {"source": "short.txt"}}, "fewer than train.batch_size 16"),
        ({"text": {"source": "mirror:x.parquet"}}, "needs a mirror"),
        ({"teacher": "no-weights"}, "no .safetensors weights"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    cli: Cli, study: Callable[..., Path], tmp_path: Path, teacher_folder: Path, changes: dict[str, Any], expected: str
) -> None:
    contents = {
        "empty": b"",
        "blank": b"a b\n\nc d\n",
        "nul": b"a\0b\n",
        "latin": b"caf\xe9\n",
        "long": b"x" * 100_001,
        "short": b"a b\n",
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.txt").write_bytes(content)
    shutil.copytree(teacher_folder, tmp_path / "no-weights")
    (tmp_path / "no-weights" / "model.safetensors").unlink()
    code, out, err = cli("run", study(**changes))
    assert code == 2
    message = err.strip().splitlines()[-1]
    assert message.startswith("distilbench: error: ")
    assert expected in message
    assert "Traceback" not in err + out
    written = [
        path for path in (*(tmp_path / "results").rglob("*"), *(tmp_path / "cache").rglob("*")) if path.is_file()
    ]
    assert [path for path in written if path.suffix not in ("", ".lock")] == []


def test_folders_that_cannot_be_used(cli: Cli, study: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert cli("run", study(), "--out", tmp_path / "file")[0] == 2
    code, _, err = cli("run", study(), "--mirror", tmp_path / "nothing")
    assert (code, "is not a folder" in err) == (2, True)
    code, _, err = cli("run", study(), "--device", "cuda:9")
    assert (code, "not available" in err) == (2, True)
    assert cli("report", tmp_path / "nothing")[0] == 2
    assert cli("run", "no-such-study")[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["fly"],
        ["run", "demo", "--limit", "0"],
        ["run", "demo", "--limit", "x"],
        ["run", "demo", "--limit", "5", "seeds"],
        ["run", "demo", "--limit", "5", "seeds=2", "--unknown=5"],
        ["report", "results", "--out", "reports", "seeds=2"],
    ],
)
def test_wrong_use_is_code_2(cli: Cli, arguments: list[str]) -> None:
    assert cli(*arguments)[0] == 2


@pytest.mark.parametrize("device", ["cuda:7", "cuda:x", "nonsense", "meta", "cpu:1", "mps", ""])
def test_devices_that_are_not_there(cli: Cli, study: Callable[..., Path], tmp_path: Path, device: str) -> None:
    code, _, err = cli("run", study(), "--device", device)
    assert code == 2
    assert "device" in err.splitlines()[-1]
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("wanted", "name", "index"),
    [("auto", "cuda", 0), ("cuda:0", "cuda", 0), ("cuda", "cuda", 0), ("cuda:1", "cuda:1", 1)],
)
def test_a_cuda_device_has_one_name_and_is_the_current_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: str, name: str, index: int
) -> None:
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"name of {device}")
    assert settings(out=tmp_path, device=wanted).device == name
    assert current == [index]
    assert environment(name)["device"] == f"name of {name}"
    assert environment(name)["tf32"] is False and "tf32" not in environment("cpu")
    with pytest.raises(UserError, match=r"cuda:2 is not available"):
        settings(out=tmp_path, device="cuda:2")


def test_the_first_processor_is_the_processor() -> None:
    assert choose_device("cpu:0") == "cpu"
