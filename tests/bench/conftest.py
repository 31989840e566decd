"""A small study, and what the training by each method works on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import methods
from bench.budget import Budget
from bench.settings import Settings
from bench.study import Study
from bench.train import Cell
from bench.workbench import Workbench
from methods.base import Method

MakeCell = Callable[..., Cell]
SMALL: dict[str, dict[str, Any]] = {
    "hpd": {"width": 8},
    "ckd": {"queue_size": 32},
    "minilm": {"relation_heads": 4},
    "matryoshka": {"widths": (8,)},
}
"""Settings that fit models as small as those of these tests."""


@pytest.fixture
def bench(teacher_folder: Path, text_file: Path, labelled_file: Path, tmp_path: Path) -> Workbench:
    study = Study.model_validate(
        {
            "name": "x",
            "teacher": str(teacher_folder),
            "student": {"layers": 2, "width": 16},
            "text": {"source": str(text_file)},
            "labelled": {"source": str(labelled_file)},
            "budget": {"steps": 6},
            "methods": [{name: SMALL.get(name, {})} for name in methods.registry()],
            "seeds": 2,
            "tasks": ["embedded"],
            "train": {"batch_size": 16},
        }
    )
    return Workbench(study, Settings(out=tmp_path, cache=tmp_path / "cache", mirror=None, device="cpu"))


@pytest.fixture
def make_cell(bench: Workbench) -> MakeCell:
    def make(method: Method | str, seed: int = 1, budget: Budget | None = None, **settings: Any) -> Cell:
        chosen = methods.load(method)(**{**SMALL.get(method, {}), **settings}) if isinstance(method, str) else method
        needs = chosen.needs(bench.dims)
        return Cell(
            method=chosen,
            student=bench.student(seed),
            teacher=bench.teacher,
            text=bench.text_of(needs),
            store=bench.store_of(needs),
            spec=bench.study.train,
            budget=budget or bench.budget,
            seed=seed,
        )

    return make
