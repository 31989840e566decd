"""One loop for all methods: the budget binds, runs are repeatable, and every method starts and sees the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import distilbench.study.budget
import distilbench_methods
from distilbench.core.seeds import seed_for
from distilbench.data.batches import BatchOrder
from distilbench.models.encoder import Encoder
from distilbench.study.budget import Budget, Ledger, spent
from distilbench.training.gradient_cache import backward_in_parts
from distilbench.training.job import Trained, TrainingJob
from distilbench.training.loop import train
from distilbench.training.signals import SignalSource, dims_of
from distilbench.training.stores.teacher_store import TeacherStore
from distilbench_methods.base import Dims, Method, Needs, Signals
from tests.conftest import teacher_of

MakeJob = Callable[..., TrainingJob]
METHODS = list(distilbench_methods.registry())


def make_dims(job: TrainingJob) -> Dims:
    return dims_of(job.student, teacher_of(job), len(job.text))


def weights(model: Encoder) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def trained(job: TrainingJob) -> tuple[Tensor, Ledger, Trained]:
    ledger = Ledger()
    result = train(job, ledger)
    return weights(job.student), ledger, result


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.no_cover
def test_a_run_is_repeatable_bit_for_bit_and_touches_nothing_else(make_job: MakeJob, name: str) -> None:
    job = make_job(name)
    teacher = weights(teacher_of(job))
    first, ledger, result = trained(job)
    assert torch.equal(teacher, weights(teacher_of(job)))
    torch.manual_seed(123)
    torch.rand(5)
    state = torch.get_rng_state()
    again, other_ledger, other = trained(make_job(name))
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state())
    assert [row["loss"] for row in result.curve] == [row["loss"] for row in other.curve]
    assert ledger.student_flops == other_ledger.student_flops
    assert not torch.equal(first, trained(make_job(name, seed=2))[0])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.no_cover
def test_batches_of_any_size_will_do(make_job: MakeJob, name: str) -> None:
    job = make_job(name, budget=Budget("steps", 6))
    lengths = job.text.lengths()
    job = replace(job, spec=job.spec.model_copy(update={"batch_tokens": 3 * int(lengths.max())}))
    _, ledger, result = trained(job)
    assert not result.diverged and ledger.steps == 6
    rows = ledger.sentences // (1 + job.method.needs(make_dims(job)).candidates)
    assert 6 * 3 <= rows < 6 * job.spec.batch_size
    order = BatchOrder(lengths, job.spec.batch_size, seed_for(job.seed, "batches"), job.spec.batch_tokens)
    assert rows == sum(len(order[step]) for step in range(6))
    assert ledger.epochs == pytest.approx(6 / order.batches_in_epoch(0))


@dataclass(frozen=True, kw_only=True)
class Spy(Method):
    """Records what it is given."""

    name: ClassVar[str] = "spy"
    source: ClassVar[str] = "this test"
    seen: Any
    views: Any = 1

    def needs(self, dims: Dims) -> Needs:
        return Needs(student_views=self.views)

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        self.seen.append((signals.index_B.tolist(), progress, signals.mask_BT.shape[1]))
        return {"zero": signals.student_BS.sum() * 0}


def test_all_methods_of_a_seed_see_the_same_batches_and_start_alike(make_job: MakeJob) -> None:
    one: list[Any] = []
    two: list[Any] = []
    first, second = make_job(Spy(seen=one)), make_job(Spy(seen=two, views=2))
    assert torch.equal(weights(first.student), weights(second.student))
    trained(first)
    trained(second)
    assert one == two
    other: list[Any] = []
    trained(make_job(Spy(seen=other), seed=2))
    assert [rows for rows, *_ in one] != [rows for rows, *_ in other]


def test_two_views_pay_twice(make_job: MakeJob) -> None:
    once, twice = (trained(make_job(Spy(seen=[], views=views)))[1] for views in (1, 2))
    assert (twice.sentences, twice.student_passes) == (once.sentences, 2 * once.student_passes)
    assert twice.student_flops == 2 * once.student_flops


@pytest.mark.parametrize("currency", ["steps", "sentences", "tokens", "flops", "seconds"])
def test_no_currency_is_overspent_by_more_than_a_step_and_progress_is_complete(
    make_job: MakeJob, currency: str
) -> None:
    reference = trained(make_job("mse"))[1]
    amount = spent(reference, currency) * 1.05
    seen: list[Any] = []
    ledger = trained(make_job(Spy(seen=seen), budget=Budget(currency, amount)))[1]
    progress = [share for _, share, _ in seen]
    assert progress[0] == 0
    assert progress == sorted(progress)
    assert progress[-1] < 1 <= spent(ledger, currency) / amount
    if currency != "seconds":
        largest = max(later - earlier for earlier, later in zip(progress, [*progress[1:], 1], strict=True))
        assert spent(ledger, currency) / amount - 1 <= largest + 0.1


def test_a_text_shorter_than_the_budget_is_read_again(make_job: MakeJob) -> None:
    ledger = trained(make_job("mse", budget=Budget("sentences", 1000)))[1]
    assert ledger.sentences == 1008
    assert ledger.epochs == pytest.approx(1008 / 400)


def tried(job: TrainingJob) -> None:
    """Let the passes by which the models are looked at be over before others are counted."""
    for model in (job.student, teacher_of(job)):
        model.forward_flops(1, 1)
        assert model.can_give_maps


@pytest.mark.parametrize("name", METHODS)
def test_the_ledgers_flops_are_those_that_torch_counts(
    make_job: MakeJob, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(name, budget=Budget("steps", 1))
    job.store.ensure(torch.arange(len(job.text.corpus)).numpy())
    # What is logged is not charged.
    monkeypatch.setattr(type(job.method), "diagnostics", Method.diagnostics)
    tried(job)
    with FlopCounterMode(display=False) as counter:
        ledger = trained(job)[1]
    counted = ledger.student_flops + ledger.teacher_flops_online
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("name", METHODS)
def test_gradient_caching_is_the_whole_batch(make_job: MakeJob, name: str) -> None:
    found = []
    for part_size in (16, 6):
        job = make_job(name)
        student, dims = without_dropout(job.student).train(), make_dims(job)
        torch.manual_seed(0)
        aux = job.method.build_aux(dims)
        source = SignalSource(job.method.needs(dims), student, job.teacher, job.text, job.store, seed=1)
        rows_B = torch.arange(16).numpy()
        job.store.ensure(source.sentences_read(0, rows_B))
        method = job.method

        def loss_of(signals: Signals, method: Method = method, aux: nn.ModuleDict = aux) -> dict[str, Tensor]:
            return method.loss(signals, aux, 0.0)

        if part_size == 16:
            torch.stack(list(loss_of(source(0, rows_B)).values())).sum().backward()
        else:
            backward_in_parts(source, 0, rows_B, part_size, loss_of, nullcontext)
        found.append(
            torch.cat([gradients(student), *(p.grad.flatten() for p in aux.parameters() if p.grad is not None)])
        )
    whole, parts = found
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-5 * float(whole.abs().max()))


def test_training_in_parts_is_charged_for_the_further_pass(make_job: MakeJob) -> None:
    whole, parts = make_job("mse"), make_job("mse")
    parts = replace(parts, spec=parts.spec.model_copy(update={"micro_batch": 5}))
    ledger, larger = trained(whole)[1], trained(parts)[1]
    again = replace(parts, student=make_job("mse").student)
    tried(again)
    with FlopCounterMode(display=False) as counter:
        trained(again)
    assert larger.student_passes == ledger.student_passes
    assert larger.student_flops == pytest.approx(4 / 3 * ledger.student_flops, rel=0.02)
    assert counter.get_total_flops() == pytest.approx(larger.student_flops, rel=0.01)


def without_dropout(student: Encoder) -> Encoder:
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return student


def test_gradient_caching_replays_dropout(make_job: MakeJob) -> None:
    job = make_job("simcse")
    job.student.train()
    needs = job.method.needs(make_dims(job))
    source = SignalSource(needs, job.student, job.teacher, job.text, job.store, seed=1)
    rows_B = torch.arange(16).numpy()

    def loss_of(signals: Signals) -> dict[str, Tensor]:
        return {"loss": (signals.student_BS * signals.second_view_BS.detach()).sum()}

    torch.manual_seed(3)
    backward_in_parts(source, 0, rows_B, 4, loss_of, nullcontext)
    cached = gradients(job.student)
    torch.manual_seed(3)
    batch = source.batch(0, rows_B)
    parts = [source.student_signals(batch.part(start, start + 4)) for start in range(0, 16, 4)]
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    loss_of(source.complete(0, rows_B, batch, joined))["loss"].backward()
    torch.testing.assert_close(gradients(job.student), cached)
    torch.manual_seed(4)
    backward_in_parts(source, 0, rows_B, 4, loss_of, nullcontext)
    assert not torch.allclose(gradients(job.student), cached, rtol=1e-2)


def gradients(model: Encoder) -> Tensor:
    """All gradients in a row, taken away from the model."""
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    model.zero_grad(set_to_none=True)
    return found


@dataclass(frozen=True, kw_only=True)
class Exploding(Method):
    """Divides by zero after some progress."""

    name: ClassVar[str] = "exploding"
    source: ClassVar[str] = "this test"

    def needs(self, dims: Dims) -> Needs:
        return Needs()

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        return {"bad": signals.student_BS.sum() * (float("nan") if progress > 0.3 else 1.0)}


def test_divergence_stops_the_run_and_keeps_its_curve(make_job: MakeJob) -> None:
    _, ledger, result = trained(make_job(Exploding(), budget=Budget("steps", 100)))
    assert result.diverged
    assert 30 < ledger.steps < 50
    assert len(result.curve) >= 3


def test_bf16_stays_close_to_fp32(make_job: MakeJob) -> None:
    full = make_job("mse", budget=Budget("steps", 30))
    half = replace(make_job("mse", budget=Budget("steps", 30)), spec=full.spec.model_copy(update={"precision": "bf16"}))
    wide, narrow = trained(full)[2].curve[-1]["loss"], trained(half)[2].curve[-1]["loss"]
    assert narrow == pytest.approx(wide, rel=0.05)


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A slow accelerator: steps are handed to it, and take time when they are waited for. How many, at each wait."""
    waits: list[int] = []
    handed = 0
    step, ensure = torch.optim.AdamW.step, TeacherStore.ensure

    def hand_over(*values: Any, **named: Any) -> Any:
        nonlocal handed
        handed += 1
        return step(*values, **named)

    def wait() -> None:
        nonlocal handed
        time.sleep(handed * STEP_SECONDS)
        waits.append(handed)
        handed = 0

    def ask_teacher(*values: Any) -> Any:
        assert handed == 0, "the teacher would be charged with steps of the training"
        return ensure(*values)

    monkeypatch.setattr(torch.optim.AdamW, "step", hand_over)
    monkeypatch.setattr(TeacherStore, "ensure", ask_teacher)
    monkeypatch.setattr(distilbench.study.budget, "synchronize", wait)
    return waits


STEP_SECONDS = 2e-3


def test_an_accelerator_is_not_waited_for_at_every_step_and_its_time_is_charged(
    make_job: MakeJob, accelerator: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distilbench.training.loop.STORE_AHEAD", 25)
    _, ledger, _ = trained(make_job("mse", budget=Budget("steps", 61)))
    assert sum(accelerator) == 61
    assert [count for count in accelerator if count] == [1, 10, 10, 4, 6, 10, 9, 1, 10]
    assert ledger.seconds["train"] >= 61 * STEP_SECONDS


def test_a_budget_in_seconds_knows_the_time_after_every_step(make_job: MakeJob, accelerator: list[int]) -> None:
    _, ledger, _ = trained(make_job("mse", budget=Budget("seconds", 0.2)))
    assert sum(accelerator) == ledger.steps > 1
    assert max(accelerator) == 1
