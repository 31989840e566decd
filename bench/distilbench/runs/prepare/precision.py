"""What `precision: auto` means on this machine: bf16 where it multiplies clearly faster, fp32 elsewhere.

Products of two matrices are timed once for each device and version of torch, and the answer lies in the cache. What was
resolved is part of a run's identity: a study that goes on elsewhere, where the answer is another, makes other runs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

import torch

from distilbench.core.cache import find_or_make
from distilbench.core.errors import UserError, one_of
from distilbench.core.hashes import key_of
from distilbench.core.machine import cpu_name
from distilbench.core.seeds import preserved_rng
from distilbench.records.record import dump_json
from distilbench.study.sections.models import TeacherSpec
from distilbench.study.sections.training import Precision
from distilbench.study.study import Study

FASTER = 1.3
"""bf16 is taken where a product in fp32 takes so many times as long: it halves memory, but loses digits."""
ROWS, INNER, COLUMNS = 1024, 384, 1536
"""The first product of a feed-forward block of width 384, for 1024 tokens."""
ROUNDS = 9
VARIABLE = "DISTILBENCH_PRECISION"
MEASURED_FILE = "measured.json"


def resolved(study: Study, device: str, folder: Path) -> Study:
    """The study with a precision in the place of every `auto`.

    Raises `UserError` for a value of the environment variable that is no precision.
    """
    changes: dict[str, Any] = {}
    for name in ("train", "evaluation"):
        section = getattr(study, name)
        if section.precision == "auto":
            changes[name] = section.model_copy(update={"precision": automatic(device, folder)})
    teacher = _teacher(study.teacher, lambda: automatic(device, folder))
    return study.model_copy(update={**changes, "teacher": teacher})


def _teacher(given: str | TeacherSpec, answer: Callable[[], Precision]) -> str | TeacherSpec:
    if isinstance(given, str):
        given = TeacherSpec(model=given)
    if given.joined is not None:
        return given.model_copy(update={"joined": [_teacher(member, answer) for member in given.joined]})
    return given.model_copy(update={"dtype": answer()}) if given.model is not None and given.dtype == "auto" else given


def automatic(device: str, folder: Path) -> Precision:
    """The precision for a device of this machine, measured once; the environment variable decides where it is set."""
    if wanted := os.environ.get(VARIABLE):
        if wanted not in get_args(Precision):
            raise UserError(f"{VARIABLE}: {one_of('precision', wanted, get_args(Precision))}")
        return cast(Precision, wanted)
    return _measured(device, folder)


@cache
def _measured(device: str, folder: Path) -> Precision:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{device} of {cpu_name()}"
    key = key_of(device=name, torch=torch.__version__, product=[ROWS, INNER, COLUMNS], threshold=FASTER)

    def write(path: Path) -> None:
        dump_json({"device": name, "fp32_over_bf16": bf16_speedup(device)}, path / MEASURED_FILE)

    found = find_or_make(folder / "precision" / key, write, "the speed of bf16")
    speedup = json.loads((found / MEASURED_FILE).read_text(encoding="utf-8"))["fp32_over_bf16"]
    return "bf16" if speedup >= FASTER else "fp32"


def bf16_speedup(device: str) -> float:
    """How many times as long a product takes in fp32 as in bf16: the median of rounds that have both side by side."""
    with preserved_rng(), torch.inference_mode():
        pairs = {}
        for dtype in (torch.float32, torch.bfloat16):
            pairs[dtype] = torch.randn(ROWS, INNER).to(device, dtype), torch.randn(INNER, COLUMNS).to(device, dtype)
        ratios = []
        for _ in range(ROUNDS + 1):
            single, half = (_seconds(*pair) for pair in pairs.values())
            ratios.append(single / half)
    # The first round loads kernels.
    return sorted(ratios[1:])[ROUNDS // 2]


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    began = time.perf_counter()
    product = left @ right
    # Reading a number waits for the device.
    float(product[0, 0])
    return time.perf_counter() - began
