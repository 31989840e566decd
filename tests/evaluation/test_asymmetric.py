"""Student queries on the teacher's index."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from distilbench.data.tokenizer import load_tokenizer
from distilbench.evaluation import asymmetric
from distilbench.evaluation.asymmetric import TeacherIndex, asymmetric_scores
from distilbench.evaluation.score import score
from distilbench.evaluation.tasks.by_name import Task, load_task
from distilbench.models.cutting import build_student
from distilbench.models.embed import embed
from distilbench.models.export import export
from distilbench.models.model_folder import StoredModel, load_encoder
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.runs.prepare.prepared import prepare_run
from distilbench.runs.run import finish_run
from distilbench.study.sections.models import StudentSpec
from distilbench.study.sections.texts import OwnTask
from distilbench.study.sections.training import Precision
from distilbench.study.study import runs_of
from tests.conftest import Writes


@pytest.fixture
def task(write_beir: Writes, tmp_path: Path) -> Task:
    return load_task(OwnTask.model_validate({"name": "Own", "source": str(write_beir(tmp_path / "set"))}), None)


def index_of(folder: Path, cache: Path, precision: Precision = "fp32") -> TeacherIndex:
    return TeacherIndex(StoredModel("t", folder), load_encoder(folder), "cpu", precision, cache)


def test_queries_are_the_students_and_documents_the_teachers(task: Task, teacher_folder: Path, tmp_path: Path) -> None:
    teacher = load_encoder(teacher_folder)
    student = build_student(teacher, StudentSpec(layers=2, width=24), 3)
    export(student, load_tokenizer(teacher_folder), tmp_path / "student", "# card\n")
    found = asymmetric_scores(StoredModel("s", tmp_path / "student"), index_of(teacher_folder, tmp_path), [task], "cpu")
    ((_, _, data),) = task.splits()
    vectors = {}
    for name, model in (("queries", student.eval()), ("corpus", teacher)):
        texts = list(data[name]["text"])
        vectors[name] = embed(model, load_tokenizer(teacher_folder), texts)
        vectors[name] /= np.linalg.norm(vectors[name], axis=1, keepdims=True)
    ids, gains = list(data["corpus"]["id"]), []
    for query, cosines in zip(data["queries"]["id"], vectors["queries"] @ vectors["corpus"].T, strict=True):
        if relevant := data["relevant_docs"].get(query):
            ranked = [relevant.get(ids[place], 0) for place in np.argsort(-cosines)]
            best = sorted(relevant.values(), reverse=True)
            dcg, ideal = (sum(gain / np.log2(2 + rank) for rank, gain in enumerate(row)) for row in (ranked, best))
            gains.append(dcg / ideal)
    assert found == {"Own": pytest.approx(float(np.mean(gains)), abs=1e-5)}


@pytest.mark.parametrize("precision", get_args(Precision))
def test_the_teacher_on_its_own_index_has_its_own_score(
    precision: Precision, task: Task, teacher_folder: Path, tmp_path: Path
) -> None:
    teacher = StoredModel("t", teacher_folder)
    (own,) = score(teacher, [task], tmp_path / "cache", "cpu", precision)
    index = index_of(teacher_folder, tmp_path / "cache", precision)
    assert asymmetric_scores(teacher, index, [task], "cpu", precision) == {
        "Own": pytest.approx(own.metrics["main_score"], abs=1e-6)
    }


def test_an_index_is_of_one_precision(task: Task, teacher_folder: Path, tmp_path: Path) -> None:
    texts = ["the dog", "a cat sees a bird"]
    whole, half = (index_of(teacher_folder, tmp_path, one)(texts, task.instance.metadata) for one in ("fp32", "bf16"))
    assert 0 < np.abs(whole - half).max() < 0.05


def test_the_index_is_made_once_and_again_when_damaged(
    task: Task, teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, asked = ["the dog", "a cat sees a bird"], []
    metadata = task.instance.metadata

    def counted(*given: Any) -> Any:
        asked.append(given)
        return embed(*given)

    monkeypatch.setattr(asymmetric, "embed", counted)
    first = index_of(teacher_folder, tmp_path)(texts, metadata)
    np.testing.assert_array_equal(index_of(teacher_folder, tmp_path)(texts, metadata), first)
    assert len(asked) == 1
    index_of(teacher_folder, tmp_path)(texts[::-1], metadata)
    assert len(asked) == 2
    for file in (tmp_path / "indexes").glob("*/vectors.npy"):
        file.write_bytes(file.read_bytes()[:-1])
    np.testing.assert_array_equal(index_of(teacher_folder, tmp_path)(texts, metadata), first)
    assert len(asked) == 3


@pytest.mark.parametrize(("width", "expected"), [(24, {"Own"}), (16, set())])
def test_a_record_has_it_where_the_widths_are_equal(
    width: int, expected: set[str], inputs: Inputs, write_beir: Writes, tmp_path: Path
) -> None:
    study = inputs.study.model_copy(
        update={
            "student": StudentSpec(layers=2, width=width),
            "tasks": [OwnTask.model_validate({"name": "Own", "source": str(write_beir(tmp_path / "set"))})],
        }
    )
    given = make_inputs(study, inputs.settings)
    run = next(run for run in runs_of(study) if run.entry.label == "mse")
    finished = finish_run(prepare_run(given, run), lambda _: None)
    assert finished is not None
    assert finished.record.status == "completed", finished.record.error
    assert set(finished.record.vectors.get("asymmetric", {})) == expected
