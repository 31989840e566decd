"""What the README prints, works."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.study import load_study
from methods.base import Dims, ModelDims, Needs, Signals

README = Path(__file__).parents[1] / "README.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"the README has no {language} block"
    return found[1]


def test_the_study_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(block("yaml"), encoding="utf-8")
    study = load_study(str(path), ["seeds=5", "budget.sentences=50000"])
    assert (study.name, study.seeds, study.budget.amount) == ("mine", [1, 2, 3, 4, 5], 50000)


def test_the_method_is_a_whole_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cosine_table.py"
    path.write_text(block("python"), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("cosine_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "cosine_table", module)
    spec.loader.exec_module(module)
    method = module.CosineTable()
    shape = ModelDims(width=4, layers=2, heads=2)
    dims = Dims(
        student=shape,
        teacher=shape,
        student_final=4,
        teacher_final=6,
        vocabulary=10,
        num_sentences=9,
        shared_tokens=True,
    )
    assert method.needs(dims) == Needs(teacher_final=True)
    student = torch.eye(3, 4, requires_grad=True)
    signals = Signals(
        index_B=torch.arange(3), mask_BT=torch.ones(3, 5), student_BS=student, teacher_final_BD=torch.ones(3, 6)
    )
    loss = method.loss(signals, nn.ModuleDict(), 0.0)["table"]
    assert loss.item() == pytest.approx(6 / 9)
    loss.backward()
    assert student.grad is not None
