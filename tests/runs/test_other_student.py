"""Students that are other models: with their own tokenizer, weights, width and prompts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers import SentenceTransformer

import distilbench_methods
from distilbench.core.errors import UserError
from distilbench.core.machine import Settings
from distilbench.data.corpus import texts_of
from distilbench.data.tokenizer import load_tokenizer
from distilbench.models import model_folder
from distilbench.models.embed import embed
from distilbench.models.encoder import Encoder
from distilbench.models.model_folder import load_encoder
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.runs.prepare.preflight import check_methods
from distilbench.runs.prepare.prepared import stages_of
from distilbench.runs.prepare.vector_teacher import as_model
from distilbench.study.rows import method_entry
from distilbench.study.study import Study
from distilbench.training.stores.teacher_store import FINAL
from distilbench_methods.base import Needs, UnsuitableError
from tests.conftest import SMALL, Cli, Writes, sentences, store_for
from tests.models.families import make_family

PROMPTS = {"query": "who sees ", "document": "a text of "}
OWN = {"query": "red ", "document": ""}


@pytest.fixture(scope="module")
def student_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes where the teacher has pieces of words; its card states a licence."""
    folder = make_family("roberta", tmp_path_factory.mktemp("roberta"), normalize=True, max_length=48)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def decoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Last-token pooling, padding on the left, a prompt for each side."""
    return make_family("qwen3", tmp_path_factory.mktemp("qwen3"), prompts=PROMPTS, normalize=True, max_length=64)


Make = Callable[..., Inputs]


@pytest.fixture
def make(text_file: Path, labelled_file: Path, tmp_path: Path) -> Make:
    def inputs_of(teacher: Path, student: dict[str, Any], **changes: Any) -> Inputs:
        values = {
            "name": "x",
            "teacher": str(teacher),
            "student": student,
            "text": {"source": str(text_file), "evaluation_text": "keep"},
            "labelled": {"source": str(labelled_file)},
            "budget": {"steps": 4},
            "methods": ["mse"],
            "seeds": 1,
            "tasks": ["DistilbenchSTS"],
            "train": {"batch_size": 16, "max_length": 48},
        }
        study = Study.model_validate(values | changes)
        return make_inputs(study, Settings(out=tmp_path, cache=tmp_path / "cache", mirror=None, device="cpu"))

    return inputs_of


def read(corpus: Any, row: int) -> list[int]:
    return [int(token) for token in corpus.tokens[corpus.offsets[row] : corpus.offsets[row + 1]]]


@pytest.mark.parametrize("side", [None, "query", "document"])
def test_each_model_reads_the_text_in_its_own_way(
    make: Make, decoder_folder: Path, student_folder: Path, text_file: Path, tmp_path: Path, side: str | None
) -> None:
    """Tokens, stored vectors and the student's vectors are sentence-transformers', prompts and all."""
    text = {"source": str(text_file), "evaluation_text": "keep", **({"side": side} if side else {})}
    student = {"model": str(student_folder), "prompts": OWN}
    inputs = make(decoder_folder, student, text=text)
    store = store_for(inputs, Needs(teacher_final=True))
    texts, rows = list(texts_of(tmp_path / "cache", inputs.text.corpus.key)), np.arange(12)
    store.ensure(rows)
    loaded = SentenceTransformer(str(decoder_folder), device="cpu")
    loaded.max_seq_length = 48
    how = {} if side is None else {"prompt_name": side}
    np.testing.assert_allclose(store.read(FINAL, rows), loaded.encode(texts[:12], **how), atol=1e-5, rtol=0)
    ids, mask = inputs.text.corpus.batch(rows)
    with torch.no_grad():
        ours = inputs.students.untrained.eval()(ids, mask).final
    theirs = SentenceTransformer(str(student_folder), device="cpu")
    expected = theirs.encode(texts[:12], prompt=OWN[side] if side else "")
    np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=0)
    prompted = f"{PROMPTS[side] if side else ''}{texts[3]}"
    assert read(inputs.text.corpus_for(as_model(inputs.teacher).reader), 3) == loaded.tokenizer(prompted)["input_ids"]
    assert read(inputs.text.corpus, 3) == theirs.tokenizer(f"{OWN[side] if side else ''}{texts[3]}")["input_ids"]


@pytest.mark.slow
def test_a_teacher_whose_signals_are_stored_is_not_loaded(
    cli: Cli,
    study: Writes,
    teacher_folder: Path,
    student_folder: Path,
    text_file: Path,
    write_beir: Writes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither for another seed, nor for another method that reads the same signals, nor for the ceiling's scores."""
    own: dict[str, Any] = {"model": str(student_folder)}
    tasks = ["DistilbenchSTS", {"own": {"source": str(write_beir(tmp_path / "search"))}}]
    train = {"batch_size": 16, "max_length": 48}
    # An epoch: every sentence is read.
    budget = {"steps": 25}

    def run(source: Path = text_file, **changes: Any) -> tuple[int, str]:
        text = {"source": str(source), "evaluation_text": "keep"}
        path = study(student=own, tasks=tasks, train=train, budget=budget, text=text, **changes)
        code, _, errors = cli("run", path, "--out", tmp_path / "results", "--device", "cpu")
        return code, errors

    assert run(methods=["mse"])[0] == 0
    loaded = []

    def counted(folder: Path, *, weights: bool = True, **options: Any) -> Encoder:
        if weights and folder == teacher_folder:
            loaded.append(folder)
        return load_encoder(folder, weights=weights, **options)

    monkeypatch.setattr(model_folder, "load_encoder", counted)
    code, errors = run(methods=["mse", "rkd"], seeds=2)
    assert code == 0, errors
    assert loaded == []
    # What is not stored is computed.
    texts = tmp_path / "more.txt"
    texts.write_text("\n".join(sentences(60, seed=9)) + "\n", encoding="utf-8")
    code, errors = run(texts, methods=["mse"])
    assert code == 0, errors
    assert loaded == [teacher_folder]


