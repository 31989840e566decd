"""`python bench/speed`: every comparison, as rows of one table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from distilbench.core.machine import Settings, environment, settings
from distilbench.evaluation.tasks.by_name import Task
from distilbench.records.record import dump_json
from distilbench.study.sections.training import Compile, Precision
from speed import rival
from speed.clock import Race
from speed.encoding import compare_evaluation, compare_teacher, load_tasks
from speed.growth import (
    ALONE,
    LARGE_TEXT,
    SMALL_TEXT,
    TIMES,
    linearity,
    lock_step,
    matrix_linearity,
    memory_growth,
    teacher_passes,
)
from speed.inside import choose_precision, parts_of_a_step, peak_flops
from speed.matrix import SEEDS, compare_matrix
from speed.setting import RaceOptions, Setting, setting
from speed.training import BEST, DEFAULTS, METHODS, OURS, PLAIN, WARM_UP_BATCHES, compare, compare_compiled, dev_scores

EMBEDDED, WITH_MIRROR = ("embedded",), ("sts7", "NFCorpus")
WANTED_TRAINING = {("mse", DEFAULTS): 6.0, ("mse", BEST): 2.0, ("simcse", BEST): 2.0, ("ckd", BEST): 2.0}
WANTED_EVALUATION = {("STS", "fp32"): 3.5, ("STS", "bf16"): 8.0, ("Retrieval", "fp32"): 1.5, ("Retrieval", "bf16"): 4.0}
LARGE_BATCH = 256
COMPILED_ON_A_CPU: tuple[Compile, ...] = ("default",)
"""CUDA graphs need a GPU, and autotuning is for its kernels."""
MEGA = 1e6

Announce = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    work: str
    against: str
    found: str
    wanted: str
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    """Everything measured, for programs."""


def speed(arguments: argparse.Namespace, announce: Announce) -> list[Row]:
    """Run the comparisons that were asked for, and write them to a file where one was named.

    Raises `UserError` where sentence-transformers, the text or the tasks are missing.
    """
    rival.check_installed()
    chosen = settings(out=".", mirror=arguments.mirror, device=arguments.device, writing=False)
    precision, factor = choose_precision(chosen.device)
    options = _options(arguments, precision, chosen)
    rows: list[Row] = []
    with setting(options, chosen) as made:
        for part in options.parts:
            announce(f"{part} ...")
            rows.extend(PARTS[part](made))
    if arguments.json:
        facts = {
            "environment": environment(chosen.device),
            "options": asdict(options),
            "bf16_product": factor,
            "rows": [asdict(row) for row in rows],
        }
        dump_json(facts, Path(arguments.json))
    return rows


def _options(arguments: argparse.Namespace, precision: Precision, chosen: Settings) -> RaceOptions:
    return RaceOptions(
        parts=tuple(arguments.parts),
        teacher=arguments.teacher,
        shape=arguments.shape,
        layers=arguments.layers,
        width=arguments.width,
        text=arguments.text,
        sentences=arguments.sentences,
        batch_size=arguments.batch_size,
        rounds=arguments.rounds,
        tasks=tuple(arguments.tasks or (WITH_MIRROR if chosen.mirror else EMBEDDED)),
        learning_rate=arguments.learning_rate,
        precision=precision if arguments.precision == "auto" else arguments.precision,
    )


def _train(made: Setting) -> Iterator[Row]:
    for method in METHODS:
        found = compare(made, method)
        scores = dev_scores(made, found)
        for other in (DEFAULTS, BEST):
            note = "" if scores is None else _gap(scores[OURS], scores[other])
            wanted = WANTED_TRAINING.get((method, other))
            what = f"train, {method}, batch {made.options.batch_size}, {made.options.precision}"
            yield _ratio_row(what, f"sentence-transformers, {other}", found, other, wanted, note, {"dev": scores})


def _gap(ours: list[float], theirs: list[float]) -> str:
    """Mean difference over rounds, each with a seed of its own, with half of its 95 % interval (Student's t)."""
    from scipy.stats import t

    gaps = np.subtract(ours, theirs)
    if len(gaps) < 2:
        return f"STS-B dev {gaps.mean():+.2f} points (1 seed)"
    half = t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps))
    return f"STS-B dev {gaps.mean():+.2f} ± {half:.2f} points ({len(gaps)} seeds)"


def _ratio_row(
    work: str, against: str, found: Race, other: str, wanted: float | None, note: str, more: dict[str, Any]
) -> Row:
    wall, cpu = found.ratio(OURS, other), found.ratio(OURS, other, "cpu")
    seconds = {name: [asdict(item) for item in found.seconds[name]] for name in (OURS, other)}
    details = {"wall": asdict(wall), "cpu": asdict(cpu), "seconds": seconds, "rounds": len(found.seconds[OURS]), **more}
    shown = "" if wanted is None else f"{wanted:g} x"
    parts = [f"CPU time {cpu} x", note] if note else [f"CPU time {cpu} x"]
    return Row(work, against, f"{wall} x", shown, "; ".join(parts), details)


