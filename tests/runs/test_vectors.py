"""Stored vectors as teacher: what `encode` writes, what an API returned, and what is wrong with files of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

import distilbench_methods
from distilbench.conformance.fakes import make_dims
from distilbench.core.errors import UserError
from distilbench.data.vectors import open_vectors
from distilbench.study.sections.models import TeacherSpec
from distilbench_methods.base import UnsuitableError
from tests.conftest import SMALL, Cli, Writes, sentences
from tests.models.families import make_family

TEXTS = [f"text {number}" for number in range(12)]
VALUES = np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32)


def write(path: Path, texts: list[Any] = TEXTS, values: Any = VALUES, **more: Any) -> str:
    frame = pd.DataFrame({"text": texts, "vector": list(values), **more})
    frame.to_parquet(path, index=False)
    return str(path)


def test_vectors_are_found_by_their_texts(tmp_path: Path) -> None:
    vectors = open_vectors(TeacherSpec(vectors=write(tmp_path / "v.parquet")), tmp_path)
    rows = vectors.rows_of((text, None) for text in ("text 7", "nothing", "text 0", " text\n7 "))
    assert rows.tolist() == [7, -1, 0, 7]
    np.testing.assert_array_equal(vectors.values_NW[rows[[0, 2]]], VALUES[[7, 0]])


def test_sides_count_where_there_are_some(tmp_path: Path) -> None:
    sides = ["query", "document"] * 6
    spec = TeacherSpec(vectors=write(tmp_path / "v.parquet", texts=["one"] * 2 + TEXTS[2:], side=sides), side="side")
    vectors = open_vectors(spec, tmp_path)
    assert vectors.rows_of([("one", "document"), ("one", "query"), ("text 3", "query")]).tolist() == [1, 0, -1]


def test_other_layouts_give_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VALUES.astype(np.float64))
    (tmp_path / "v.jsonl").write_text("".join(f"{json.dumps({'text': text})}\n" for text in TEXTS), encoding="utf-8")
    (tmp_path / "one").mkdir()
    for name in ("v.npy", "v.jsonl"):
        shutil.copy(tmp_path / name, tmp_path / "one")
    with (tmp_path / "one" / "v.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("\n")
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts" / "0.parquet", TEXTS[:5], VALUES[:5])
    write(tmp_path / "parts" / "1.parquet", TEXTS[5:], VALUES[5:].astype(np.float64))
    for name in ("v.npy", "one", "parts"):
        vectors = open_vectors(TeacherSpec(vectors=str(tmp_path / name)), tmp_path / "cache")
        np.testing.assert_array_equal(vectors.values_NW[vectors.rows_of((text, None) for text in TEXTS)], VALUES)


def with_value(value: float) -> Any:
    values = VALUES.copy().astype(np.float64)
    values[3, 2] = value
    return values


def a_text_twice(path: Path) -> str:
    return write(path, [*TEXTS[:11], "text 0"])


def of_two_widths(path: Path) -> str:
    return write(path, values=[*VALUES[:11], VALUES[11, :4]])


def npy_with_lines(rows: int, lines: int, **options: Any) -> Callable[[Path], str]:
    def make(path: Path) -> str:
        np.save(path.with_suffix(".npy"), VALUES[:rows], **options)
        content = "".join(f"{json.dumps({'text': text})}\n" for text in TEXTS[:lines])
        path.with_suffix(".jsonl").write_text(content, encoding="utf-8")
        return str(path.with_suffix(".npy"))

    return make


def alone(path: Path) -> str:
    np.save(path.with_suffix(".npy"), VALUES)
    return str(path.with_suffix(".npy"))


def pickled(path: Path) -> str:
    name = npy_with_lines(12, 12)(path)
    np.save(name, np.array([{"a": 1}] * 12, dtype=object), allow_pickle=True)
    return name


def with_bytes(path: Path, content: bytes) -> str:
    name = npy_with_lines(12, 12)(path)
    Path(name).write_bytes(content)
    return name


def with_line(path: Path, line: str) -> str:
    name = npy_with_lines(12, 11)(path)
    with path.with_suffix(".jsonl").open("a", encoding="utf-8") as stream:
        stream.write(line)
    return name


def archived(path: Path) -> str:
    name = npy_with_lines(12, 12)(path)
    np.savez(path.with_suffix(".npz"), VALUES)
    path.with_suffix(".npz").replace(name)
    return name


def cut_off(path: Path) -> str:
    name = write(path)
    path.write_bytes(path.read_bytes()[:-30])
    return name


def empty_folder(path: Path) -> str:
    path.with_suffix("").mkdir()
    return str(path.with_suffix(""))


def as_csv(path: Path) -> str:
    path.with_suffix(".csv").write_text("text,vector\n")
    return str(path.with_suffix(".csv"))


BROKEN: dict[str, tuple[Callable[[Path], str], str]] = {
    "NaN": (lambda path: write(path, values=with_value(np.nan)), "the vector of row 4 is not finite"),
    "infinite": (lambda path: write(path, values=with_value(np.inf)), "the vector of row 4 is not finite"),
    "beyond float32": (lambda path: write(path, values=with_value(1e300)), "the vector of row 4 is not finite"),
    "one text, two vectors": (a_text_twice, "rows 1 and 12 have one text, white space aside, and two vectors"),
    "two widths": (of_two_widths, "vectors of 4 and of 6 numbers"),
    "no text": (lambda path: write(path, [*TEXTS[:11], None]), "row 12 has no text, or a side"),
    "no rows": (lambda path: write(path, [], np.empty((0, 6))), "has no vectors|not lists of numbers"),
    "no such column": (lambda path: str(pd.DataFrame({"a": [1]}).to_parquet(path) or path), "unknown column 'text'"),
    "numbers for vectors": (lambda path: write(path, values=range(12)), "holds int64, not lists of numbers"),
    "not there": (str, "there is no file .*; give a file"),
    "an empty folder": (empty_folder, r"has neither \.parquet files nor one \.npy file"),
    "of another kind": (as_csv, r"is neither \.parquet nor \.npy"),
    "more lines than rows": (npy_with_lines(10, 12), "has 10 rows, and v.jsonl another number of lines"),
    "more rows than lines": (npy_with_lines(12, 10), "has 12 rows, and v.jsonl another number of lines"),
    "no texts beside": (alone, r"has no v\.jsonl beside it"),
    "words for numbers": (lambda path: write(path, values=[["1.5", "2"]] * 12), "not lists of numbers"),
    "truths for numbers": (lambda path: write(path, values=[[True, False]] * 12), "not lists of numbers"),
    "nothing at all": (lambda path: with_bytes(path, b""), "cannot be read: .*; write it anew"),
    "an archive": (archived, "cannot be read: .*; write it anew"),
    "a line that is no JSON": (lambda path: with_line(path, "{"), "cannot be read: .*; write it anew"),
    "nested lines": (lambda path: with_line(path, "[" * 10**5), "cannot be read: .*; write it anew"),
    "a pickle": (pickled, "cannot be read"),
    "cut off": (cut_off, "cannot be read"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, what: str) -> None:
    make, expected = BROKEN[what]
    spec = TeacherSpec(vectors=make(tmp_path / "v.parquet"))
    with pytest.raises(UserError, match=expected) as caught:
        open_vectors(spec, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_equal_repeats_are_fine(tmp_path: Path) -> None:
    name = write(tmp_path / "v.parquet", [*TEXTS, "text 3"], [*VALUES, VALUES[3]])
    assert open_vectors(TeacherSpec(vectors=name), tmp_path).rows_of([("text 3", None)])[0] in (3, 12)


ALL_ROWS = {
    **{name: (name, SMALL.get(name, {})) for name in distilbench_methods.registry()},
    **{row: (name, SMALL.get(name, {}) | settings) for row, (name, settings) in distilbench_methods.VARIANTS.items()},
}


def test_methods_take_vectors_or_say_why_not() -> None:
    dims = replace(make_dims(student=(24, 2, 4), final=32, shared_tokens=False), teacher=None)
    refused = set()
    for name, (method, settings) in ALL_ROWS.items():
        try:
            needs = distilbench_methods.load(method)(**settings).needs(dims)
            assert not needs.teacher_layers and not needs.teacher_online, name
        except UnsuitableError as error:
            refused.add(name)
            assert "only the vectors are known" in str(error)
    layers = {"codir", "codir-code", "codir-paper", "internal-kd", "internal-kd-pid", "internal-kd-sid"}
    assert refused == layers | {"minilm", "tinybert"}


@pytest.fixture(scope="module")
def student_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family("roberta", tmp_path_factory.mktemp("roberta"), max_length=48)


@pytest.mark.slow
def test_a_student_of_stored_vectors_is_that_of_the_model(
    cli: Cli, study: Writes, teacher_folder: Path, student_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    """The same batches and the same targets end in the same student, but for the last bits of the targets."""
    code, out, errors = cli("encode", "--model", teacher_folder, "--text", text_file, "--out", tmp_path / "vectors")
    assert (code, out) == (0, "")
    assert "400 vectors of 24 numbers" in errors
    texts = text_file.read_text(encoding="utf-8").splitlines()
    stored = pd.read_parquet(tmp_path / "vectors" / "vectors.parquet")
    assert list(stored["text"]) == texts
    theirs = SentenceTransformer(str(teacher_folder), device="cpu").encode(texts)
    np.testing.assert_allclose(np.stack(list(stored["vector"])), theirs, atol=1e-5, rtol=0)
    weights, losses = {}, {}
    for name, teacher in {"model": str(teacher_folder), "files": {"vectors": str(tmp_path / "vectors")}}.items():
        path = study(
            name=name,
            teacher=teacher,
            student={"model": str(student_folder)},
            text={"source": str(text_file), "evaluation_text": "keep"},
            methods=["mse", "rkd"],
            train={"batch_size": 16, "max_length": 48},
        )
        code, _, errors = cli("run", path, "--out", tmp_path / "results", "--device", "cpu")
        assert code == 0, errors
        assert ("no ceiling" in errors) == (name == "files")
        folder = tmp_path / "results" / name
        records = [json.loads(file.read_text()) for file in folder.glob("*/record.json")]
        assert ({"ceiling", "floor", "method"} if name == "model" else {"floor", "method"}) == {
            record["role"] for record in records
        }
        for record in records:
            if record["role"] == "method":
                model = tmp_path / "cache" / "runs" / record["run_id"] / "model"
                weights[name, record["label"]] = SentenceTransformer(str(model), device="cpu").encode(texts[:8])
                losses[name, record["label"]] = pd.read_parquet(folder / record["run_id"] / "curve.parquet")["loss"][0]
                stored_flops = record["ledger"]["teacher_flops_stored"]
                assert (stored_flops is None) == (name == "files")
        code, _, errors = cli("report", folder, "--out", tmp_path / "reports")
        assert code == 0, errors
    for label in ("mse", "rkd"):
        assert losses["files", label] == pytest.approx(losses["model", label], rel=1e-5)
        # Adam's first steps are as long for gradients that are rounding as for others.
        np.testing.assert_allclose(weights["files", label], weights["model", label], atol=1e-2, rtol=0)
    start = SentenceTransformer(str(student_folder), device="cpu").encode(texts[:8])
    assert not np.allclose(start, weights["files", "mse"], atol=5e-2)


def test_what_cannot_be_is_one_sentence(
    cli: Cli, study: Writes, teacher_folder: Path, student_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    vectors = write(tmp_path / "v.parquet", sentences(400)[:-1], np.ones((399, 4), np.float32))
    sided = write(tmp_path / "s.parquet", side=["query"] * 12)
    own: dict[str, Any] = {"model": str(student_folder)}
    text = {"source": str(text_file), "evaluation_text": "keep"}
    train = {"batch_size": 16, "max_length": 48}
    for changes, expected in (
        ({"student": {"layers": 2}}, "teacher.vectors is no model that a student could be cut from; set student.model"),
        ({"student": own, "static": {}}, "static needs a teacher that is a model"),
        (
            {"student": own, "text": text, "train": train, "teacher": {"vectors": sided, "side": "side"}},
            "(of no side); encode these too, set text.side or labelled.sides",
        ),
        ({"student": own, "text": text, "train": train}, "lacks 1 of the 400 texts of text.source, such as"),
        ({"student": own, "methods": ["minilm"], "train": train}, "of which only the vectors are known"),
    ):
        out = tmp_path / "results"
        code, printed, errors = cli("run", study(**{"teacher": {"vectors": vectors}, **changes}), "--out", out)
        assert (code, printed) == (2, ""), errors
        assert expected in errors
        assert [path for path in out.rglob("*") if path.is_file()] == []
    code, _, errors = cli(
        "encode", "--model", teacher_folder, "--text", text_file, "--side", "qery", "--out", tmp_path / "out"
    )
    assert code == 2
    assert "unknown prompt 'qery'" in errors
    assert not (tmp_path / "out").exists()
