"""What a run may cost, before it begins."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Sequence
from copy import deepcopy

import torch

from distilbench.data.batches import LEAST_ROWS
from distilbench.models.embed import tokens_per_pass
from distilbench.runs.prepare.inputs import Inputs
from distilbench.runs.prepare.prepared import PreparedRun, PreparedStage
from distilbench.runs.prepare.vector_teacher import as_model
from distilbench.study.budget import synchronize
from distilbench.study.sections.training import TrainSpec

PROBE_TOKENS, PROBE_STEPS = 32, 3
PROBE_ROWS = 16
"""On a CPU, where more of them are no faster for each token, and take memory that a plan should not need."""
TYPICAL_TOKENS = 24
"""Tokens per sentence that the estimate assumes while the text is not tokenised yet."""


def training_flops(run: PreparedRun, tokens: float, rate: float) -> float:
    """FLOPs of the whole budget, from those of one typical step of each stage.

    `tokens` is the mean length of a sentence, `rate` the FLOPs per second, which a budget in seconds needs.
    """
    return sum(_stage_flops(run.inputs, stage, tokens, rate) * stage.stage.share for stage in run.stages)


def _stage_flops(inputs: Inputs, prepared: PreparedStage, tokens: float, rate: float) -> float:
    """FLOPs of a whole budget spent on one stage."""
    needs, budget, length = prepared.needs, inputs.budget, round(tokens)
    batch_size = _rows_of_a_batch(inputs.study.train, length)
    passes = batch_size * (needs.student_views + needs.masked_tokens + needs.candidates)
    step = 3 * inputs.students.shape.forward_flops(passes, length)
    step += prepared.stage.build().extra_flops(inputs.dims, batch_size, length)
    if needs.teacher_online:
        step += as_model(inputs.teacher).shape.forward_flops(batch_size, length)
    sentences = batch_size * (1 + needs.candidates)
    steps = {
        "steps": budget.amount,
        "sentences": budget.amount / sentences,
        "tokens": budget.amount / (sentences * tokens),
        "flops": budget.amount / step,
        "seconds": budget.amount * rate / step,
    }
    return step * steps[budget.currency]


def _rows_of_a_batch(spec: TrainSpec, length: int) -> int:
    if spec.batch_tokens is None:
        return spec.batch_size
    return max(LEAST_ROWS, min(spec.batch_size, spec.batch_tokens // length))


def flops_per_second(inputs: Inputs) -> float:
    """Measured on a few forward and backward passes of the study's own student."""
    device = inputs.settings.device
    # That of a seed would have to be made, and its speed is the same.
    student = deepcopy(inputs.students.untrained).train()
    rows = PROBE_ROWS if device == "cpu" else tokens_per_pass(device) // PROBE_TOKENS
    shape = (min(rows, _rows_of_a_batch(inputs.study.train, PROBE_TOKENS)), PROBE_TOKENS)
    ids = torch.ones(shape, dtype=torch.long, device=device)
    for step in range(PROBE_STEPS + 1):
        if step == 1:
            synchronize()
            start = time.perf_counter()
        student(ids, torch.ones_like(ids)).final.square().sum().backward()
    synchronize()
    elapsed = time.perf_counter() - start
    return PROBE_STEPS * 3 * student.forward_flops(*shape) / elapsed


def run_flops(runs: Sequence[PreparedRun]) -> list[float]:
    """FLOPs of each run, training and scoring, estimated: for their order, and for how much is left."""
    rates: dict[int, float] = {}
    return [_run_flops(run, rates) for run in runs]


def _run_flops(run: PreparedRun, rates: dict[int, float]) -> float:
    """`rates`: FLOPs per second by inputs, filled where a budget in seconds needs them."""
    inputs, role = run.inputs, run.cell.role
    # A static student looks vectors up: next to nothing.
    models = {"ceiling": inputs.teacher.shape, "reference": None}
    model = models.get(role, inputs.students.shape)
    scoring = model.forward_flops(sum(task.num_texts for task in inputs.tasks()), TYPICAL_TOKENS) if model else 0.0
    if role != "method":
        return scoring
    if inputs.budget.currency == "seconds" and id(inputs) not in rates:
        rates[id(inputs)] = flops_per_second(inputs)
    tokens = float(inputs.text.corpus.lengths().mean())
    return scoring + training_flops(run, tokens, rates.get(id(inputs), 1.0))


def longest_first(runs: Sequence[PreparedRun]) -> list[PreparedRun]:
    """The order in which several workers are done soonest: what is long is not left for the end."""
    costs = run_flops(runs)
    return [runs[place] for place in sorted(range(len(runs)), key=lambda place: -costs[place])]


def makespan(costs: Iterable[float], slots: int) -> float:
    """How long runs take that are begun longest first, each in the slot that is free first; in the unit of `costs`."""
    ends = [0.0] * slots
    for cost in sorted(costs, reverse=True):
        heapq.heapreplace(ends, ends[0] + cost)
    return max(ends)