def test_columns_of_rows_have_sides_of_their_own(
    make: Make, decoder_folder: Path, student_folder: Path, labelled_file: Path
) -> None:
    sides = ["query", "document", "document"]
    labelled = {"source": str(labelled_file), "sides": sides}
    inputs = make(decoder_folder, {"model": str(student_folder)}, labelled=labelled)
    rows, reader = inputs.labelled, as_model(inputs.teacher).reader
    assert rows is not None
    np.testing.assert_array_equal(rows.text.rows_RC, rows.text_for(reader).rows_RC)
    tokenizer, texts = load_tokenizer(decoder_folder), list(rows.sentences())
    for place, side in zip(rows.text.rows_RC[5], sides, strict=True):
        expected = tokenizer(PROMPTS[side] + texts[place], truncation=True, max_length=48)["input_ids"]
        assert read(rows.corpus_for(reader), place) == expected


def test_a_text_on_two_sides_is_there_for_each(
    make: Make, decoder_folder: Path, student_folder: Path, tmp_path: Path
) -> None:
    pairs = [("the dog", "a red stone"), ("a red stone", "the dog")] + [(f"text {n}", f"other {n}") for n in range(20)]
    pd.DataFrame(pairs, columns=["a", "b"]).to_csv(tmp_path / "pairs.csv", index=False)
    labelled = {"source": str(tmp_path / "pairs.csv"), "columns": ["a", "b"], "sides": ["query", "document"]}
    rows = make(decoder_folder, {"model": str(student_folder)}, labelled=labelled).labelled
    assert rows is not None
    assert rows.text.rows_RC[:2].tolist() == [[0, 1], [2, 3]]
    sided = list(rows.sided_texts())
    sides = ("query", "document")
    assert sided[:4] == [(text, side) for pair in pairs[:2] for text, side in zip(pair, sides, strict=True)]


