"""Two models that people use: an MPNet as teacher, and a pretrained MiniLM as student."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch.utils.flop_counter import FlopCounterMode

from distilbench.cli.app import main
from distilbench.data.tokenizer import load_tokenizer
from distilbench.models.cutting import build_student
from distilbench.models.embed import embed
from distilbench.models.export import export
from distilbench.models.model_folder import load_encoder
from distilbench.study.sections.models import StudentSpec

pytestmark = [pytest.mark.models, pytest.mark.slow]
TEACHER, STUDENT = "all-mpnet-base-v2", "paraphrase-MiniLM-L3-v2"
TEXTS = ["a dog", "A Bird Sings UNDER the Tree", "", "the old house by the river has a red door. " * 60]


@pytest.mark.parametrize("name", [TEACHER, STUDENT])
def test_vectors_and_flops(real_models: Path, name: str) -> None:
    folder = real_models / name
    model = load_encoder(folder)
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(embed(model, load_tokenizer(folder), TEXTS), theirs, atol=1e-5, rtol=0)
    model.backbone.set_attn_implementation("eager")
    ids = torch.full((2, 40), 5)
    with FlopCounterMode(display=False) as counter:
        model.backbone(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert model.forward_flops(2, 40) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_cut_of_the_teacher_is_exported(real_models: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(real_models / TEACHER)
    student = build_student(load_encoder(real_models / TEACHER), StudentSpec(layers=2), 1).eval()
    export(student, tokenizer, tmp_path / "student", "# card\n")
    theirs = SentenceTransformer(str(tmp_path / "student"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(embed(student, tokenizer, TEXTS), theirs, atol=1e-5, rtol=0)


@pytest.mark.mirror
@pytest.mark.thorough
def test_the_teachers_scores_are_the_published_ones(
    real_models: Path,
    mirror: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Under no name that it has: it is known by its weights."""
    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path))
    teacher, tasks = str(real_models / TEACHER), ["STSBenchmark", "DistilbenchSTS"]
    assert main(["calibrate", "--teacher", teacher, "--mirror", str(mirror), "--tasks", *tasks, "--json"]) == 0
    known, unknown = json.loads(capsys.readouterr().out)
    assert (known["published"], known["verdict"]) == (pytest.approx(83.4219, abs=1e-4), "agrees")
    assert abs(known["difference"]) < 0.01
    assert (unknown["task"], unknown["verdict"]) == ("DistilbenchSTS", "no figure")
