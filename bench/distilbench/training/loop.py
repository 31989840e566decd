"""One training loop for all methods: same batches, same optimiser, same schedule, until the budget says stop."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilbench.core.seeds import generator_states, seed_for, seeded, set_generator_states
from distilbench.data.batches import BatchOrder
from distilbench.models.encoder import num_parameters
from distilbench.study.budget import Ledger, charge, phase, restore, spent
from distilbench.study.sections.training import known
from distilbench.training.charges import charge_step, charge_stored
from distilbench.training.checkpoints import Checkpoints, Snapshot, tensors_of
from distilbench.training.compiled import begin_step, compiled, plain
from distilbench.training.dev.response import Response
from distilbench.training.gradient_cache import backward_in_parts
from distilbench.training.heads import started
from distilbench.training.job import Trained, TrainingJob
from distilbench.training.optimizer import drop_gradients, learning_rate, make_optimizer, set_learning_rate
from distilbench.training.signals import SignalSource, detached, dims_of
from distilbench.training.stores.teacher_store import FINAL
from distilbench_methods.base import Dims, Needs, Signals

LOG_EVERY = 10
"""Steps between rows of the curve; a divergence is noticed then."""
STORE_AHEAD = 64
"""Batches for which the teacher's store is filled in one go."""
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch's allocators say, on a CPU in a plain RuntimeError."""

OnRow = Callable[[Mapping[str, float]], None]

_log = logging.getLogger(__name__)


def train(
    job: TrainingJob,
    ledger: Ledger,
    on_progress: Callable[[float], None] = lambda _: None,
    *,
    on_row: OnRow = lambda _: None,
    response: Response | None = None,
    checkpoints: Checkpoints | None = None,
    resumed: Snapshot | None = None,
) -> Trained:
    """Train the student in place, spending at most one step more than the budget.

    `on_row` is told each row of the curve, and of a training that goes on those of the snapshot first.

    Global random state is left as it was found. A training that goes on from a snapshot ends in the same bits, on a
    CPU, as one that was never stopped; it needs the student as it was when the training began, heads included.
    """
    return _Loop(job, ledger, response or Response(), checkpoints).run(on_progress, on_row, resumed)


def rehearse(job: TrainingJob, ledger: Ledger) -> None:
    """Fill the store with all that a training will read, and charge the ledger as that would. Trains nothing.

    What passes the teacher together decides the last bits of its vectors: the store is asked for the same blocks in the
    same order as by the training. Of a budget in seconds nobody knows the end.
    """
    if job.budget.currency != "seconds":
        _Loop(job, ledger, Response(), None).rehearse()


