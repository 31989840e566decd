"""Whatever a method leaves behind, sentence-transformers gives the vectors that are scored here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import distilbench_methods
from distilbench.data.tokenizer import load_tokenizer
from distilbench.models.cutting import build_student
from distilbench.models.embed import embed
from distilbench.models.encoder import Encoder
from distilbench.models.export import export
from distilbench.models.model_folder import load_encoder
from distilbench.runs.trained import put_on
from distilbench.study.rows import method_entry
from distilbench.study.sections.models import StudentSpec
from distilbench.training.signals import dims_of
from tests.conftest import SMALL

TEXTS = ["the dog sees a cat", "water", "", "Zebra, Water!", "a small bird sings under the old tree", "river " * 100]
PLAIN: dict[str, Any] = {
    name: {name: SMALL.get(name, {})} for name in (*distilbench_methods.registry(), *distilbench_methods.VARIANTS)
}
HEADS: dict[str, Any] = {
    "mse, shipped": {"mse": {"projection": "shipped", "normalize": False}},
    "simcse, shipped": {"simcse": {"head": "shipped"}},
    "simcse-supervised, shipped": {"simcse-supervised": {"head": "shipped"}},
    "two heads": {"two": ["leaf", {"simcse": {"head": "shipped"}}]},
    "three heads": {"three": [{"hpd": {"width": 8}}, "jasper", {"simcse-supervised": {"head": "shipped"}}]},
}
SHIP_HEADS = {"leaf", "hpd", "jasper", *HEADS}


@pytest.fixture(scope="module")
def teacher(teacher_folder: Path) -> Encoder:
    return load_encoder(teacher_folder)


def student_of(row: Any, teacher: Encoder) -> Encoder:
    """A student with the heads that a row's stages ship, none of them as it was made."""
    student = build_student(teacher, StudentSpec(layers=2, width=16), 1).eval()
    for stage in method_entry(row).stages:
        method = stage.build()
        if (head := method.exported_head(method.build_aux(dims_of(student, teacher, 400)))) is not None:
            put_on(student, head)
    with torch.no_grad():
        for parameter in student.head.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return student


@pytest.mark.parametrize("name", [*PLAIN, *HEADS])
def test_the_exported_vectors_are_those_here(name: str, teacher: Encoder, teacher_folder: Path, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    student, tokenizer = student_of({**PLAIN, **HEADS}[name], teacher), load_tokenizer(teacher_folder)
    assert isinstance(student.head, nn.Identity) == (name not in SHIP_HEADS)
    expected = embed(student, tokenizer, TEXTS)
    export(student, tokenizer, tmp_path / "model", "# card\n")
    loaded = sentence_transformers.SentenceTransformer(str(tmp_path / "model"), device="cpu")
    theirs = loaded.encode(TEXTS)
    assert theirs.shape == expected.shape == (len(TEXTS), student.output_width())
    np.testing.assert_allclose(theirs, expected, atol=1e-6, rtol=0)
