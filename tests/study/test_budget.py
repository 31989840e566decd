"""The ledger and the contract."""

from __future__ import annotations

import time

import pytest
import torch

from distilbench.study.budget import Budget, Ledger, peak_memory_bytes, phase, reset_peak_memory, spent
from distilbench.study.sections.training import BudgetSpec, TrainSpec
from distilbench.training.optimizer import learning_rate


def test_every_currency_is_read_from_the_ledger() -> None:
    ledger = Ledger(steps=2, sentences=20, tokens=300, student_flops=4e6, teacher_flops_online=1e6)
    ledger.seconds = {"train": 4.0, "teacher": 50.0, "evaluation": 70.0, "setup": 9.0}
    amounts = {name: spent(ledger, name) for name in ("steps", "sentences", "tokens", "flops", "seconds")}
    assert amounts == {"steps": 2, "sentences": 20, "tokens": 300, "flops": 5e6, "seconds": 4.0}


def test_progress_is_the_share_spent() -> None:
    budget = Budget.of(BudgetSpec(tokens=1200))
    assert budget.progress(Ledger(tokens=300)) == 0.25


@pytest.mark.parametrize(
    ("given", "limit", "amount"), [({"sentences": 1000}, 64, 64), ({"sentences": 10}, 64, 10), ({"flops": 1e9}, 64, 64)]
)
def test_a_smoke_run_is_short_in_sentences(given: dict[str, float], limit: int, amount: float) -> None:
    assert Budget.of(BudgetSpec.model_validate(given), limit) == Budget("sentences", amount)


@pytest.mark.parametrize(("steps", "amount"), [(4, 32), (100, 64)])
def test_a_smoke_run_spends_no_more_than_the_studys_own_steps(steps: int, amount: int) -> None:
    assert Budget.of(BudgetSpec(steps=steps), 64, batch_size=8) == Budget("sentences", amount)


@pytest.mark.parametrize("accelerator", ["cuda", "mps"])
def test_phases_count_the_work_of_an_accelerator_and_not_its_launch(
    monkeypatch: pytest.MonkeyPatch, accelerator: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: accelerator == "cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: accelerator == "mps")
    monkeypatch.setattr(getattr(torch, accelerator), "synchronize", lambda: time.sleep(0.05))
    ledger = Ledger()
    with phase(ledger, "train"):
        pass
    assert spent(ledger, "seconds") >= 0.05


def test_peak_memory_on_cuda_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    resets: list[None] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 123)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: resets.append(None))
    reset_peak_memory()
    assert (peak_memory_bytes(), len(resets)) == (123, 1)


def test_phases_add_up() -> None:
    ledger = Ledger()
    for _ in range(2):
        with phase(ledger, "train"):
            time.sleep(0.01)
    assert ledger.seconds["train"] >= 0.02


def test_the_learning_rate_rises_and_falls_with_progress() -> None:
    spec = TrainSpec(learning_rate=1.0, warmup=0.1)
    shape = [learning_rate(progress, spec) for progress in (0.0, 0.05, 0.1, 0.55, 1.0, 1.2)]
    assert shape == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0, 0.0])
    assert learning_rate(0.0, TrainSpec(learning_rate=1.0, warmup=0.0)) == 1.0


def test_peak_memory_sees_an_allocation() -> None:
    before = peak_memory_bytes()
    block = bytearray(256 * 2**20)
    block[:: 2**12] = b"x" * len(block[:: 2**12])
    assert peak_memory_bytes() >= max(before, 256 * 2**20)