def test_methods_take_such_a_pair_or_say_why_not(make: Make, teacher_folder: Path, student_folder: Path) -> None:
    inputs = make(teacher_folder, {"model": str(student_folder)})
    assert not inputs.dims.shared_tokens
    refused: dict[str, str] = {}
    settings = {name: SMALL.get(name, {}) for name in distilbench_methods.registry()}
    settings |= {row: SMALL.get(name, {}) for row, (name, _) in distilbench_methods.VARIANTS.items()}
    for name, given in settings.items():
        try:
            stages_of(inputs, method_entry({name: given}))
        except UnsuitableError as error:
            refused[name] = str(error)
    # Its student is wider than the teacher here, whatever the tokens.
    assert "cannot widen" in refused.pop("mse-pca")
    assert set(refused) == {"internal-kd", "internal-kd-pid", "internal-kd-sid", "minilm", "tinybert"}
    assert all("different tokens" in why for why in refused.values())


def test_a_student_cut_from_another_model(make: Make, teacher_folder: Path, student_folder: Path) -> None:
    whole = make(teacher_folder, {"model": str(student_folder)}).students
    cut = make(teacher_folder, {"model": str(student_folder), "layers": [1, 3], "dropout": 0.0}).students
    assert (whole.untrained.dims.layers, cut.untrained.dims.layers) == (4, 2)
    ours, theirs = cut.untrained.backbone.state_dict(), load_encoder(student_folder).backbone.state_dict()
    name = "attention.self.query.weight"
    assert torch.equal(ours[f"encoder.layer.1.{name}"], theirs[f"encoder.layer.2.{name}"])
    assert cut.untrained.output_width() == whole.untrained.output_width()
    tables = [cut.build(seed).backbone.get_input_embeddings().weight for seed in (1, 2)]
    assert torch.equal(*tables)