def _teacher(made: Setting) -> Iterator[Row]:
    found, difference = compare_teacher(made)
    note = f"entries differ by {difference:.1e} at most"
    against = "SentenceTransformer.encode"
    yield _ratio_row(
        "teacher over the text, fp32", against, found, DEFAULTS, None, note, {"largest_difference": difference}
    )


def _evaluate(made: Setting) -> Iterator[Row]:
    tasks = load_tasks(made, made.options.tasks)
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.kind, []).append(task)
    precisions: list[Precision] = ["fp32"] if made.options.precision == "fp32" else ["fp32", "bf16"]
    for (kind, group), precision in product(groups.items(), precisions):
        found, difference = compare_evaluation(made, group, precision)
        work = f"evaluate {_named(group)}, {precision}"
        note = f"scores differ by {difference:.1e} at most"
        more = {"tasks": [task.name for task in group], "largest_difference": difference}
        yield _ratio_row(
            work,
            "mteb.evaluate, SentenceTransformer, fp32",
            found,
            DEFAULTS,
            WANTED_EVALUATION.get((kind, precision)),
            note,
            more,
        )


def _named(tasks: list[Task]) -> str:
    kinds = " and ".join(dict.fromkeys(task.kind for task in tasks))
    return tasks[0].name if len(tasks) == 1 else f"{len(tasks)} {kinds} tasks"


def _inside(made: Setting) -> Iterator[Row]:
    parts = parts_of_a_step(made)
    shares = {name: round(value, 4) for name, value in parts.shares().items()}
    note = ", ".join(f"{name} {100 * value:.1f} %" for name, value in shares.items())
    what = f"step time outside forward, backward, optimiser, batch {made.options.batch_size}"
    yield Row(what, "-", f"{100 * parts.rest:.1f} %", "< 5 %", note, {"shares": shares, "steps": parts.steps})
    dtype = torch.bfloat16 if made.options.precision == "bf16" else torch.float32
    batch = min(LARGE_BATCH, len(made.sentences))
    parts = parts_of_a_step(replace(made, options=replace(made.options, batch_size=batch)))
    peak, reached = peak_flops(made.device, dtype), parts.flops / parts.computing
    yield Row(
        f"share of the measured {made.options.precision} peak in training, batch {batch}",
        f"{peak / 1e9:.0f} GFLOP/s",
        f"{100 * reached / peak:.0f} %",
        "70 %",
        f"{reached / 1e9:.0f} GFLOP/s",
        {"peak": peak, "reached": reached, "steps": parts.steps},
    )


def _growth(made: Setting) -> Iterator[Row]:
    ratio = linearity(made)
    yield Row(f"time for {TIMES} times the sentences (CPU time)", "-", f"{ratio} x", "10.5 x", "", asdict(ratio))
    for what, times in matrix_linearity(made).items():
        yield Row(f"time for {TIMES} times the {what} (CPU time)", "-", f"{times} x", "10.5 x", "", asdict(times))
    passes = teacher_passes(made)
    yield Row("teacher passes, 5 methods x 3 seeds", "-", f"{passes:.2f}", "1", "", {"passes": passes})
    yield _ratio_row("train 3 methods with an online teacher", ALONE, lock_step(made), ALONE, None, "", {})
    for work, what in (("read", "read and tokenise"), ("train", "train on")):
        own, peak = memory_growth(work)
        yield Row(
            f"memory, {what} {LARGE_TEXT:,} sentences against {SMALL_TEXT:,}",
            "-",
            f"+{own / MEGA:.0f} MB",
            "< 100 MB",
            f"peak +{peak / MEGA:.0f} MB with pages of mapped files, which the system takes back at need",
            {"own_bytes": own, "peak_bytes": peak},
        )


def _matrix(made: Setting) -> Iterator[Row]:
    tasks = load_tasks(made, made.options.tasks)
    found, difference = compare_matrix(made, tasks)
    what = f"study of {len(METHODS)} methods x {len(SEEDS)} seeds on {_named(tasks)}"
    note = f"scores of the teacher differ by {difference:.1e} at most"
    more = {"tasks": [task.name for task in tasks], "largest_difference": difference}
    yield _ratio_row(what, "sentence-transformers and mteb, best settings", found, BEST, None, note, more)


def _compile(made: Setting) -> Iterator[Row]:
    for how in COMPILED_ON_A_CPU if made.device == "cpu" else get_args(Compile):
        found, first = compare_compiled(made, how)
        what = f"train, mse, compiled ({how}), batch {made.options.batch_size}, {made.options.precision}"
        note = f"{first:.0f} s for the first {WARM_UP_BATCHES} steps"
        yield _ratio_row(what, PLAIN, found, PLAIN, None, note, {"first_seconds": first})


PARTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "train": _train,
    "teacher": _teacher,
    "evaluate": _evaluate,
    "inside": _inside,
    "growth": _growth,
    "matrix": _matrix,
    "compile": _compile,
}
