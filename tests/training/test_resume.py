"""A training that was killed goes on and ends in the same bits; watching it changes nothing; memory may run out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import distilbench_methods
from distilbench.core.machine import Settings
from distilbench.models.model_folder import StoredModel
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.runs.prepare.prepared import PreparedRun, prepare_run
from distilbench.runs.prepare.vector_teacher import as_model
from distilbench.runs.trained import Training, training_of
from distilbench.study.budget import Budget, Ledger
from distilbench.study.study import Study, runs_of
from distilbench.training import checkpoints as checkpoint
from distilbench.training.checkpoints import Checkpoints, Snapshot
from distilbench.training.dev.response import DevSet, Response, shares, views_of
from distilbench.training.job import Trained, TrainingJob
from distilbench.training.loop import train
from distilbench.training.signals import Batch, SignalSource

MakeJob = Callable[..., TrainingJob]
STEPS = 12
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in distilbench_methods.registry()),
    ("internal-kd", {"procedure": "pid", "epochs_per_layer": 0.1}),
    ("internal-kd", {"procedure": "sid", "epochs_per_layer": 0.1, "freeze_below": True}),
    ("codir", {"bank_momentum": 0.5, "symmetric": True}),
    ("ckd", {"queue_size": 40, "mse_weight": 1.0}),
    ("matryoshka", {"base": "ckd", "widths": (8,)}),
    ("ibkd", {"gamma": "median", "extra_negatives": 4}),
]

pytestmark = pytest.mark.no_cover


class Killed(BaseException):
    """What no handler of the code under test catches, as none catches SIGKILL."""


class Fatal(Checkpoints):
    """Kills the training after some snapshots."""

    def __init__(self, folder: Path, lives: int) -> None:
        super().__init__(folder, 0)
        self.lives = lives

    def save(self, take: Callable[[], Snapshot]) -> None:
        if not self.lives:
            raise Killed
        self.lives -= 1
        super().save(take)


def trained(job: TrainingJob, **further: Any) -> tuple[dict[str, Tensor], dict[str, Any], Trained]:
    """The student's and the heads' tensors, the ledger without times, and the rest."""
    ledger = Ledger()
    result = train(job, ledger, **further)
    tensors = {**checkpoint.tensors_of("student", job.student), **checkpoint.tensors_of("aux", result.aux)}
    return tensors, timeless(asdict(ledger)), result


def timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in ("seconds", "peak_memory_bytes")}


def assert_equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_a_killed_training_ends_in_the_same_bits(
    make_job: MakeJob, name: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distilbench.training.loop.LOG_EVERY", 1)
    budget = Budget("steps", STEPS)
    tensors, ledger, result = trained(make_job(name, budget=budget, **settings))
    for lives in (4, 3):
        with pytest.raises(Killed):
            killed = Fatal(tmp_path / "checkpoint", lives)
            train(make_job(name, budget=budget, **settings), Ledger(), checkpoints=killed, resumed=killed.load())
    again = Checkpoints(tmp_path / "checkpoint", 1e9)
    resumed = again.load()
    assert resumed is not None
    assert resumed.facts["step"] == 7
    rest, rest_ledger, rest_result = trained(
        make_job(name, budget=budget, **settings), checkpoints=again, resumed=resumed
    )
    assert_equal(tensors, rest)
    assert ledger == rest_ledger
    assert result.batches_sha256 == rest_result.batches_sha256
    assert [timeless(row) for row in result.curve] == [timeless(row) for row in rest_result.curve]


def dev_of(inputs: Inputs) -> DevSet:
    assert inputs.labelled is not None
    return DevSet.of(inputs.labelled.text, views_of(inputs.labelled.text, as_model(inputs.teacher).encoder))


def response_of(job: TrainingJob, inputs: Inputs, points: int = 3) -> Response:
    return Response(dev_of(inputs), job.budget, points)


@pytest.mark.parametrize("name", ["simcse", "codir", "internal-kd", "hpd"])
def test_watching_changes_nothing_and_is_not_charged(make_job: MakeJob, inputs: Inputs, name: str) -> None:
    alone, ledger, _ = trained(make_job(name, budget=Budget("steps", STEPS)))
    job = make_job(name, budget=Budget("steps", STEPS))
    response = response_of(job, inputs)
    watched, watched_ledger, _ = trained(job, response=response)
    assert_equal(alone, watched)
    assert ledger == watched_ledger
    assert [row["share"] for row in response.rows] == [0.25, 0.5, 1.0]
    assert [row["steps"] for row in response.rows] == [3, 6, 12]
    assert all(-1 <= row["score"] <= 1 for row in response.rows)
    assert len({row["score"] for row in response.rows}) == 3
    assert all("chosen" not in row for row in response.rows)


def test_shares_double_up_to_the_whole() -> None:
    assert shares(1) == (1.0,)
    assert shares(4) == (0.125, 0.25, 0.5, 1.0)


def test_a_dev_score_is_spearmans_correlation_with_the_gold(inputs: Inputs) -> None:
    dev = dev_of(inputs)
    assert inputs.labelled is not None
    assert len(dev.pairs_P2) == 2 * len(inputs.labelled.text)
    assert dev.look(as_model(inputs.teacher).encoder)[0] == pytest.approx(1.0)
    assert abs(dev.look(inputs.students.build(1))[0]) < 0.95
    upside_down = replace(dev, gold_P=-dev.gold_P)
    assert upside_down.look(as_model(inputs.teacher).encoder)[0] == pytest.approx(-1.0)


def test_vectors_that_are_all_equal_have_no_dev_score(inputs: Inputs) -> None:
    head = nn.Linear(16, 3)
    nn.init.zeros_(head.weight)
    dev = dev_of(inputs)
    assert torch.isnan(torch.tensor(dev.look(inputs.students.build(1), head)[0]))


def test_the_best_weights_on_dev_ship_and_survive_a_kill(make_job: MakeJob, inputs: Inputs, tmp_path: Path) -> None:
    def make() -> TrainingJob:
        job = make_job("simcse", budget=Budget("steps", STEPS))
        return replace(job, spec=job.spec.model_copy(update={"checkpoint": "best-on-dev", "learning_rate": 0.05}))

    job = make()
    response = response_of(job, inputs, points=4)
    tensors, _, _ = trained(job, response=response)
    scores = [row["score"] for row in response.rows]
    best = max(range(4), key=lambda place: scores[place])
    assert best < 3, "the test needs a student that gets worse at the end"
    assert [row.get("chosen", False) for row in response.rows] == [place == best for place in range(4)]
    assert response.dev is not None
    assert response.dev.look(job.student)[0] == scores[best]

    again = make()
    other = response_of(again, inputs, points=4)
    with pytest.raises(Killed):
        train(again, Ledger(), response=other, checkpoints=Fatal(tmp_path / "c", STEPS - 1))
    last = make()
    rows = response_of(last, inputs, points=4)
    rest, _, _ = trained(last, response=rows, resumed=Checkpoints(tmp_path / "c", 0).load())
    assert_equal(tensors, rest)
    assert [timeless(row) for row in rows.rows] == [timeless(row) for row in response.rows]


def scarce(monkeypatch: pytest.MonkeyPatch, most_rows: int) -> list[int]:
    """Let memory suffice for some rows at a time only; returns the sizes that were tried."""
    tried: list[int] = []
    original = SignalSource.student_signals

    def student_signals(self: SignalSource, batch: Batch) -> dict[str, Any]:
        tried.append(len(batch))
        torch.rand(1)
        if len(batch) > most_rows:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"
            )
        return original(self, batch)

    monkeypatch.setattr(SignalSource, "student_signals", student_signals)
    return tried


def test_out_of_memory_halves_what_passes_at_a_time(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, ledger, _ = trained(make_job("ibkd"))
    with monkeypatch.context() as patch:
        tried = scarce(patch, 5)
        parts, parts_ledger, _ = trained(make_job("ibkd"))
    assert tried[:4] == [16, 8, 4, 4]
    assert set(tried[4:]) == {4}
    assert (parts_ledger["micro_batch"], parts_ledger["out_of_memory"]) == (4, 2)
    assert (ledger["micro_batch"], ledger["out_of_memory"]) == (16, 0)
    assert parts_ledger["student_flops"] > ledger["student_flops"]
    assert parts_ledger["steps"] == ledger["steps"]
    assert parts.keys() == plain.keys()


def test_one_row_too_many_is_a_failure_and_so_is_any_other_error(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        tried = scarce(patch, 0)
        with pytest.raises(RuntimeError, match="can't allocate"):
            trained(make_job("mse"))
    assert tried == [16, 8, 4, 2, 1]

    def fail(*_: object) -> None:
        raise RuntimeError("another reason")

    monkeypatch.setattr(SignalSource, "student_signals", fail)
    with pytest.raises(RuntimeError, match="another reason"):
        trained(make_job("mse"))


def test_a_damaged_checkpoint_is_not_gone_on_from(
    make_job: MakeJob, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Killed):
        train(make_job("mse"), Ledger(), checkpoints=Fatal(tmp_path / "c", 2))
    file = tmp_path / "c" / checkpoint.TENSORS_FILE
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert Checkpoints(tmp_path / "c", 0).load() is None
    assert "the checkpoint" in caplog.text


def test_a_checkpoint_of_another_format_is_not_gone_on_from(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        train(make_job("mse"), Ledger(), checkpoints=Fatal(tmp_path / "c", 2))
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    assert Checkpoints(tmp_path / "c", 0).load() is None


def test_checkpoints_take_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    kept = Checkpoints(tmp_path / "c", 10)
    assert not kept.due()
    now = 111.0
    assert kept.due()

    def slow(*_: object) -> None:
        nonlocal now
        now += 2.0

    monkeypatch.setattr(checkpoint, "put", slow)
    for number in (1, 2):
        kept.save(lambda: Snapshot({}, {}))
        now = 100 + 2.0 * (number + 1) / checkpoint.MOST_COST - 1
        assert not kept.due()
        now += 1.5
        assert kept.due()
        assert not kept.due(side_by_side=2)


@pytest.fixture
def recipe(teacher_folder: Path, text_file: Path, labelled_file: Path, tmp_path: Path) -> Inputs:
    study = Study.model_validate(
        {
            "name": "x",
            "teacher": str(teacher_folder),
            "student": {"layers": 2, "width": 16},
            "text": {"source": str(text_file)},
            "labelled": {"source": str(labelled_file)},
            "dev": {"source": str(labelled_file), "columns": ["anchor", "positive"], "scores": ["good"], "points": 3},
            "budget": {"sentences": 320},
            "methods": [{"two": ["leaf", {"simcse-supervised": {"share": 0.5, "hard_negatives": False}}]}],
            "seeds": 1,
            "tasks": ["embedded"],
            "train": {"batch_size": 16},
        }
    )
    settings = Settings(out=tmp_path, cache=tmp_path / "cache", mirror=None, device="cpu", checkpoint_seconds=0)
    return make_inputs(study, settings)


def train_until_killed(run: PreparedRun, monkeypatch: pytest.MonkeyPatch, lives: int) -> None:
    original = Checkpoints.save

    def save(self: Checkpoints, take: Callable[[], Snapshot]) -> None:
        nonlocal lives
        if not lives:
            raise Killed
        lives -= 1
        original(self, take)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        with pytest.raises(Killed):
            training_of(run, Ledger(), lambda _: None)


def folder_of(training: Training) -> Path:
    assert isinstance(training.model, StoredModel)
    return training.model.folder


def files(training: Training) -> dict[str, bytes]:
    folder = folder_of(training)
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "lives", [pytest.param(3, marks=pytest.mark.thorough), 10, pytest.param(13, marks=pytest.mark.thorough)]
)
def test_a_recipe_goes_on_in_the_stage_in_which_it_was_killed(
    recipe: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: int
) -> None:
    cell = next(run for run in runs_of(recipe.study) if run.role == "method")
    run = prepare_run(recipe, cell)
    train_until_killed(run, monkeypatch, lives)
    assert any((recipe.settings.cache / "checkpoints").iterdir())
    ledger, twin_ledger = Ledger(), Ledger()
    resumed = training_of(run, ledger, lambda _: None)
    other = make_inputs(recipe.study, replace(recipe.settings, cache=tmp_path / "other", checkpoint_seconds=1e9))
    twin = training_of(prepare_run(other, cell), twin_ledger, lambda _: None)
    assert files(resumed) == files(twin)
    assert timeless(asdict(ledger)) == timeless(asdict(twin_ledger))
    assert resumed.curve.drop(columns="seconds").equals(twin.curve.drop(columns="seconds"))
    assert [timeless(row) for row in resumed.response] == [timeless(row) for row in twin.response]
    assert resumed.identity == twin.identity
    assert not any((recipe.settings.cache / "checkpoints").iterdir())


def test_a_checkpoint_of_another_seed_is_not_gone_on_from(
    recipe: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = recipe.study.model_copy(update={"seeds": [1, 2]})
    first, second = (cell for cell in runs_of(study) if cell.role == "method")
    inputs = make_inputs(study, recipe.settings)
    one = prepare_run(inputs, first)
    train_until_killed(one, monkeypatch, 10)
    two = prepare_run(inputs, second)
    # The teacher's signals go along: rows that are computed in other company differ in their last bits.
    shutil.copytree(recipe.settings.cache, tmp_path / "other")
    other = make_inputs(study, replace(recipe.settings, cache=tmp_path / "other", checkpoint_seconds=1e9))
    checkpoints = recipe.settings.cache / "checkpoints"
    (checkpoints / one.id).rename(checkpoints / two.id)
    misled, twin = (training_of(run, Ledger(), lambda _: None) for run in (two, prepare_run(other, second)))
    assert files(misled) == files(twin)
    assert misled.identity == twin.identity
    assert f"the checkpoint in {checkpoints / two.id} belongs to another place" in caplog.text


def test_a_damaged_model_is_trained_again(recipe: Inputs, caplog: pytest.LogCaptureFixture) -> None:
    run = prepare_run(recipe, next(run for run in runs_of(recipe.study) if run.role == "floor"))
    first = training_of(run, Ledger(), lambda _: None)
    before, file = files(first), folder_of(first) / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    assert files(training_of(run, Ledger(), lambda _: None)) == before
    assert "model/model.safetensors is not as it was written" in caplog.text
