"""One training loop for all methods: same batches, same optimiser, same schedule, until the budget says stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.batches import BatchOrder
from bench.budget import Budget, Ledger
from bench.corpus import Corpus
from bench.encoder import Encoder, num_parameters
from bench.seeds import seed_for, seeded
from bench.signals import SignalSource, TeacherStore, dims_of
from bench.study import TrainSpec
from methods.base import Dims, Method, Needs, Signals

LOG_EVERY = 10
"""Steps between rows of the curve; a divergence is noticed then."""
STORE_AHEAD = 64
"""Batches for which the teacher's store is filled in one go."""


@dataclass(frozen=True)
class Cell:
    """Everything that one training run works on."""

    method: Method
    student: Encoder
    teacher: Encoder
    corpus: Corpus
    store: TeacherStore
    spec: TrainSpec
    budget: Budget
    seed: int


@dataclass(frozen=True)
class Trained:
    """How a run ended. `aux` holds the method's heads, of which some may ship."""

    aux: nn.ModuleDict
    diverged: bool
    curve: list[dict[str, float]]


def learning_rate(progress: float, spec: TrainSpec) -> float:
    """Linear rise over the first `warmup` share of the budget, then linear fall to zero at its end."""
    if progress < spec.warmup:
        return spec.learning_rate * progress / spec.warmup
    return spec.learning_rate * max(0.0, 1.0 - progress) / (1.0 - spec.warmup)


def train(cell: Cell, ledger: Ledger, on_progress: Callable[[float], None] = lambda _: None) -> Trained:
    """Train the student in place, spending at most one step more than the budget.

    Global random state is left as it was found.
    """
    dims = dims_of(cell.student, cell.teacher, len(cell.corpus))
    needs = cell.method.needs(dims)
    with seeded(seed_for(cell.seed, "aux")):
        aux = cell.method.build_aux(dims).to(cell.student.device)
    ledger.extra_parameters = num_parameters(aux)
    ledger.state_bytes = sum(buffer.nbytes for buffer in aux.buffers())
    with seeded(seed_for(cell.seed, "dropout")):
        curve, diverged = _steps(cell, needs, dims, aux, ledger, on_progress)
    return Trained(aux=aux, diverged=diverged, curve=curve)


def _steps(
    cell: Cell, needs: Needs, dims: Dims, aux: nn.ModuleDict, ledger: Ledger, on_progress: Callable[[float], None]
) -> tuple[list[dict[str, float]], bool]:
    order = BatchOrder(cell.corpus.lengths(), cell.spec.batch_size, seed_for(cell.seed, "batches"))
    source = SignalSource(needs, cell.student, cell.teacher, cell.corpus, cell.store, seed_for(cell.seed, "negatives"))
    parameters = [*cell.student.parameters(), *aux.parameters()]
    optimizer = _optimizer(parameters, cell.spec)
    curve: list[dict[str, float]] = []
    diverged = False
    cell.student.train()
    while (progress := cell.budget.progress(ledger)) < 1 and not diverged:
        step = ledger.steps
        if step % STORE_AHEAD == 0:
            _fill_store(cell, needs, order, ledger)
        with ledger.phase("train"):
            _set_learning_rate(optimizer, learning_rate(progress, cell.spec))
            rows_B = order[step]
            with _autocast(cell):
                signals = source(step, rows_B)
                terms = cell.method.loss(signals, aux, progress)
            grad_norm = _update(torch.stack(list(terms.values())).sum(), parameters, optimizer, cell.spec)
            terms = {name: term.detach() for name, term in terms.items()}
            with torch.no_grad():
                cell.method.after_step(signals, aux)
        ledger.epochs = (step + 1) / order.batches_per_epoch
        _charge(ledger, cell, needs, dims, rows_B, signals.mask_BT.shape[1])
        if step % LOG_EVERY == 0 or cell.budget.progress(ledger) >= 1:
            row = _curve_row(cell, ledger, progress, terms, grad_norm, signals, aux)
            curve.append(row)
            diverged = not math.isfinite(row["loss"]) or not math.isfinite(row["grad_norm"])
            on_progress(min(1.0, cell.budget.progress(ledger)))
    cell.student.eval()
    return curve, diverged


def _optimizer(parameters: list[nn.Parameter], spec: TrainSpec) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)


def _set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


def _update(loss: Tensor, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, spec: TrainSpec) -> Tensor:
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, spec.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def _fill_store(cell: Cell, needs: Needs, order: BatchOrder, ledger: Ledger) -> None:
    if not (needs.teacher_final or needs.teacher_layers):
        return
    with ledger.phase("teacher"):
        ahead = range(ledger.steps, ledger.steps + _steps_ahead(cell, ledger))
        cell.store.ensure(np.concatenate([order[step] for step in ahead]))


def _steps_ahead(cell: Cell, ledger: Ledger) -> int:
    """Never more than the budget can still pay for, where that is known beforehand."""
    if cell.budget.currency == "steps":
        left = cell.budget.amount - ledger.steps
    elif cell.budget.currency == "sentences":
        left = (cell.budget.amount - ledger.sentences) / cell.spec.batch_size
    else:
        return STORE_AHEAD
    return min(STORE_AHEAD, math.ceil(left))


def _charge(ledger: Ledger, cell: Cell, needs: Needs, dims: Dims, rows_B: NDArray[np.int64], num_tokens: int) -> None:
    batch_size = len(rows_B)
    student = 3 * cell.student.forward_flops(batch_size, num_tokens) * needs.student_views
    teacher = cell.teacher.forward_flops(batch_size, num_tokens)
    ledger.steps += 1
    ledger.sentences += batch_size
    ledger.tokens += cell.corpus.num_tokens(rows_B)
    ledger.student_passes += batch_size * needs.student_views
    ledger.student_flops += student + cell.method.extra_flops(dims, batch_size, num_tokens)
    if needs.teacher_final or needs.teacher_layers:
        ledger.teacher_sentences_stored += batch_size
        ledger.teacher_flops_stored += teacher
    if needs.teacher_attention:
        ledger.teacher_sentences_online += batch_size
        ledger.teacher_flops_online += teacher


def _curve_row(
    cell: Cell,
    ledger: Ledger,
    progress: float,
    terms: dict[str, Tensor],
    grad_norm: Tensor,
    signals: Signals,
    aux: nn.ModuleDict,
) -> dict[str, float]:
    with torch.no_grad():
        diagnostics = cell.method.diagnostics(signals, aux)
    return {
        "step": ledger.steps,
        "sentences": ledger.sentences,
        "tokens": ledger.tokens,
        "flops": ledger.spent("flops"),
        "seconds": ledger.spent("seconds"),
        "progress": progress,
        "lr": learning_rate(progress, cell.spec),
        "grad_norm": float(grad_norm),
        "loss": float(sum(float(term) for term in terms.values())),
        **{f"term_{name}": float(term) for name, term in terms.items()},
        **{name: float(value) for name, value in diagnostics.items()},
    }


def _autocast(cell: Cell) -> AbstractContextManager[Any]:
    if cell.spec.precision == "fp32":
        return nullcontext()
    return torch.autocast(cell.student.device.type, dtype=torch.bfloat16)
