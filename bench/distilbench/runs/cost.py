"""What a run may cost, before it begins."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable

import torch

from distilbench.data.batches import LEAST_ROWS
from distilbench.runs.workbench import Workbench
from distilbench.study.budget import synchronize
from distilbench.study.rows import Stage
from distilbench.study.sections import TrainSpec
from distilbench.study.study import Run
from distilbench_methods.base import Needs

PROBE_TOKENS = 32
PROBE_STEPS = 3
TYPICAL_TOKENS = 24
"""Tokens per sentence that the estimate assumes while the text is not tokenised yet."""


def training_flops(bench: Workbench, run: Run, tokens: float, rate: float) -> float:
    """FLOPs of the whole budget, from those of one typical step of each stage."""
    return sum(
        _stage_flops(bench, stage, needs, tokens, rate) * stage.share for stage, needs in bench.stages(run.entry)
    )


def _stage_flops(bench: Workbench, stage: Stage, needs: Needs, tokens: float, rate: float) -> float:
    """FLOPs of a whole budget spent on one stage."""
    length = round(tokens)
    batch_size = _rows_of_a_batch(bench.study.train, length)
    passes = batch_size * (needs.student_views + needs.masked_tokens + needs.candidates)
    step = 3 * bench.untrained.forward_flops(passes, length)
    step += stage.build().extra_flops(bench.dims, batch_size, length)
    if needs.teacher_online:
        step += bench.teacher.forward_flops(batch_size, length)
    amount, sentences = bench.budget.amount, batch_size * (1 + needs.candidates)
    steps = {
        "steps": amount,
        "sentences": amount / sentences,
        "tokens": amount / (sentences * tokens),
        "flops": amount / step,
        "seconds": amount * rate / step,
    }
    return step * steps[bench.budget.currency]


def _rows_of_a_batch(spec: TrainSpec, length: int) -> int:
    if spec.batch_tokens is None:
        return spec.batch_size
    return max(LEAST_ROWS, min(spec.batch_size, spec.batch_tokens // length))


def flops_per_second(bench: Workbench) -> float:
    """Measured on a few forward and backward passes of the study's own student."""
    student = bench.student(bench.study.seeds[0]).train()
    shape = (_rows_of_a_batch(bench.study.train, PROBE_TOKENS), PROBE_TOKENS)
    ids = torch.ones(shape, dtype=torch.long, device=bench.settings.device)
    for step in range(PROBE_STEPS + 1):
        if step == 1:
            synchronize()
            start = time.perf_counter()
        student(ids, torch.ones_like(ids)).final.square().sum().backward()
    synchronize()
    elapsed = time.perf_counter() - start
    return PROBE_STEPS * 3 * student.forward_flops(*shape) / elapsed


def run_flops(bench: Workbench, runs: list[Run]) -> list[float]:
    """FLOPs of each run, training and scoring, estimated: for their order, and for how much is left."""
    rate = flops_per_second(bench) if bench.budget.currency == "seconds" else 1.0
    tokens = float(bench.corpus.lengths().mean())
    texts = sum(task.num_texts for task in bench.tasks)
    found = []
    for run in runs:
        # A static student looks vectors up: next to nothing.
        model = {"ceiling": bench.teacher, "reference": None}.get(run.role, bench.untrained)
        scoring = model.forward_flops(texts, TYPICAL_TOKENS) if model else 0.0
        found.append(scoring + (training_flops(bench, run, tokens, rate) if run.role == "method" else 0.0))
    return found


def longest_first(bench: Workbench, runs: list[Run]) -> list[Run]:
    """The order in which several workers are done soonest: what is long is not left for the end."""
    costs = run_flops(bench, runs)
    return [runs[place] for place in sorted(range(len(runs)), key=lambda place: -costs[place])]


def makespan(costs: Iterable[float], slots: int) -> float:
    """How long runs take that are begun longest first, each in the slot that is free first; in the unit of `costs`."""
    ends = [0.0] * slots
    for cost in sorted(costs, reverse=True):
        heapq.heapreplace(ends, ends[0] + cost)
    return max(ends)
