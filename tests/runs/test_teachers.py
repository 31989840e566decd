"""Teachers that are used in another way than their folder says, several that are joined, and the scores of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pandas as pd
import pytest
import torch
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta
from sentence_transformers import SentenceTransformer

from distilbench.core.machine import Settings
from distilbench.data.corpus import texts_of
from distilbench.data.vectors import open_vectors
from distilbench.evaluation.evaluate import evaluate
from distilbench.evaluation.score import score
from distilbench.evaluation.tasks.by_name import Task, load_task
from distilbench.evaluation.vector_encoders import lacking
from distilbench.models.model_folder import StoredModel
from distilbench.models.sources import Joined, StoredVectors
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.runs.prepare.vector_teacher import as_model
from distilbench.study.sections.models import TeacherSpec
from distilbench.study.sections.texts import OwnTask
from distilbench.study.study import Study
from distilbench.training.stores.teacher_store import FINAL
from distilbench_methods.base import Needs
from tests.conftest import Cli, Writes, store_for
from tests.models.families import make_family

PROMPTS = {"query": "who sees ", "document": "a text of "}
OTHERS = {"query": "find ", "document": ""}
ROWS = np.arange(12)


@pytest.fixture(scope="module")
def decoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family("qwen3", tmp_path_factory.mktemp("qwen3"), prompts=PROMPTS, normalize=True, max_length=48)


@pytest.fixture(scope="module")
def student_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family("roberta", tmp_path_factory.mktemp("roberta"), max_length=48)


class Make:
    """Inputs of a study of one teacher."""

    def __init__(self, values: dict[str, Any], place: Path) -> None:
        self.values, self.settings = values, Settings(out=place, cache=place / "cache", mirror=None, device="cpu")

    def __call__(self, teacher: Any, **changes: Any) -> Inputs:
        return make_inputs(Study.model_validate({**self.values, "teacher": teacher, **changes}), self.settings)


@pytest.fixture
def make(text_file: Path, student_folder: Path, tmp_path: Path) -> Make:
    values = {
        "name": "x",
        "student": {"model": str(student_folder)},
        "text": {"source": str(text_file), "evaluation_text": "keep"},
        "budget": {"steps": 4},
        "methods": ["mse"],
        "seeds": 1,
        "tasks": ["DistilbenchSTS"],
        "train": {"batch_size": 16, "max_length": 48},
    }
    return Make(values, tmp_path)


def texts(inputs: Inputs) -> list[str]:
    return list(texts_of(inputs.settings.cache, inputs.text.corpus.key))[: len(ROWS)]


def targets(inputs: Inputs) -> np.ndarray[Any, Any]:
    """What a method gets of the teacher."""
    store = store_for(inputs, Needs(teacher_final=True))
    store.ensure(ROWS)
    found = store.read(FINAL, ROWS).numpy()
    assert found.shape[1] == store.final_width == inputs.dims.teacher_final == inputs.teacher.final_width
    return found


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("side", [None, "query"])
def test_prompts_of_the_study_stand_in_the_place_of_the_folders(
    make: Make, decoder_folder: Path, text_file: Path, side: str | None
) -> None:
    text = {"source": str(text_file), "evaluation_text": "keep", **({"side": side} if side else {})}
    inputs = make({"model": str(decoder_folder), "prompts": OTHERS}, text=text)
    loaded = SentenceTransformer(str(decoder_folder), device="cpu")
    expected = loaded.encode(texts(inputs), prompt=OTHERS[side] if side else "")
    np.testing.assert_allclose(targets(inputs), expected, atol=1e-5, rtol=0)
    plain = make(str(decoder_folder), text=text)
    assert (plain.teacher.hashes == inputs.teacher.hashes) is False
    assert (plain.text.teacher_key == inputs.text.teacher_key) == (side is None)


@pytest.mark.parametrize("family", ["bert", "qwen3"])
def test_truncation_is_that_of_sentence_transformers(make: Make, family: str, tmp_path: Path) -> None:
    folder = make_family(family, tmp_path / family, normalize=True, max_length=48)
    inputs = make({"model": str(folder), "truncate": 10})
    loaded = SentenceTransformer(str(folder), device="cpu", truncate_dim=10)
    np.testing.assert_allclose(targets(inputs), loaded.encode(texts(inputs)), atol=1e-5, rtol=0)
    assert inputs.teacher.facts()["output_width"] == 10


def test_a_teacher_in_bf16_is_that_of_sentence_transformers(make: Make, decoder_folder: Path) -> None:
    inputs = make({"model": str(decoder_folder), "dtype": "bf16"}, student={"layers": 2})
    encoder = as_model(inputs.teacher).encoder
    assert {weight.dtype for weight in encoder.backbone.parameters()} == {torch.bfloat16}
    loaded = SentenceTransformer(str(decoder_folder), device="cpu", model_kwargs={"dtype": torch.bfloat16})
    exact = SentenceTransformer(str(decoder_folder), device="cpu")
    found, expected = targets(inputs), loaded.encode(texts(inputs), convert_to_tensor=True).float().numpy()
    # Of 8 bits, a sum over layers keeps two digits; and batches are others.
    np.testing.assert_allclose(found, expected, atol=3e-2, rtol=0)
    assert not np.allclose(found, exact.encode(texts(inputs)), atol=1e-4)
    # The student is cut from the weights as they are stored.
    student = inputs.students.untrained.backbone.state_dict()
    stored = StoredModel("m", decoder_folder).load().backbone.state_dict()
    assert student["layers.1.mlp.up_proj.weight"].dtype == torch.float32
    last = max(int(name.split(".")[1]) for name in stored if name.startswith("layers."))
    torch.testing.assert_close(
        student["layers.1.mlp.up_proj.weight"], stored[f"layers.{last}.mlp.up_proj.weight"], atol=0, rtol=0
    )


@pytest.mark.slow
def test_methods_look_inside_a_teacher_in_bf16(cli: Cli, study: Writes, teacher_folder: Path, tmp_path: Path) -> None:
    teacher = {"model": str(teacher_folder), "dtype": "bf16"}
    path = study(teacher=teacher, methods=["internal-kd", {"minilm": {"relation_heads": 8}}, "tinybert", "codir"])
    code, _, errors = cli("run", path, "--out", tmp_path / "results", "--device", "cpu")
    assert code == 0, errors
    records = [json.loads(file.read_text()) for file in (tmp_path / "results").glob("*/*/record.json")]
    assert {record["status"] for record in records} == {"completed"}


def write_vectors(path: Path, some: Sequence[str], vectors: Any, **more: Any) -> str:
    pd.DataFrame({"text": list(some), "vector": list(vectors), **more}).to_parquet(path, index=False)
    return str(path)


@pytest.mark.parametrize("weights", [None, [1.0, 0.5]])
def test_joined_teachers_give_their_vectors_side_by_side(
    make: Make, teacher_folder: Path, decoder_folder: Path, weights: list[float] | None
) -> None:
    more = {"weights": weights} if weights else {}
    members = [str(teacher_folder), {"model": str(decoder_folder), "truncate": 8}]
    inputs = make({"joined": members, **more})
    found = targets(inputs)
    first = SentenceTransformer(str(teacher_folder), device="cpu").encode(texts(inputs))
    second = SentenceTransformer(str(decoder_folder), device="cpu", truncate_dim=8).encode(texts(inputs))
    one, other = weights or [1.0, 1.0]
    np.testing.assert_allclose(
        found, np.hstack([one * unit(first), other * unit(second)]) / np.hypot(one, other), atol=1e-5, rtol=0
    )
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    cosines = one**2 * unit(first) @ unit(first).T + other**2 * unit(second) @ unit(second).T
    np.testing.assert_allclose(found @ found.T, cosines / (one**2 + other**2), atol=1e-5)
    assert make({"joined": members[::-1], **more}).teacher.hashes != inputs.teacher.hashes


def test_a_model_and_stored_vectors_are_joined(make: Make, teacher_folder: Path, tmp_path: Path) -> None:
    plain = make(str(teacher_folder))
    every = list(texts_of(plain.settings.cache, plain.text.corpus.key))
    values = np.random.default_rng(0).standard_normal((len(every), 6)).astype(np.float32)
    vectors = write_vectors(tmp_path / "v.parquet", every, values)
    inputs = make({"joined": [str(teacher_folder), {"vectors": vectors, "truncate": 4}]})
    expected = np.hstack([unit(targets(plain)), unit(values[: len(ROWS), :4])]) / np.sqrt(2)
    np.testing.assert_allclose(targets(inputs), expected, atol=1e-5, rtol=0)


class Known(AbsEncoder):  # type: ignore[misc]
    """Vectors by side and text, written without a look at how distilbench finds them."""

    def __init__(self, vectors: dict[tuple[str, str], Any]) -> None:
        self.vectors = vectors
        self.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "test/known", "revision": "1"})

    def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> Any:
        side = "" if prompt_type is None else str(prompt_type.value)
        return np.stack([self.vectors[side, text] for batch in inputs for text in batch["text"]])


@pytest.fixture
def tasks(write_pairs: Writes, write_beir: Writes, tmp_path: Path) -> list[Task]:
    own = [
        OwnTask(name="pairs", source=str(write_pairs(tmp_path))),
        OwnTask(name="search", source=str(write_beir(tmp_path / "search"))),
    ]
    return [load_task(task, None, None) for task in own]


def all_texts(tasks: list[Task]) -> Iterator[tuple[str, str]]:
    """(side, text) of everything that mteb asks for."""

    class Asked(Known):
        def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> Any:
            side = "" if prompt_type is None else str(prompt_type.value)
            found = [text for batch in inputs for text in batch["text"]]
            asked.extend((side, text) for text in found)
            return drawn.standard_normal((len(found), 4))

    asked: list[tuple[str, str]] = []
    drawn = np.random.default_rng(0)
    for task in tasks:
        mteb.evaluate(Asked({}), [task.instance], cache=None, overwrite_strategy="always", co2_tracker=False)
    return iter(dict.fromkeys(asked))


def test_stored_vectors_score_as_plain_mteb_has_it(tasks: list[Task], tmp_path: Path) -> None:
    asked = list(all_texts(tasks))
    assert {side for side, _ in asked} == {"", "query", "document"}
    values = np.random.default_rng(1).standard_normal((len(asked), 6)).astype(np.float32)
    sides = [side or None for side, _ in asked]
    name = write_vectors(tmp_path / "v.parquet", [text for _, text in asked], values, side=sides)
    source = StoredVectors("v", open_vectors(TeacherSpec(vectors=name, side="side"), tmp_path / "cache"))
    assert lacking(source, tasks) is None
    found = score(source, tasks, tmp_path / "cache", "cpu")
    known = Known(dict(zip(asked, values, strict=True)))
    for task, ours in zip(tasks, found, strict=True):
        (theirs,) = mteb.evaluate(
            known, [task.instance], cache=None, overwrite_strategy="always", co2_tracker=False
        ).task_results
        assert ours.metrics["main_score"] == pytest.approx(theirs.get_score(), abs=1e-6)


def test_texts_without_a_vector_are_counted(tasks: list[Task], tmp_path: Path) -> None:
    asked = list(all_texts(tasks))
    kept = [(side, text) for side, text in asked if side != "query"] + [("", text) for side, text in asked]
    values = np.ones((len(kept), 3), np.float32)
    unsided = write_vectors(tmp_path / "u.parquet", [text for _, text in kept], values)
    sided = write_vectors(
        tmp_path / "s.parquet", [text for _, text in kept], values, side=[side or None for side, _ in kept]
    )
    assert lacking(StoredVectors("u", open_vectors(TeacherSpec(vectors=unsided), tmp_path / "c")), tasks) is None
    source = StoredVectors("s", open_vectors(TeacherSpec(vectors=sided, side="side"), tmp_path / "c"))
    queries = sum(side == "query" for side, _ in asked)
    of_search = sum(side != "" for side, _ in asked)
    said = lacking(source, tasks)
    assert said is not None
    assert f"lacks {queries} of the {of_search} texts of search, such as" in said
    assert "(of the side query)" in said


def test_joined_models_score_as_their_joined_vectors(
    tasks: list[Task], teacher_folder: Path, decoder_folder: Path, tmp_path: Path
) -> None:
    members = (StoredModel("a", teacher_folder), StoredModel("b", decoder_folder))
    found = score(Joined("a + b", members, (1.0, 2.0)), tasks, tmp_path / "cache", "cpu")
    loaded = [SentenceTransformer(str(folder), device="cpu") for folder in (teacher_folder, decoder_folder)]

    class Both(Known):
        def encode(self, inputs: Any, *, prompt_type: Any = None, **_: Any) -> Any:
            some = [text for batch in inputs for text in batch["text"]]
            prompt = PROMPTS[prompt_type.value] if prompt_type else ""
            first, second = loaded[0].encode(some), loaded[1].encode(some, prompt=prompt)
            return np.hstack([unit(first), 2 * unit(second)])

    for task, ours in zip(tasks, found, strict=True):
        (theirs,) = mteb.evaluate(
            Both({}), [task.instance], cache=None, overwrite_strategy="always", co2_tracker=False
        ).task_results
        assert ours.metrics["main_score"] == pytest.approx(theirs.get_score(), abs=1e-5)


@pytest.mark.slow
def test_a_study_with_two_teachers(
    cli: Cli, study: Writes, teacher_folder: Path, decoder_folder: Path, student_folder: Path, tmp_path: Path
) -> None:
    """From the command line to the report: planned, run, its ceiling scored, run again from the cache."""
    teacher = {"joined": [str(teacher_folder), {"model": str(decoder_folder), "truncate": 16}], "weights": [1, 0.5]}
    path = study(
        teacher=teacher,
        student={"model": str(student_folder)},
        methods=["mse", "jasper", "rkd"],
        train={"batch_size": 16, "max_length": 48},
    )
    out = tmp_path / "results"
    code, planned, errors = cli("run", path, "--out", out, "--device", "cpu", "--dry-run")
    assert code == 0, errors
    assert "teacher" in planned
    code, _, errors = cli("run", path, "--out", out, "--device", "cpu")
    assert code == 0, errors
    (folder,) = [place for place in out.iterdir() if place.is_dir()]
    records = [json.loads(file.read_text()) for file in folder.glob("*/record.json")]
    assert {record["status"] for record in records} == {"completed"}
    assert sorted(record["label"] for record in records if record["seed"] <= 1) == [
        "jasper",
        "mse",
        "rkd",
        "teacher",
        "untrained",
    ]
    assert {record["teacher"]["output_width"] for record in records} == {24 + 16}
    code, _, errors = cli("report", folder, "--out", tmp_path / "reports")
    assert code == 0, errors
    code, _, errors = cli("run", path, "--out", out, "--device", "cpu")
    assert code == 0, errors
    code, _, errors = cli("run", study(teacher=teacher, student={"model": str(student_folder)}, methods=["minilm"]))
    assert code == 2
    assert "only the vectors are known" in errors


@pytest.mark.slow
def test_stored_vectors_of_task_texts_are_the_ceiling(
    cli: Cli, study: Writes, student_folder: Path, text_file: Path, write_pairs: Writes, tmp_path: Path
) -> None:
    pairs = write_pairs(tmp_path)
    (task,) = [load_task(OwnTask(name="pairs", source=str(pairs)), None, None)]
    every = [*text_file.read_text(encoding="utf-8").splitlines(), *(text for _, text in all_texts([task]))]
    every = list(dict.fromkeys(every))
    values = np.random.default_rng(1).standard_normal((len(every), 5)).astype(np.float32)
    path = study(
        teacher={"vectors": write_vectors(tmp_path / "v.parquet", every, values)},
        student={"model": str(student_folder)},
        text={"source": str(text_file), "evaluation_text": "keep"},
        tasks=[{"pairs": {"source": str(pairs)}}],
        methods=["mse"],
        train={"batch_size": 16, "max_length": 48},
    )
    code, _, errors = cli("run", path, "--out", tmp_path / "results", "--device", "cpu")
    assert code == 0, errors
    assert "no ceiling" not in errors
    records = [json.loads(file.read_text()) for file in (tmp_path / "results").glob("*/*/record.json")]
    (ceiling,) = [record for record in records if record["role"] == "ceiling"]
    known = Known({("", text): vector for text, vector in zip(every, values, strict=True)})
    assert ceiling["scores"]["pairs"]["main_score"] == pytest.approx(
        evaluate(known, task).metrics["main_score"], abs=1e-6
    )
    code, _, errors = cli("report", tmp_path / "results" / ceiling["study"], "--out", tmp_path / "reports")
    assert code == 0, errors


@pytest.mark.parametrize(
    ("teacher", "expected"),
    [
        ({}, "give one of model, vectors, joined; it has none"),
        ({"model": "a", "vectors": "b"}, "give one of model, vectors, joined; it has model and vectors"),
        ({"vectors": "b", "dtype": "bf16"}, "dtype says nothing of vectors; leave it out"),
        ({"model": "a", "side": "s"}, "side says nothing of model; leave it out"),
        ({"joined": ["a"]}, "at least 2 items"),
        ({"joined": ["a", {"joined": ["b", "c"]}]}, "joined teachers cannot be joined again; list all of them once"),
        ({"joined": ["a", "b"], "weights": [1, 2, 3]}, "weights has 3 numbers for 2 teachers; give one for each"),
        ({"joined": ["a", "b"], "truncate": 3}, "truncate says nothing of joined; leave it out"),
        ({"joined": ["a", "b"], "weights": [1, 0]}, "greater than 0"),
        ({"modell": "a"}, "unknown key 'modell'; did you mean 'model'? in teacher"),
    ],
)
def test_what_a_teacher_cannot_be_is_said(cli: Cli, study: Writes, teacher: Any, expected: str) -> None:
    code, out, errors = cli("run", study(teacher=teacher, student={"model": "x"}))
    assert (code, out) == (2, "")
    assert expected in errors
    assert errors.count("\n") == 1


def test_a_truncation_beyond_the_width_is_said(
    cli: Cli, study: Writes, teacher_folder: Path, student_folder: Path, tmp_path: Path
) -> None:
    vectors = write_vectors(tmp_path / "v.parquet", ["a"], np.ones((1, 4)))
    for teacher, width in (({"model": str(teacher_folder)}, 24), ({"vectors": vectors}, 4)):
        path = study(teacher={**teacher, "truncate": 99}, student={"model": str(student_folder)})
        code, out, errors = cli("run", path, "--out", tmp_path / "results")
        assert (code, out) == (2, "")
        assert f"teacher.truncate 99 is more than the {width} numbers" in errors
