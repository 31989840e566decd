"""How cost grows: time with the number of sentences, memory with the size of the text, teacher passes with methods."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from statistics import mean
from typing import Any

from distilbench.core.errors import UserError
from distilbench.models.model_folder import load_encoder
from distilbench.runs.engines.in_process import in_this_process
from distilbench.runs.prepare.vector_teacher import as_model
from distilbench.runs.run import FINISH
from distilbench.runs.trained import rehearse_run
from distilbench.study.budget import Ledger
from distilbench.training.lock_step import LockStep
from distilbench.training.loop import train
from speed.clock import Race, Ratio, Work, race, timed
from speed.setting import Setting
from speed.training import METHODS, OURS, job_of, method_runs

TIMES = 10
PASSED_METHODS: list[Any] = ["mse", "ckd", "ibkd", "codir", "simcse"]
PASSED_SEEDS = [1, 2, 3]
ONLINE_METHODS: list[Any] = ["internal-kd", "tinybert"]
ALONE = "one after the other"
MINILM_HEADS = 12
FEW_BATCHES = 4
SMALL_TEXT, LARGE_TEXT = 100_000, 5_000_000


def linearity(setting: Setting) -> Ratio:
    """How many times as long ten times as many sentences take to train on.

    Ten epochs against one: of so few sentences, others would be longer or shorter.
    """
    small = setting.first(len(setting.sentences) // TIMES)
    steps = len(small.sentences) // setting.options.batch_size
    if not steps:
        raise UserError(
            f"--sentences {len(setting.sentences)}: a tenth of them does not fill a batch of "
            f"{setting.options.batch_size}; give {TIMES * setting.options.batch_size} or more"
        )
    inputs = small.inputs([METHODS["mse"]])
    found = []
    for _ in range(setting.options.rounds):
        seconds = []
        for number in (steps, TIMES * steps):
            cell = job_of(inputs, steps=number)
            seconds.append(timed(lambda cell=cell: train(cell, Ledger()))[0].cpu)  # type: ignore[misc]
        found.append(seconds[1] / seconds[0])
    return Ratio.of(found)


def matrix_linearity(setting: Setting) -> dict[str, Ratio]:
    """How many times as long a matrix of ten times as many methods takes, or seeds; trained, scored and recorded.

    The methods are one with ten temperatures, which take equally long. What all runs share is there before.
    """
    small = _few(setting)
    rows: list[Any] = [{f"ibkd-{number}": {"method": "ibkd", "temperature": 1 + number}} for number in range(TIMES)]
    _seconds_of_matrix(small, rows[:1], [0])
    # Of seeds that no other matrix has: what is trained once is not trained again.
    fresh = count(1)
    found: dict[str, list[float]] = {"methods": [], "seeds": []}
    for _ in range(setting.options.rounds):
        # One run is short, and the machine's speed varies: before, between and after.
        ones = [_seconds_of_matrix(small, rows[:1], [next(fresh)])]
        methods = _seconds_of_matrix(small, rows, [next(fresh)])
        ones.append(_seconds_of_matrix(small, rows[:1], [next(fresh)]))
        seeds = _seconds_of_matrix(small, rows[:1], list(islice(fresh, TIMES)))
        ones.append(_seconds_of_matrix(small, rows[:1], [next(fresh)]))
        found["methods"].append(methods / mean(ones))
        found["seeds"].append(seeds / mean(ones))
    return {name: Ratio.of(values) for name, values in found.items()}


def _seconds_of_matrix(setting: Setting, methods: list[Any], seeds: list[int]) -> float:
    inputs = setting.inputs(methods, name="matrix", seeds=seeds, tasks=["DistilbenchSTS"])
    assert inputs.tasks() and inputs.text.corpus
    runs = method_runs(inputs)
    took, finished = timed(lambda: list(in_this_process(runs, lambda run, share: None, FINISH)))
    for item in finished:
        if item.reused or item.record.status != "completed":
            raise RuntimeError(f"a run of the matrix was not executed: {item.record.error or item.record.status}")
    return took.cpu


def lock_step(setting: Setting) -> Race:
    """Three methods for which the teacher runs on every batch: side by side, and one after the other."""
    inputs = _few(setting).inputs([*ONLINE_METHODS, _minilm(setting)], name="lock-step")
    numbers = range(len(inputs.study.methods))

    def side_by_side(_: int) -> Work:
        together = LockStep([run.stages[0].needs for run in method_runs(inputs)])
        cells = [replace(job_of(inputs, number), company=together) for number in numbers]
        return lambda: list(together.run(cells, lambda cell: train(cell, Ledger())))

    def one_after_the_other(_: int) -> Work:
        cells = [job_of(inputs, number) for number in numbers]
        return lambda: [train(cell, Ledger()) for cell in cells]

    return race({OURS: side_by_side, ALONE: one_after_the_other}, setting.options.rounds)


def _minilm(setting: Setting) -> dict[str, Any]:
    """With as many relation heads as the widths of both models allow."""
    width = load_encoder(setting.teacher.folder).dims.width
    return {"minilm": {"relation_heads": math.gcd(setting.options.width or width, width, MINILM_HEADS)}}


def _few(setting: Setting) -> Setting:
    return setting.first(min(FEW_BATCHES * setting.options.batch_size, len(setting.sentences)))


def memory_growth(work: str) -> tuple[int, int]:
    """Resident bytes that a process takes more to read a large text, or to train on it, than a small one.

    First its own memory, then the peak with pages of mapped files; see `speed.footprint`.
    """
    small, large = (_footprint(work, count) for count in (SMALL_TEXT, LARGE_TEXT))
    return large[0] - small[0], large[1] - small[1]


def _footprint(work: str, sentences: int) -> tuple[int, int]:
    command = [sys.executable, str(Path(__file__).with_name("footprint.py")), work, str(sentences)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    own, peak = done.stdout.split()[-2:]
    return int(own), int(peak)


def teacher_passes(setting: Setting) -> float:
    """Passes over the text that the teacher makes for five methods and three seeds, all of it from one store."""
    inputs = _few(setting).inputs(PASSED_METHODS, name="passes", seeds=PASSED_SEEDS)
    passed = 0

    def note(_: Any, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal passed
        passed += len(named["input_ids"])

    teacher = as_model(inputs.teacher).encoder
    # The passes by which a model is looked at are over none of the text.
    teacher.use_attention_maps(teacher.can_give_maps)
    teacher.use_attention_maps(False)
    teacher.forward_flops(1, 1)
    handle = teacher.backbone.register_forward_pre_hook(note, with_kwargs=True)
    try:
        inputs.text.corpus  # noqa: B018
        for run in method_runs(inputs):
            rehearse_run(run)
    finally:
        handle.remove()
    return passed / len(inputs.text.corpus)
