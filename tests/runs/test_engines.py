"""What engines share: the order of runs, shares of the machine, and a store that is full before the first run."""

from __future__ import annotations

import multiprocessing
import socket
import sys
from collections.abc import Callable, Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from distilbench.core.errors import UserError
from distilbench.core.machine import Settings
from distilbench.records.record import to_dict
from distilbench.runs.cost import longest_first, makespan
from distilbench.runs.engines import EngineOptions, Layout, backlog, layouts_of, make_engine
from distilbench.runs.engines.backlog import Backlog
from distilbench.runs.engines.in_process import in_this_process
from distilbench.runs.engines.layout import default_threads, make_layout
from distilbench.runs.engines.worker_pool import Workers
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.runs.prepare.preflight import preflight
from distilbench.runs.prepare.prepared import PreparedRun, prepare
from distilbench.runs.progress import Watch
from distilbench.runs.run import FINISH, Finished, give_up
from distilbench.runs.study_run import run_part
from distilbench.runs.trained import rehearse_run, training_of
from distilbench.study.budget import Ledger
from distilbench.study.study import Run, Study
from distilbench.training.stores.teacher_store import TeacherStore

MakeInputs = Callable[..., Inputs]


@pytest.fixture
def inputs_for(teacher_folder: Path, text_file: Path, labelled_file: Path, tmp_path: Path) -> MakeInputs:
    def make(methods: list[Any], **changes: Any) -> Inputs:
        values = {
            "name": "x",
            "teacher": str(teacher_folder),
            "student": {"layers": 2, "width": 16},
            "text": {"source": str(text_file)},
            "labelled": {"source": str(labelled_file)},
            "budget": {"steps": 6},
            "methods": methods,
            "tasks": ["DistilbenchSTS"],
            "train": {"batch_size": 8, "max_length": 64},
        }
        study = Study.model_validate(values | changes)
        return make_inputs(study, Settings(out=tmp_path / "out", cache=tmp_path / "cache", mirror=None, device="cpu"))

    return make


def prepared(inputs: Inputs) -> list[PreparedRun]:
    """The runs of a study that has passed the preflight."""
    preflight(inputs)
    (runs,) = prepare([inputs])
    return runs


def labels(runs: list[PreparedRun]) -> list[str]:
    return [run.cell.entry.label for run in runs]


@pytest.mark.parametrize(
    "budget",
    [{"steps": 66}, {"sentences": 100}, {"tokens": 1000}, {"flops": 1e7}],
    ids=lambda budget: next(iter(budget)),
)
def test_after_the_rehearsal_no_training_asks_the_teacher(
    inputs_for: MakeInputs, monkeypatch: pytest.MonkeyPatch, budget: dict[str, float]
) -> None:
    recipe = {"recipe": [{"matryoshka": {"base": "mse", "widths": [8]}}, {"margin-mse": {"share": 0.4}}]}
    methods = ["mse-pca", {"crd": {"num_negatives": 20}}, {"ibkd": {"extra_negatives": 4}}, recipe]
    inputs = inputs_for(methods, budget=budget, seeds=1)
    runs = [run for run in prepared(inputs) if run.cell.role == "method"]
    for run in runs:
        rehearse_run(run)

    def refuse(*_: object) -> None:
        raise AssertionError("the teacher was asked")

    monkeypatch.setattr(TeacherStore, "_fill", refuse)
    spent = [training_of(run, Ledger(), lambda _: None) for run in runs]
    assert {training.status for training in spent} == {"completed"}


def test_a_rehearsal_changes_nothing_that_a_run_starts_from(inputs_for: MakeInputs) -> None:
    recipe = {"recipe": [{"matryoshka": {"base": "mse", "widths": [8]}}, {"margin-mse": {"share": 0.4}}]}
    inputs = inputs_for([recipe], seeds=1)
    before = inputs.students.facts()
    rehearse_run(prepared(inputs)[-1])
    assert inputs.students.facts() == before
    assert not (inputs.settings.cache / "runs").exists()


def test_the_longest_run_begins_first(inputs_for: MakeInputs) -> None:
    inputs = inputs_for(["mse", "simcse", {"two-views-and-masks": {"method": "simcse-mlm"}}], seeds=1)
    ordered = labels(longest_first(prepared(inputs)))
    assert ordered.index("two-views-and-masks") < ordered.index("simcse") < ordered.index("mse")
    assert ordered.index("teacher") < ordered.index("untrained")


@pytest.mark.parametrize(("slots", "expected"), [(1, 20.0), (2, 11.0), (3, 7.0), (9, 6.0)])
def test_makespan_of_a_case_worked_by_hand(slots: int, expected: float) -> None:
    # Two slots: 6 + 3 + 2 and 5 + 4. Three: 6, 5 + 2 and 4 + 3.
    assert makespan([2.0, 3.0, 4.0, 5.0, 6.0], slots) == expected


def test_a_backlog_hands_out_in_order_and_puts_back(inputs_for: MakeInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "POLL_SECONDS", 0.0)
    runs, said = prepared(inputs_for(["mse"], seeds=1)), list[str]()
    left = Backlog(runs, said.append)
    first, second, third = (left.take() for _ in runs)
    assert [first, second, third, left.take()] == [*runs, None]
    assert left.lost(runs[2])
    assert left.take() == runs[2]
    for run in runs:
        left.elsewhere(run)
    assert said == ["waiting for 3 runs that another process is working on"]
    assert left.take() == runs[0]
    assert [left.lost(runs[2]), left.lost(runs[2])] == [True, False]
    for run in runs:
        assert left
        left.done(run)
    assert not left


