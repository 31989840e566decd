"""Trainings that take turns end in the bits in which they end alone, with one pass of the teacher between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import distilbench.training.lock_step
from distilbench.core.machine import Settings
from distilbench.models.encoder import Encoder
from distilbench.records.record import to_dict
from distilbench.runs.engines import in_process as here
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.runs.prepare.preflight import preflight
from distilbench.runs.prepare.prepared import prepare, prepare_run
from distilbench.runs.prepare.vector_teacher import as_model
from distilbench.runs.progress import Watch
from distilbench.runs.study_run import run_part
from distilbench.study.budget import Budget, Ledger
from distilbench.study.sections.training import BudgetSpec
from distilbench.study.study import Run, Study, runs_of
from distilbench.training.checkpoints import Checkpoints, Snapshot
from distilbench.training.job import TrainingJob
from distilbench.training.lock_step import LockStep
from distilbench.training.loop import train
from distilbench.training.online import all_layers, chosen, online_layers, pass_online
from distilbench.training.signals import dims_of
from distilbench_methods.base import Needs
from tests.conftest import teacher_of

MakeJob = Callable[..., TrainingJob]
METHODS = ["internal-kd", "minilm", "tinybert"]
STEPS = 6


@contextmanager
def counted_passes(teacher: Encoder) -> Iterator[list[int]]:
    """Sentences of each pass of a teacher."""
    found: list[int] = []

    def note(_: Any, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        found.append(len(named["input_ids"]))

    handle = teacher.backbone.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()


@pytest.fixture
def job_of(make_job: MakeJob) -> Callable[[str], TrainingJob]:
    """A training of a few steps by a method, whose stored signals are there: the teacher then runs online only."""
    for name in METHODS:
        train(make_job(name, budget=Budget("steps", STEPS)), Ledger())
    return lambda name: make_job(name, budget=Budget("steps", STEPS))


def side_by_side(cells: list[TrainingJob]) -> tuple[LockStep, list[TrainingJob]]:
    needs = [job.method.needs(dims_of(job.student, teacher_of(job), len(job.text))) for job in cells]
    lock_step = LockStep(needs)
    return lock_step, [replace(job, company=lock_step) for job in cells]


def ended(job: TrainingJob, **further: Any) -> tuple[Any, ...]:
    """What a training comes to, but for times and memory."""
    ledger = Ledger()
    trained = train(job, ledger, **further)
    weights = {name: value.tolist() for name, value in job.student.state_dict().items()}
    curve = [{**row, "seconds": None} for row in trained.curve]
    return weights, curve, asdict(ledger) | {"seconds": None, "peak_memory_bytes": None}


def test_side_by_side_is_as_alone_for_one_pass_of_the_teacher_a_step(job_of: Callable[[str], TrainingJob]) -> None:
    cells = [job_of(name) for name in METHODS]
    with counted_passes(teacher_of(cells[0])) as passes:
        alone = [ended(job) for job in cells]
    assert len(passes) == STEPS * len(METHODS)

    lock_step, cells = side_by_side([job_of(name) for name in METHODS])
    before = torch.get_rng_state()
    with counted_passes(teacher_of(cells[0])) as passes:
        together = [found for _, found in lock_step.run(cells, ended)]
    assert len(passes) == STEPS
    assert together == alone
    assert torch.equal(torch.get_rng_state(), before)


def test_the_time_of_a_pass_is_charged_to_all_that_it_serves(
    job_of: Callable[[str], TrainingJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, real = [0.0], pass_online

    def slow_pass(*arguments: Any) -> Any:
        now[0] += 100.0
        return real(*arguments)

    lock_step, cells = side_by_side([job_of(name) for name in METHODS])
    monkeypatch.setattr(distilbench.training.lock_step, "pass_online", slow_pass)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    ledgers = [Ledger() for _ in cells]
    list(lock_step.run([0, 1, 2], lambda number: train(cells[number], ledgers[number])))
    assert [ledger.seconds["train"] for ledger in ledgers] == [100.0 * STEPS] * 3


def test_a_pass_that_is_asked_for_again_by_the_same_is_charged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distilbench.training.lock_step, "pass_online", lambda *_: {})
    lock_step, nothing = LockStep([]), torch.empty(0)
    teacher: Any = None

    def spared(times: int) -> float:
        for _ in range(times):
            lock_step.teacher_pass(teacher, nothing, nothing, {}, b"batch")
        return lock_step.take_spared_seconds()

    first, second = (seconds for _, seconds in lock_step.run([2, 1], spared))
    assert first == 0 < second


class Killed(BaseException):
    """What no handler of the code under test catches, as none catches SIGKILL."""


class Fatal(Checkpoints):
    """Kills the training after its third snapshot."""

    taken = 0

    def save(self, take: Callable[[], Snapshot]) -> None:
        super().save(take)
        self.taken += 1
        if self.taken == 3:
            raise Killed


def test_one_that_goes_on_from_a_checkpoint_is_waited_for(job_of: Callable[[str], TrainingJob], tmp_path: Path) -> None:
    alone = [ended(job_of(name)) for name in METHODS]
    checkpoints = Fatal(tmp_path / "kept", 0)
    with pytest.raises(Killed):
        ended(job_of(METHODS[0]), checkpoints=checkpoints)
    resumed = [checkpoints.load(), None, None]

    lock_step, cells = side_by_side([job_of(name) for name in METHODS])
    with counted_passes(teacher_of(cells[0])) as passes:
        found = lock_step.run([0, 1, 2], lambda number: ended(cells[number], resumed=resumed[number]))
        together = dict(found)
    assert len(passes) == STEPS
    assert [together[number] for number in range(3)] == alone


def test_turns_go_round_and_whoever_is_done_is_out() -> None:
    order: list[tuple[str, int]] = []
    lock_step = LockStep([])

    def work(name: str) -> int:
        steps = {"a": 1, "b": 3, "c": 2}[name]
        for step in range(steps):
            lock_step.turn(step)
            order.append((name, step))
        return steps

    assert list(lock_step.run("abc", work)) == [("a", 1), ("c", 2), ("b", 3)]
    assert order == [("a", 0), ("b", 0), ("c", 0), ("b", 1), ("c", 1), ("b", 2)]


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_an_error_ends_all_and_each_cleans_up(kind: type[BaseException]) -> None:
    order: list[tuple[str, int]] = []
    left: list[str] = []
    lock_step = LockStep([])

    def work(name: str) -> None:
        try:
            for step in range(3):
                lock_step.turn(step)
                order.append((name, step))
                if (name, step) == ("b", 1):
                    raise kind
        finally:
            left.append(name)

    with pytest.raises(kind):
        list(lock_step.run("abc", work))
    assert order == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1)]
    assert sorted(left) == ["a", "b", "c"]


def test_random_numbers_are_those_of_each_alone() -> None:
    def draw(seed: int, turn: Callable[[int], None]) -> list[float]:
        torch.manual_seed(seed)
        found = []
        for step in range(3):
            turn(step)
            found.append(float(torch.rand(())))
        return found

    with torch.random.fork_rng():
        alone = {seed: draw(seed, lambda _: None) for seed in (1, 2)}
        lock_step = LockStep([])
        assert dict(lock_step.run([1, 2], lambda seed: draw(seed, lock_step.turn))) == alone


def test_one_pass_gives_what_each_asks_for() -> None:
    first = Needs(teacher_attention=(4, 2), teacher_hidden=(0,))
    second = Needs(teacher_attention=(3,), teacher_qkv=(4,))
    layers = all_layers([first, second, Needs(teacher_final=True)])
    assert layers == {"attention": (2, 3, 4), "hidden": (0,), "qkv": (4,)}
    found = {kind: tuple(torch.tensor(layer) for layer in numbers) for kind, numbers in layers.items()}

    def given(needs: Needs) -> dict[str, list[int]]:
        return {kind: [int(one) for one in ones] for kind, ones in chosen(found, layers, online_layers(needs)).items()}

    assert given(first) == {"attention": [4, 2], "hidden": [0]}
    assert given(second) == {"attention": [3], "qkv": [4]}


class Listener(Watch):
    """Writes down which run goes on."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def progress(self, run: Run, share: float) -> None:
        self._said.append(f"{run.entry.label} {run.seed}")


