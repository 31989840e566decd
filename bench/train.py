"""One training loop for all methods: same batches, same optimiser, same schedule, until the budget says stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.batches import BatchOrder
from bench.budget import Budget, Ledger
from bench.encoder import Encoder, num_parameters
from bench.gradient_cache import backward_in_parts
from bench.labelled import Text
from bench.seeds import seed_for, seeded
from bench.signals import SignalSource, detached, dims_of
from bench.store import FINAL, TeacherStore
from bench.study import TrainSpec
from methods.base import Dims, Method, Needs, Signals

LOG_EVERY = 10
"""Steps between rows of the curve; a divergence is noticed then."""
STORE_AHEAD = 64
"""Batches for which the teacher's store is filled in one go."""


@dataclass(frozen=True)
class Cell:
    """Everything that the training by one method works on."""

    method: Method
    student: Encoder
    teacher: Encoder
    text: Text
    store: TeacherStore
    spec: TrainSpec
    budget: Budget
    seed: int
    """A recipe's later stages have seeds of their own, derived from the run's."""


@dataclass(frozen=True)
class Trained:
    """How training ended. `aux` holds the method's heads, of which some may ship."""

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
    return _Loop(cell, ledger).run(on_progress)


class _Loop:
    """The state of one training."""

    def __init__(self, cell: Cell, ledger: Ledger) -> None:
        self.cell, self.ledger = cell, ledger
        self.dims: Dims = dims_of(cell.student, cell.teacher, len(cell.text))
        self.needs: Needs = cell.method.needs(self.dims)
        with seeded(seed_for(cell.seed, "aux")):
            self.aux = cell.method.build_aux(self.dims).to(cell.student.device)
        ledger.extra_parameters += num_parameters(self.aux)
        ledger.state_bytes += sum(buffer.nbytes for buffer in self.aux.buffers())
        self.order = BatchOrder(cell.text.lengths(), cell.spec.batch_size, seed_for(cell.seed, "batches"))
        draws = seed_for(cell.seed, "negatives")
        self.source = SignalSource(self.needs, cell.student, cell.teacher, cell.text, cell.store, draws)
        self.parameters = [*cell.student.parameters(), *self.aux.parameters()]
        self.optimizer = _optimizer(self.parameters, cell.spec)
        self.step = 0
        self.curve: list[dict[str, float]] = []

    def run(self, on_progress: Callable[[float], None]) -> Trained:
        cell, ledger = self.cell, self.ledger
        self._fit()
        diverged = False
        cell.student.train()
        with seeded(seed_for(cell.seed, "dropout")):
            while (progress := cell.budget.progress(ledger)) < 1 and not diverged:
                if self.step % STORE_AHEAD == 0:
                    self._fill_store()
                with ledger.phase("train"):
                    signals, terms, grad_norm = self._update(progress)
                self._charge(signals)
                self.step += 1
                if (self.step - 1) % LOG_EVERY == 0 or cell.budget.progress(ledger) >= 1:
                    row = self._curve_row(progress, terms, grad_norm, signals)
                    self.curve.append(row)
                    diverged = not math.isfinite(row["loss"]) or not math.isfinite(row["grad_norm"])
                    on_progress(min(1.0, cell.budget.progress(ledger)))
        cell.student.eval()
        return Trained(aux=self.aux, diverged=diverged, curve=self.curve)

    def _fit(self) -> None:
        """Show the method some of the teacher's vectors, where it asks for them."""
        cell, count = self.cell, min(self.needs.fit_rows, len(self.cell.text.corpus))
        if not count:
            return
        rng = np.random.default_rng(seed_for(cell.seed, "fit"))
        rows = np.sort(rng.permutation(len(cell.text.corpus))[:count])
        with self.ledger.phase("teacher"):
            cell.store.ensure(rows)
        with self.ledger.phase("train"), torch.no_grad():
            cell.method.fit(self.aux, cell.store.read(FINAL, rows).to(cell.student.device))
        self.ledger.student_flops += cell.method.fit_flops(self.dims, count)
        self._charge_stored(rows)

    def _update(self, progress: float) -> tuple[Signals, dict[str, Tensor], Tensor]:
        """One step: loss, gradients, new weights, new state."""
        cell = self.cell
        _set_learning_rate(self.optimizer, learning_rate(progress, cell.spec))
        signals, terms = self._backward(progress)
        if frozen := cell.method.frozen_layers(self.aux):
            _drop_gradients(cell.student.lowest(frozen))
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, cell.spec.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            signals = detached(signals)
            cell.method.after_step(signals, self.aux, progress)
        return signals, {name: term.detach() for name, term in terms.items()}, norm

    def _backward(self, progress: float) -> tuple[Signals, dict[str, Tensor]]:
        cell, rows_B = self.cell, self.order[self.step]

        def loss_of(signals: Signals) -> dict[str, Tensor]:
            return cell.method.loss(signals, self.aux, progress)

        if cell.spec.micro_batch is not None and cell.spec.micro_batch < cell.spec.batch_size:
            return backward_in_parts(self.source, self.step, rows_B, cell.spec.micro_batch, loss_of, self._autocast)
        with self._autocast():
            signals = self.source(self.step, rows_B)
            terms = loss_of(signals)
        torch.stack(list(terms.values())).sum().backward()
        return signals, terms

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.cell.spec.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.cell.student.device.type, dtype=torch.bfloat16)

    def _fill_store(self) -> None:
        rows = [self.source.sentences_read(step, self.order[step]) for step in range(self.step, self._known_end())]
        with self.ledger.phase("teacher"):
            self.cell.store.ensure(np.unique(np.concatenate(rows)))

    def _known_end(self) -> int:
        """The step before which the store is filled: never one that the budget cannot pay for, where that is known."""
        budget, ledger = self.cell.budget, self.ledger
        left = budget.amount + budget.start - ledger.spent(budget.currency)
        if budget.currency == "sentences":
            left /= self.cell.spec.batch_size * (1 + self.needs.candidates)
        elif budget.currency != "steps":
            left = STORE_AHEAD
        return self.step + min(STORE_AHEAD, math.ceil(left))

    def _charge(self, signals: Signals) -> None:
        cell, needs, ledger, rows_B = self.cell, self.needs, self.ledger, self.order[self.step]
        sentences = cell.text.sentences(rows_B, 1 + needs.candidates).ravel()
        num_tokens = signals.mask_BT.shape[1]
        passes = len(sentences) + len(rows_B) * (needs.student_views - 1 + needs.masked_tokens)
        # Forward once and backward at twice its price; gradient caching passes forward once more.
        price = 3 if cell.spec.micro_batch is None or cell.spec.micro_batch >= len(rows_B) else 4
        ledger.steps += 1
        ledger.sentences += len(sentences)
        ledger.tokens += cell.text.corpus.num_tokens(sentences)
        ledger.epochs += 1 / self.order.batches_per_epoch
        ledger.student_passes += passes
        ledger.student_flops += price * cell.student.forward_flops(passes, num_tokens)
        ledger.student_flops += cell.method.extra_flops(self.dims, len(rows_B), num_tokens)
        self._charge_stored(self.source.sentences_read(self.step, rows_B))
        if needs.teacher_online:
            ledger.teacher_sentences_online += len(rows_B)
            ledger.teacher_flops_online += cell.teacher.forward_flops(len(rows_B), num_tokens)

    def _charge_stored(self, sentences: NDArray[np.int64]) -> None:
        if not len(sentences):
            return
        mean_length = round(self.cell.text.corpus.num_tokens(sentences) / len(sentences))
        self.ledger.teacher_sentences_stored += len(sentences)
        self.ledger.teacher_flops_stored += self.cell.teacher.forward_flops(len(sentences), mean_length)

    def _curve_row(
        self, progress: float, terms: dict[str, Tensor], grad_norm: Tensor, signals: Signals
    ) -> dict[str, float]:
        cell, ledger = self.cell, self.ledger
        with torch.no_grad():
            diagnostics = cell.method.diagnostics(signals, self.aux)
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


def _optimizer(parameters: list[nn.Parameter], spec: TrainSpec) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)


def _set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


def _drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
