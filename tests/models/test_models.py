"""Finding the teacher, and cutting students from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distilbench.core.errors import UserError
from distilbench.models import finding as models
from distilbench.models.cutting import build_student, kept_layers, leading_directions
from distilbench.models.encoder import Encoder
from distilbench.models.finding import find_model
from distilbench.models.model_folder import load_encoder
from distilbench.study.sections.models import StudentSpec


@pytest.fixture
def teacher(teacher_folder: Path) -> Encoder:
    return load_encoder(teacher_folder)


def weights(model: Encoder) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_full_width_students_copy_evenly_spaced_layers(teacher: Encoder) -> None:
    student = build_student(teacher, StudentSpec(layers=2), seed=1)
    assert (student.dims.layers, student.dims.width) == (2, 24)
    ours, theirs = student.backbone.state_dict(), teacher.backbone.state_dict()
    for kept, origin in ((0, 1), (1, 3)):
        name = "attention.self.query.weight"
        assert torch.equal(ours[f"encoder.layer.{kept}.{name}"], theirs[f"encoder.layer.{origin}.{name}"])
    assert torch.equal(ours["embeddings.word_embeddings.weight"], theirs["embeddings.word_embeddings.weight"])


def test_a_student_of_all_layers_is_the_teacher(teacher: Encoder) -> None:
    student = build_student(teacher, StudentSpec(layers=4), seed=1).eval()
    ids = torch.tensor([[2, 7, 9, 3]])
    ours, theirs = (model(ids, torch.ones_like(ids), layers=(4,)).layers for model in (student, teacher))
    assert torch.equal(ours, theirs)


def test_chosen_layers(teacher: Encoder) -> None:
    student = build_student(teacher, StudentSpec(layers=[1, 4]), seed=1)
    name = "encoder.layer.1.output.dense.weight"
    assert torch.equal(student.backbone.state_dict()[name], teacher.backbone.state_dict()[name.replace(".1.", ".3.")])


def test_narrow_students_project_the_embeddings(teacher: Encoder) -> None:
    student = build_student(teacher, StudentSpec(layers=1, width=8), seed=1)
    table = teacher.backbone.get_input_embeddings().weight.detach()
    assert student.dims.width == 8
    projected = student.backbone.get_input_embeddings().weight.detach()
    _, _, right = torch.linalg.svd(table.double(), full_matrices=False)
    kept = (table.double() @ right[:8].T) @ right[:8]
    torch.testing.assert_close(projected @ leading_directions(table, 8).T, kept.float(), atol=1e-5, rtol=1e-5)
    assert student.backbone.config.intermediate_size == 16


@pytest.mark.parametrize("spec", [StudentSpec(layers=2), StudentSpec(layers=1, width=8)])
def test_students_of_a_seed_are_equal_whatever_came_before(teacher: Encoder, spec: StudentSpec) -> None:
    first = build_student(teacher, spec, seed=3)
    torch.manual_seed(99)
    torch.rand(7)
    state = torch.get_rng_state()
    assert torch.equal(weights(first), weights(build_student(teacher, spec, seed=3)))
    assert torch.equal(state, torch.get_rng_state())


def test_seeds_differ_where_there_is_anything_random(teacher: Encoder) -> None:
    narrow = StudentSpec(layers=1, width=8)
    assert not torch.equal(weights(build_student(teacher, narrow, 1)), weights(build_student(teacher, narrow, 2)))


def test_dropout_is_the_teachers_unless_given(teacher: Encoder) -> None:
    assert build_student(teacher, StudentSpec(layers=1), 1).backbone.config.hidden_dropout_prob == 0.1
    assert build_student(teacher, StudentSpec(layers=1, dropout=0.0), 1).backbone.config.hidden_dropout_prob == 0.0


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (StudentSpec(layers=5), "the teacher has 4 layers"),
        (StudentSpec(layers=[2, 7]), "the teacher has 4 layers"),
        (StudentSpec(layers=[2, 1]), "in rising order"),
        (StudentSpec(layers=1, width=48), "larger than the teacher's 24"),
        (StudentSpec(layers=1, width=10), "not a multiple of the 4 attention heads"),
    ],
)
def test_students_that_cannot_be(teacher: Encoder, spec: StudentSpec, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        build_student(teacher, spec, 1)


def test_kept_layers_end_with_the_last() -> None:
    assert kept_layers(StudentSpec(layers=3), 6) == (2, 4, 6)
    assert kept_layers(StudentSpec(layers=4), 6) == (2, 3, 4, 6)


def test_teachers_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        find_model("sentence-transformers/no-such-model")
    with pytest.raises(UserError, match="is not a folder"):
        find_model(str(tmp_path / "nothing"))


def test_the_packaged_teacher_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "PACKAGED_SHA256", "0" * 64)
    with pytest.raises(UserError, match="is not the known model"):
        find_model(models.PACKAGED_NAME)
    monkeypatch.setattr(models, "PACKAGED_MODULE", "no_such_module")
    with pytest.raises(UserError, match="is not installed"):
        find_model(models.PACKAGED_NAME)


def test_the_hub_is_asked_for_safe_files_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert find_model("org/model").folder == tmp_path
    assert asked["name"] == "org/model"
    assert asked["local_files_only"] is False
    assert not any(pattern.endswith((".bin", ".py", ".pkl")) for pattern in asked["allow_patterns"])