class _Loop:
    """The state of one training."""

    def __init__(self, job: TrainingJob, ledger: Ledger, response: Response, checkpoints: Checkpoints | None) -> None:
        self.job, self.ledger, self.response, self.checkpoints = job, ledger, response, checkpoints
        teacher = job.store.final_width if job.teacher is None else job.teacher
        self.dims: Dims = dims_of(job.student, teacher, len(job.text), shared_tokens=job.shared_tokens)
        self.needs: Needs = job.method.needs(self.dims)
        self.aux = started(job.method, self.dims, job.spec.head_start, job.seed).to(job.student.device)
        ledger.extra_parameters += num_parameters(self.aux)
        ledger.state_bytes += sum(buffer.nbytes for buffer in self.aux.buffers())
        seed, spec = seed_for(job.seed, "batches"), job.spec
        self.order = BatchOrder(job.text.lengths(), spec.batch_size, seed, spec.batch_tokens)
        draws = seed_for(job.seed, "negatives")
        self.source = SignalSource(self.needs, job.student, job.teacher, job.text, job.store, draws, job.company)
        self.parameters = [*job.student.parameters(), *self.aux.parameters()]
        self.optimizer = make_optimizer(self.parameters, spec)
        self.step = 0
        self.curve: list[dict[str, float]] = []
        self.batches_sha256 = ""
        self.part_size = min(spec.micro_batch or spec.batch_size, spec.batch_size)
        # Counted before blocks are compiled: of compiled ones torch counts nothing.
        job.student.forward_flops(1, 1)
        self.filled_to = 0
        self.best: dict[str, Tensor] = {}
        self.best_row: int | None = None

    def run(self, on_progress: Callable[[float], None], on_row: OnRow, resumed: Snapshot | None) -> Trained:
        job, ledger = self.job, self.ledger
        if resumed is None:
            self._fit()
        diverged = False
        job.student.train()
        with seeded(seed_for(job.seed, "dropout")), compiled(job.student, job.spec.compile):
            if resumed is not None:
                self._restore(resumed)
                for row in self.curve:
                    on_row(row)
            while (progress := job.budget.progress(ledger)) < 1 and not diverged:
                self._fill_store()
                if job.company.count > 1:
                    self._settle()
                job.company.turn(self.step)
                # While an accelerator works, the next batch is made ready, unless the clock decides when to stop.
                with phase(ledger, "train", wait=job.budget.currency == "seconds"):
                    signals, terms, grad_norm = self._update(progress)
                charge(ledger, "train", job.company.take_spared_seconds())
                self._charge()
                self.step += 1
                if (self.step - 1) % LOG_EVERY == 0 or job.budget.progress(ledger) >= 1:
                    self._settle()
                    row = self._curve_row(progress, terms, grad_norm, signals)
                    self.curve.append(row)
                    on_row(row)
                    diverged = not math.isfinite(row["loss"]) or not math.isfinite(row["grad_norm"])
                    on_progress(min(1.0, job.budget.progress(ledger)))
                if self.response.due(ledger):
                    self._settle()
                    self._watch()
                if self.checkpoints is not None and not diverged and self.checkpoints.due(job.company.count):
                    self._settle()
                    with phase(ledger, "checkpoint"):
                        self.checkpoints.save(self._snapshot)
        self._choose()
        job.student.eval()
        return Trained(self.aux, diverged, self.curve, self.batches_sha256)

    def rehearse(self) -> None:
        self._rows_to_fit()
        while self.job.budget.progress(self.ledger) < 1:
            self._fill_store()
            self._charge()
            self.step += 1

    def _settle(self) -> None:
        """Charge training with the steps that an accelerator is still at, before the time of anything else counts."""
        with phase(self.ledger, "train"):
            pass

    def _watch(self) -> None:
        """Score the student on the dev pairs, and keep its weights if they are to be chosen by that."""
        score = self.response.add(self.job.student, self.job.method.exported_head(self.aux), self.ledger)
        known = -math.inf if self.best_row is None else self.response.rows[self.best_row]["score"]
        if self.job.spec.checkpoint == "best-on-dev" and score > known:
            self.best = {**tensors_of("student", self.job.student), **tensors_of("aux", self.aux)}
            self.best_row = len(self.response.rows) - 1

    def _choose(self) -> None:
        if self.best_row is None:
            return
        chosen = Snapshot(self.best, {})
        self.job.student.load_state_dict(chosen.below("student"))
        self.aux.load_state_dict(chosen.below("aux"))
        self.response.rows[self.best_row]["chosen"] = True

    def _snapshot(self) -> Snapshot:
        states = self.optimizer.state_dict()["state"]
        tensors = {
            **tensors_of("student", self.job.student),
            **tensors_of("aux", self.aux),
            **{f"optimizer.{index}.{name}": value for index, kept in states.items() for name, value in kept.items()},
            **{f"random.{number}": state for number, state in enumerate(generator_states())},
            **{f"best.{name}": value for name, value in self.best.items()},
        }
        facts = {
            "step": self.step,
            "curve": self.curve,
            "ledger": asdict(self.ledger),
            "batches_sha256": self.batches_sha256,
            "part_size": self.part_size,
            "response": self.response.rows,
            "best_row": self.best_row,
        }
        return Snapshot(tensors, facts)

    def _restore(self, snapshot: Snapshot) -> None:
        facts = snapshot.facts
        self.job.student.load_state_dict(snapshot.below("student"))
        self.aux.load_state_dict(snapshot.below("aux"))
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in snapshot.below("optimizer").items():
            index, _, key = name.partition(".")
            states.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})
        random = snapshot.below("random")
        set_generator_states([random[str(number)] for number in range(len(random))])
        self.best = snapshot.below("best")
        self.step, self.curve, self.batches_sha256 = facts["step"], facts["curve"], facts["batches_sha256"]
        self.part_size, self.best_row = facts["part_size"], facts["best_row"]
        self.response.rows[:] = facts["response"]
        restore(self.ledger, facts["ledger"])

    def _fit(self) -> None:
        """Show the method some of the teacher's vectors, where it asks for them."""
        job, rows = self.job, self._rows_to_fit()
        if len(rows):
            with phase(self.ledger, "train"), torch.no_grad():
                job.method.fit(self.aux, job.store.read(FINAL, rows).to(job.student.device))

    def _rows_to_fit(self) -> NDArray[np.int64]:
        """Have the sentences whose vectors the method is to see before it trains, and charge them."""
        job, count = self.job, min(self.needs.fit_rows, len(self.job.text.corpus))
        rng = np.random.default_rng(seed_for(job.seed, "fit"))
        rows = np.sort(rng.permutation(len(job.text.corpus))[:count]) if count else np.empty(0, np.int64)
        if count:
            with phase(self.ledger, "teacher"):
                job.store.ensure(rows)
            self.ledger.student_flops += job.method.fit_flops(self.dims, count)
            charge_stored(self.ledger, job, rows)
        return rows

    def _update(self, progress: float) -> tuple[Signals, dict[str, Tensor], Tensor]:
        """One step: loss, gradients, new weights, new state."""
        job = self.job
        begin_step(job.spec.compile)
        set_learning_rate(self.optimizer, learning_rate(progress, job.spec))
        signals, terms = self._backward(progress)
        if frozen := job.method.frozen_layers(self.aux):
            drop_gradients(job.student.lowest(frozen))
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, job.spec.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            signals = detached(signals)
            job.method.after_step(signals, self.aux, progress)
        return signals, {name: term.detach() for name, term in terms.items()}, norm

    def _backward(self, progress: float) -> tuple[Signals, dict[str, Tensor]]:
        """Gradients of the whole batch; where memory does not suffice for it, in ever smaller parts from then on."""
        while True:
            random = generator_states()
            try:
                return self._backward_in_parts(progress)
            except (MemoryError, RuntimeError) as error:
                if self.part_size == 1 or not _is_out_of_memory(error):
                    raise
            # Outside the handler: until it is left, the error keeps the tensors of the pass alive.
            self.part_size = (self.part_size + 1) // 2
            self.ledger.out_of_memory += 1
            _log.warning("out of memory; from step %d on, %d rows pass at a time", self.step + 1, self.part_size)
            self.optimizer.zero_grad(set_to_none=True)
            set_generator_states(random)
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()

    def _backward_in_parts(self, progress: float) -> tuple[Signals, dict[str, Tensor]]:
        job, rows_B = self.job, self.order[self.step]

        def loss_of(signals: Signals) -> dict[str, Tensor]:
            return job.method.loss(signals, self.aux, progress)

        if self.part_size < len(rows_B):
            with plain(job.spec.compile):
                return backward_in_parts(self.source, self.step, rows_B, self.part_size, loss_of, self._autocast)
        with self._autocast():
            signals = self.source(self.step, rows_B)
            terms = loss_of(signals)
        torch.stack(list(terms.values())).sum().backward()
        return signals, terms

    def _autocast(self) -> AbstractContextManager[Any]:
        if known(self.job.spec.precision) == "fp32":
            return nullcontext()
        return torch.autocast(self.job.student.device.type, dtype=torch.bfloat16)

    def _fill_store(self) -> None:
        """Have the teacher's signals for the next batches, once for some of them."""
        if self.step < self.filled_to:
            return
        # Blocks begin at the same steps wherever a training goes on, since what passes the teacher together decides
        # the last bits of its vectors.
        first = self.step - self.step % STORE_AHEAD
        self.filled_to = min(first + STORE_AHEAD, self._known_end())
        rows = [self.source.sentences_read(step, self.order[step]) for step in range(first, self.filled_to)]
        self._settle()
        with phase(self.ledger, "teacher"):
            self.job.store.ensure(np.unique(np.concatenate(rows)))

    def _known_end(self) -> int:
        """The first step that the budget cannot pay for, or where that is not known, one that is far enough."""
        budget, ledger = self.job.budget, self.ledger
        left = budget.amount + budget.start - spent(ledger, budget.currency)
        if budget.currency == "sentences":
            left /= self.job.spec.batch_size * (1 + self.needs.candidates)
        elif budget.currency != "steps":
            left = STORE_AHEAD
        return self.step + math.ceil(left)

    def _charge(self) -> None:
        job, ledger, rows_B = self.job, self.ledger, self.order[self.step]
        self.batches_sha256 = hashlib.sha256(self.batches_sha256.encode() + rows_B.tobytes()).hexdigest()
        ledger.micro_batch = self.part_size
        ledger.epochs += 1 / self.order.batches_in_epoch(self.step)
        charge_step(ledger, job, self.needs, self.dims, rows_B, in_parts=self.part_size < len(rows_B))
        charge_stored(ledger, job, self.source.sentences_read(self.step, rows_B))

    def _curve_row(
        self, progress: float, terms: dict[str, Tensor], grad_norm: Tensor, signals: Signals
    ) -> dict[str, float]:
        job, ledger = self.job, self.ledger
        with torch.no_grad():
            diagnostics = job.method.diagnostics(signals, self.aux)
        return {
            "step": ledger.steps,
            "sentences": ledger.sentences,
            "tokens": ledger.tokens,
            "flops": spent(ledger, "flops"),
            "seconds": spent(ledger, "seconds"),
            "progress": progress,
            "lr": learning_rate(progress, job.spec),
            "grad_norm": float(grad_norm),
            "loss": float(sum(float(term) for term in terms.values())),
            **{f"term_{name}": float(term) for name, term in terms.items()},
            **{name: float(value) for name, value in diagnostics.items()},
        }


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error).lower() for words in OUT_OF_MEMORY
    )