@pytest.mark.slow
def test_from_study_to_model(
    cli: Cli, study: Writes, decoder_folder: Path, student_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    path = study(
        teacher=str(decoder_folder),
        student={"model": str(student_folder), "prompts": OWN},
        text={"source": str(text_file), "side": "document"},
        methods=["mse", "simcse", {"ckd": SMALL["ckd"]}, "rkd"],
        train={"batch_size": 16, "max_length": 48},
    )
    code, _, errors = cli("run", path, "--out", tmp_path / "results", "--device", "cpu")
    assert code == 0, errors
    records = [json.loads(file.read_text()) for file in (tmp_path / "results" / "tiny").glob("*/record.json")]
    (record,) = (record for record in records if record["method"] == "mse")
    assert record["student"]["sha256"] == load_hash(student_folder)
    out = tmp_path / "exported"
    assert cli("export", tmp_path / "results" / "tiny" / record["run_id"], "--out", out)[0] == 0
    exported = SentenceTransformer(str(out), device="cpu")
    assert exported.prompts["query"] == OWN["query"]
    texts = ["The dog sees", "a red stone"]
    assert exported.tokenizer(texts)["input_ids"] == load_tokenizer(student_folder)(texts)["input_ids"]
    np.testing.assert_allclose(
        embed(load_encoder(out), load_tokenizer(out), texts), exported.encode(texts), atol=1e-5, rtol=0
    )
    assert not np.allclose(exported.encode(texts), SentenceTransformer(str(student_folder)).encode(texts), atol=1e-4)
    card = (out / "README.md").read_text()
    assert "license: mit" in card
    assert "from which the student was made: mit" in card
    assert cli("report", tmp_path / "results" / "tiny", "--out", tmp_path / "reports")[0] == 0


def load_hash(folder: Path) -> str:
    from distilbench.models.model_folder import StoredModel

    return StoredModel("m", folder).hashes()["weights"]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "neither": ({"student": {"dropout": 0.1}}, "give layers, to cut the student from the teacher, or model"),
    "a width": ({"student": {"model": "STUDENT", "width": 16}}, "keeps its width; leave student.width out"),
    "no such folder": ({"student": {"model": "./nothing"}}, "student.model './nothing' is not a folder"),
    "a Hub id offline": ({"student": {"model": "some/model"}}, "student.model 'some/model' is not a folder"),
    "a small vocabulary": (
        {"student": {"model": "STUDENT", "vocabulary": 9}},
        "vocabulary 9 is less than the 2\\d\\d special",
    ),
    "a large vocabulary": ({"student": {"model": "STUDENT", "vocabulary": 999}}, "leaves out none of the 300 tokens"),
    "tokens of the teacher": ({"student": {"layers": 2, "vocabulary": 9}}, "leave student.vocabulary out"),
    "too many layers": ({"student": {"model": "STUDENT", "layers": 9}}, "asks for 9, but"),
    "positions": ({"train": {"batch_size": 16, "max_length": 90}}, "more than the 64 tokens|more than the 94 tokens"),
    "a prompt that is not there": ({"text": {"source": "TEXT", "side": "qery"}}, "has a prompt 'qery'"),
    "sides of other columns": ({"labelled": {"source": "ROWS", "sides": ["query"]}}, "names 1 prompts for 3 columns"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_is_one_sentence(
    cli: Cli, study: Writes, student_folder: Path, text_file: Path, labelled_file: Path, tmp_path: Path, what: str
) -> None:
    changes, expected = BAD[what]
    names = {"STUDENT": str(student_folder), "TEXT": str(text_file), "ROWS": str(labelled_file)}
    text = json.dumps({"student": {"model": "STUDENT"}, **changes})
    for name, value in names.items():
        text = text.replace(f'"{name}"', json.dumps(value))
    code, out, errors = cli("run", study(**json.loads(text)), "--out", tmp_path / "results", "--dry-run")
    assert (code, out) == (2, "")
    sentences = [line for line in errors.splitlines() if not line.startswith("tiny: ")]
    assert len(sentences) == 1
    with pytest.raises(UserError, match=expected):
        raise UserError(errors)
    assert not (tmp_path / "results").exists()


def test_a_student_with_code_of_its_own_is_refused(
    cli: Cli, study: Writes, student_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(student_folder, tmp_path / "own"))
    (folder / "own.py").write_text("raise SystemExit('run')\n", encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    code, out, errors = cli("run", study(student={"model": str(folder)}), "--out", tmp_path / "results", "--dry-run")
    assert (code, out) == (2, "")
    assert "asks for code of its own (auto_map), which distilbench never runs" in errors
    assert errors.count("\n") == 1


def test_a_longer_text_than_the_student_takes(make: Make, teacher_folder: Path, student_folder: Path) -> None:
    inputs = make(teacher_folder, {"model": str(student_folder)}, train={"batch_size": 16, "max_length": 64})
    check_methods(inputs)


def test_a_student_with_the_tokens_of_its_text(
    cli: Cli, study: Writes, student_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    """From the study to the exported folder: fewer vectors, which are trained and exported as they are read."""
    (tmp_path / "few.txt").write_text("\n".join(f"{'cat ' * n}red dog" for n in range(1, 40)), encoding="utf-8")
    student = {"model": str(student_folder), "vocabulary": 280}
    path = study(
        student=student, text={"source": str(tmp_path / "few.txt")}, train={"batch_size": 16, "max_length": 48}
    )
    code, _, errors = cli("run", path, "--out", tmp_path / "results", "--device", "cpu")
    assert code == 0, errors
    records = [json.loads(file.read_text()) for file in (tmp_path / "results" / "tiny").glob("*/record.json")]
    (record,) = (record for record in records if record["method"] == "mse")
    out = tmp_path / "exported"
    assert cli("export", tmp_path / "results" / "tiny" / record["run_id"], "--out", out)[0] == 0
    exported, whole = (SentenceTransformer(str(folder), device="cpu") for folder in (out, student_folder))
    table = exported[0].model.get_input_embeddings()
    assert table.num_embeddings == len(exported.tokenizer) == 280 < len(whole.tokenizer)
    fewer = (len(whole.tokenizer) - 280) * table.embedding_dim
    assert record["student"]["parameters"] == sum(weight.numel() for weight in load_encoder(out).parameters())
    assert record["student"]["parameters"] == (
        sum(weight.numel() for weight in load_encoder(student_folder).parameters()) - fewer
    )
    texts = ["cat red dog", "The unseen stone"]
    np.testing.assert_allclose(
        embed(load_encoder(out), load_tokenizer(out), texts), exported.encode(texts), atol=1e-5, rtol=0
    )
    pieces = [model.tokenizer.tokenize(texts[0]) for model in (exported, whole)]
    assert pieces[0] == pieces[1]
    assert "license: mit" in (out / "README.md").read_text()
