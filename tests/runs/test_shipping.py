"""Folders behind a URI, and a node that has nothing but what came from there."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from distilbench.core.errors import UserError
from distilbench.core.machine import Settings
from distilbench.runs.engines.depot import Depot
from distilbench.runs.engines.layout import Layout
from distilbench.runs.engines.on_ray import _room
from distilbench.runs.engines.ray_task import Order, _prepared, execute, installed
from distilbench.runs.engines.shipping import fetch_model, fetch_record, ship, unpacked
from distilbench.runs.preflight import check
from distilbench.runs.run import Finished, finish_run, known_record
from distilbench.runs.trained import rehearse_run, trained_folder
from distilbench.runs.workbench import Workbench
from distilbench.study.study import Study, runs_of
from distilbench.training.teacher_store import TeacherStore
from tests.reliability.workload import differences


@pytest.fixture(params=["memory", "file"])
def depot(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Depot]:
    yield Depot("memory://depot" if request.param == "memory" else (tmp_path / "depot").as_uri())
    fsspec.filesystem("memory").store.clear()


def test_a_folder_comes_back_as_it_was(depot: Depot, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (tmp_path / "blob").write_bytes(bytes(range(256)) * 10_000)
    (folder / "weights").symlink_to(tmp_path / "blob")
    assert not depot.has("runs/a")
    depot.send(folder, "runs/a")
    assert depot.has("runs/a")
    assert depot.fetch("runs/a", tmp_path / "back")
    assert (tmp_path / "back" / "1_Pooling" / "config.json").read_text() == "{}"
    assert (tmp_path / "back" / "weights").read_bytes() == (tmp_path / "blob").read_bytes()
    assert not (tmp_path / "back" / "weights").is_symlink()


def test_what_did_not_arrive_whole_is_not_there(depot: Depot, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "file").write_bytes(b"x" * 100_000)
    depot.send(tmp_path / "one", "a")
    path = depot._path("a", "tar")
    whole = depot._files.cat_file(path)
    for damaged in (whole[:50_000], whole[:512], b"", whole.replace(b"xx", b"xy", 1)):
        depot._files.pipe_file(path, damaged)
        assert not depot.fetch("a", tmp_path / "back")
        assert not (tmp_path / "back").exists()
    depot._files.pipe_file(path, whole)
    depot._files.rm_file(depot._path("a", "sha256"))
    assert not depot.fetch("a", tmp_path / "back")


@pytest.mark.parametrize("uri", ["nowhere://x", "s4://bucket/x"])
def test_a_uri_that_nothing_opens_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match=rf"--ship {uri} cannot be opened: Protocol not known"):
        Depot(uri)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="nothing can be written to --ship file:"):
        Depot((tmp_path / "file").as_uri()).send(tmp_path, "a")


class Board:
    """In the place of the actor's handle, whose methods have a `remote`."""

    def __init__(self) -> None:
        self.report, self.shares = self, list[float]()

    def remote(self, _task: int, share: float) -> None:
        self.shares.append(share)


@pytest.fixture
def bench(teacher_folder: Path, text_file: Path, labelled_file: Path, tmp_path: Path) -> Workbench:
    given = tmp_path / "given"
    shutil.copytree(teacher_folder, given / "teacher")
    text, rows = (Path(shutil.copy(file, given)) for file in (text_file, labelled_file))
    recipe = {"mixed": ["mse", {"margin-mse": {"share": 0.4}}]}
    values: dict[str, Any] = {
        "name": "x",
        "teacher": str(given / "teacher"),
        "student": {"layers": 2, "width": 16},
        "text": {"source": str(text)},
        "labelled": {"source": str(rows)},
        "dev": {"source": str(rows), "columns": ["anchor", "positive", "negative"], "points": 2},
        "budget": {"steps": 6},
        "methods": [recipe],
        "seeds": 1,
        "tasks": ["DistilbenchSTS"],
        "train": {"batch_size": 8, "max_length": 64},
    }
    settings = Settings(tmp_path / "alone" / "results", tmp_path / "alone" / "cache", None, "cpu")
    return Workbench(Study.model_validate(values), settings)


def test_a_node_without_the_files_gives_the_same_bits(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs_of(bench.study)[-1]
    check(bench)
    rehearse_run(bench, run)
    uri = (tmp_path / "depot").as_uri()
    shipment = ship(bench, Depot(uri))
    expected = finish_run(bench, run, lambda _: None)
    shutil.rmtree(tmp_path / "given")
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "node" / "cache"))
    monkeypatch.setattr(TeacherStore, "_fill", lambda *_: pytest.fail("the teacher was asked"))
    monkeypatch.chdir(tmp_path)
    order = Order(bench.study, bench.settings, Layout(1, 1), tmp_path, installed(), shipment)
    board = Board()
    answer = execute(pickle.dumps(order), run, board, 0)
    assert isinstance(answer, Finished)
    assert isinstance(expected, Finished)
    assert answer.record.run_id == expected.record.run_id
    assert (answer.record.status, answer.reused, board.shares[0]) == ("completed", False, 0.0)

    # A driver that knows the text, and of no run, finds it complete.
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "driver" / "cache"))
    other = unpacked(bench.study, bench.settings, shipment)
    other.settings = replace(other.settings, out=tmp_path / "driver" / "results")
    fetch_model(other, run, Depot(uri))
    fetch_record(other, run, Depot(uri))
    assert trained_folder(other, run).is_relative_to(tmp_path / "driver")
    assert (record := known_record(other, run)) is not None
    assert record.label == "mixed"
    assert differences(tmp_path / "alone", tmp_path / "driver") == []


def test_a_node_that_does_not_reach_the_uri_says_so(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(bench)
    shipment = ship(bench, Depot((tmp_path / "depot").as_uri()))
    shutil.rmtree(tmp_path / "depot")
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path / "node"))
    with pytest.raises(UserError, match=rf"the node {os.uname().nodename} does not find \S+ at file:"):
        unpacked(bench.study, bench.settings, shipment)


def test_a_node_with_other_versions_ends_the_study(bench: Workbench, tmp_path: Path) -> None:
    order = Order(bench.study, bench.settings, Layout(1, 1), tmp_path, installed() | {"torch": "1.0"})
    answer = execute(pickle.dumps(order), runs_of(bench.study)[-1], Board(), 0)
    assert isinstance(answer, UserError)
    assert "instead of 1.0; install the driver's versions there" in str(answer)
    _prepared.cache_clear()


def test_a_node_takes_as_many_runs_as_fit_on_it() -> None:
    assert _room({"CPU": 8.0}, Layout(1, 3), on_gpu=False) == 2
    assert _room({"CPU": 8.0, "GPU": 2.0}, Layout(1, 1, gpu_share=0.3), on_gpu=True) == 6
    assert _room({"CPU": 4.0, "GPU": 2.0}, Layout(1, 2, gpu_share=0.25), on_gpu=True) == 2
    assert _room({"CPU": 8.0}, Layout(1, 1), on_gpu=True) == 0