def test_cores_are_dealt_out_unless_the_environment_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("distilbench.runs.engines.layout.cores", lambda: 8)
    assert [default_threads(jobs) for jobs in (1, 3, 8, 20)] == [8, 2, 1, 1]
    assert make_layout(4, "cpu").environment(3) == {"OMP_NUM_THREADS": "2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert (default_threads(1), make_layout(4, "cpu", threads=5).threads) == (3, 5)


def test_gpus_are_dealt_out_by_the_share_that_a_run_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5")
    layout = make_layout(4, "cuda", threads=1, gpu_share=0.5)
    assert [layout.environment(worker)["CUDA_VISIBLE_DEVICES"] for worker in range(4)] == ["4", "GPU-5", "4", "GPU-5"]
    with pytest.raises(UserError, match=r"--jobs 3 with --gpu-share 1 needs more than the 2 CUDA devices"):
        make_layout(3, "cuda")
    with pytest.raises(UserError, match=r"ask for 2 jobs or for a share of 0\.333"):
        make_layout(3, "cuda:1", gpu_share=0.5)
    assert make_layout(2, "cuda:1", gpu_share=0.5).devices == ()


def test_estimates_are_for_one_process_and_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("distilbench.runs.engines.cores", lambda: 4)
    monkeypatch.setattr("distilbench.runs.engines.layout.cores", lambda: 4)
    found = layouts_of(EngineOptions(), "cpu")
    assert {name: (item.jobs, item.threads) for name, item in found.items()} == {
        "in this process": (1, 4),
        "--jobs 4": (4, 1),
    }


def test_a_run_that_kills_its_processes_is_given_up(inputs_for: MakeInputs) -> None:
    inputs = inputs_for(["mse"], seeds=1)
    finished = give_up(prepared(inputs)[-1], "its process ended 3 times")
    assert finished.record.status == "failed"
    assert "its process ended 3 times" in (finished.record.error or "")


def test_ray_is_asked_for_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"needs Ray, which is not installed; pip install 'distilbench\[ray\]'"):
        make_engine(EngineOptions(engine="ray"), "cpu")


def test_the_address_of_a_cluster_is_refused_without_one() -> None:
    with pytest.raises(UserError, match=r"--address is for --engine ray"):
        make_engine(EngineOptions(address="auto"), "cpu")


def facts(finished: Iterable[Finished]) -> dict[str, dict[str, Any]]:
    """All of the records but what is measured anew in every run."""
    found = {}
    for item in finished:
        values = to_dict(item.record)
        ledger = {
            name: value for name, value in values["ledger"].items() if name not in ("seconds", "peak_memory_bytes")
        }
        found[item.run.entry.label] = values | {"ledger": ledger, "environment": None, "speed": None}
    return found


@pytest.mark.slow
def test_workers_give_the_bits_of_one_process_though_they_are_killed(inputs_for: MakeInputs, tmp_path: Path) -> None:
    def curves(inputs: Inputs) -> dict[str, pd.DataFrame]:
        paths = (inputs.settings.out / "x").glob("*/curve.parquet")
        return {path.parent.name: pd.read_parquet(path).drop(columns="seconds") for path in paths}

    class KillsBoth(Watch):
        def progress(self, run: Run, share: float) -> None:
            # That of this run is in the middle of it; the other may be between two runs.
            if 0 < share < 1 and not killed:
                killed.extend(multiprocessing.active_children())
                for process in killed:
                    process.kill()

    alone = inputs_for(["codir", "mse-pca"], seeds=1, budget={"steps": 60})
    said, killed = list[str](), list[BaseProcess]()
    settings = Settings(tmp_path / "out2", tmp_path / "cache2", None, "cpu", checkpoint_seconds=0.0)
    shared = make_inputs(alone.study, settings, said.append)
    expected = facts(run_part(prepared(alone), in_this_process, Watch()))
    found = list(run_part(prepared(shared), Workers(Layout(2, 1)), KillsBoth()))
    assert facts(found) == expected
    assert any("exit code -9" in line for line in said)
    one, two = curves(alone), curves(shared)
    assert one.keys() == two.keys()
    assert all(one[name].equals(two[name]) for name in one)
    assert {item.record.environment["threads"] for item in found} == {1}
    assert multiprocessing.active_children() == []


def test_why_a_worker_cannot_start_is_said(inputs_for: MakeInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: BaseProcess) -> None:
        raise RuntimeError("an attempt has been made to start a new process")

    monkeypatch.setattr(
        "distilbench.runs.engines.worker_pool._context", lambda device: multiprocessing.get_context("spawn")
    )
    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", refuse)
    inputs = inputs_for(["mse"], seeds=1)
    with pytest.raises(RuntimeError, match="an attempt has been made"):
        list(Workers(Layout(1, 1))(prepared(inputs), lambda run, share: None, FINISH))


def test_a_cluster_that_is_not_there_is_named_at_once() -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(UserError, match=f"no connection to the Ray cluster {address}"):
            make_engine(EngineOptions(engine="ray", address=address), "cpu")
