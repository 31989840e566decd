"""The ONNX graph of an exported student, run without torch, gives the vectors that were scored."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from distilbench.core.errors import UserError
from distilbench.data.tokenizer import load_tokenizer
from distilbench.models import onnx_export
from distilbench.models.cutting import build_student
from distilbench.models.embed import embed
from distilbench.models.encoder import Dense, Encoder, Normalize
from distilbench.models.export import export
from distilbench.models.model_folder import load_encoder
from distilbench.models.onnx_export import GRAPH, write_onnx
from distilbench.models.parts.token_table import TokenTable
from distilbench.study.sections.models import StudentSpec

needs_onnx = pytest.mark.skipif(not importlib.util.find_spec("onnxruntime"), reason="needs distilbench[onnx]")
TEXTS = ["water", "the dog sees a cat", "river " * 100]


@pytest.fixture
def folder(teacher_folder: Path, tmp_path: Path) -> Path:
    """A student with a head of its own, as it is exported."""
    student = build_student(load_encoder(teacher_folder), StudentSpec(layers=2, width=16), 1)
    student.head = nn.Sequential(Dense(nn.Linear(16, 8), nn.Tanh()), Normalize())
    return exported(student, teacher_folder, tmp_path / "model")


def exported(student: Encoder, teacher_folder: Path, folder: Path) -> Path:
    export(student.eval(), load_tokenizer(teacher_folder), folder, "# card\n")
    return folder


def without_torch(folder: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    """What a service would do that has the graph and the tokenizer only."""
    onnxruntime, tokenizers = pytest.importorskip("onnxruntime"), pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(load_encoder(folder).max_length)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]"))
    rows = tokenizer.encode_batch(texts)
    feed = {
        "input_ids": np.array([row.ids for row in rows]),
        "attention_mask": np.array([row.attention_mask for row in rows]),
    }
    session = onnxruntime.InferenceSession(str(folder / GRAPH), providers=["CPUExecutionProvider"])
    (found,) = session.run(["sentence_embedding"], feed)
    return np.asarray(found)


@needs_onnx
def test_the_graph_gives_the_vectors_of_the_student(folder: Path, teacher_folder: Path) -> None:
    assert 0.0 <= write_onnx(folder) < 1e-6
    expected = embed(load_encoder(folder), load_tokenizer(teacher_folder), TEXTS)
    for count in (1, 3):
        np.testing.assert_allclose(without_torch(folder, TEXTS[:count]), expected[:count], atol=1e-6, rtol=0)


@needs_onnx
@pytest.mark.thorough
def test_a_graph_of_other_vectors_is_refused(
    folder: Path, teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    static = Encoder(TokenTable(torch.randn(400, 4)), pooling="mean", max_length=64)
    place = exported(static, teacher_folder, tmp_path / "static")
    assert write_onnx(place) < 1e-6

    def first_token(hidden_BTS: torch.Tensor, *_: object) -> torch.Tensor:
        return hidden_BTS[:, 0]

    monkeypatch.setattr(onnx_export, "pool", first_token)
    with pytest.raises(UserError, match="the ONNX graph gives other vectors than torch"):
        write_onnx(place)


def test_what_is_not_installed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(UserError, match=r"--onnx needs onnxscript; run: pip install 'distilbench\[onnx\]'"):
        write_onnx(folder)
    assert not (folder / GRAPH).exists()