def facts(inputs: Inputs, said: list[str]) -> dict[tuple[str, int], dict[str, Any]]:
    """All of a study's records but what is measured anew in every run."""
    preflight(inputs)
    (prepared,) = prepare([inputs])
    found = {}
    for item in run_part(prepared, here.in_this_process, Listener(said)):
        values = to_dict(item.record)
        ledger = values["ledger"] | {"seconds": None, "peak_memory_bytes": None}
        found[item.run.entry.label, item.run.seed] = values | {"ledger": ledger, "environment": None, "speed": None}
    return found


@pytest.mark.slow
@pytest.mark.thorough
def test_a_study_goes_side_by_side_seed_by_seed(
    teacher_folder: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "name": "x",
        "teacher": str(teacher_folder),
        "student": {"layers": 2, "width": 16},
        "text": {"source": str(text_file), "evaluation_text": "keep"},
        "budget": {"steps": 6},
        "methods": ["internal-kd", "mse", {"minilm": {"relation_heads": 4}}],
        "seeds": 2,
        "tasks": ["DistilbenchSTS"],
        "limit": 6 * 8,
        "train": {"batch_size": 8, "max_length": 64},
    }
    benches = [
        make_inputs(Study.model_validate(values), Settings(tmp_path / name / "out", tmp_path / name, None, "cpu"))
        for name in ("together", "alone")
    ]
    said: list[str] = []
    with counted_passes(as_model(benches[0].teacher).encoder) as passes:
        together = facts(benches[0], said)
    side_by_side_passes = len(passes)
    assert said[said.index("internal-kd 2") + 1] == "minilm 2"
    assert said.index("minilm 1") < said.index("mse 1") < said.index("internal-kd 2")
    monkeypatch.setattr(here, "MOST_SIDE_BY_SIDE", 1)
    with counted_passes(as_model(benches[1].teacher).encoder) as passes:
        alone = facts(benches[1], [])
    assert together == alone
    assert len(passes) - side_by_side_passes == 2 * 6


def test_a_budget_in_seconds_is_spent_alone(inputs: Inputs) -> None:
    run = next(run for run in runs_of(inputs.study) if run.entry.label == "internal-kd")
    by_the_clock = inputs.study.model_copy(update={"budget": BudgetSpec(seconds=5)})
    assert prepare_run(inputs, run).asks_online
    assert not prepare_run(make_inputs(by_the_clock, inputs.settings), run).asks_online
