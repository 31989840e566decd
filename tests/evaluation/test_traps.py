"""What goes wrong with mteb when many local models are compared, trap by trap, and why it cannot go wrong here.

The numbers are those of the list of traps in the project's design notes; traps 1, 2, 3 and 11 have tests of the scores
in `test_evaluation.py` too, and 20 (imports) in `test_architecture.py`.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

pytest.importorskip("mteb")

import mteb

from distilbench.data.tokenizer import load_tokenizer
from distilbench.evaluation import score as scoring
from distilbench.evaluation.collapse import CollapseError, check_vectors
from distilbench.evaluation.mteb_encoder import BenchEncoder
from distilbench.evaluation.score import score, score_key
from distilbench.evaluation.tasks.by_name import Task, load_task
from distilbench.evaluation.tasks.embedded import SickTest
from distilbench.evaluation.tasks.profiles import DESCRIPTIONS, PROFILES, SENTEVAL7, STS7
from distilbench.models import model_folder
from distilbench.models.encoder import Dense
from distilbench.models.export import export
from distilbench.models.model_folder import StoredModel, load_encoder
from distilbench.study.sections.texts import OwnTask
from distilbench.study.sections.training import Precision

Writes = Callable[..., Path]
ROOT = Path(__file__).parents[2]


def own(source: Path, name: str = "mine") -> Task:
    return load_task(OwnTask(name=name, source=str(source)), None)


@pytest.fixture(scope="module")
def pairs(write_pairs: Writes, tmp_path_factory: pytest.TempPathFactory) -> Task:
    return own(write_pairs(tmp_path_factory.mktemp("own")))


@pytest.fixture(scope="module")
def search(write_beir: Writes, tmp_path_factory: pytest.TempPathFactory) -> Task:
    return own(write_beir(tmp_path_factory.mktemp("beir") / "set"), "search")


@pytest.fixture
def model(teacher_folder: Path) -> StoredModel:
    return StoredModel("teacher", teacher_folder)


def main_score(model: StoredModel, task: Task, cache: Path) -> float:
    return score(model, [task], cache, "cpu")[0].metrics["main_score"]


def test_trap_1_modules_in_folders_of_any_name_are_part_of_the_identity(teacher_folder: Path, tmp_path: Path) -> None:
    """Two models that differ only in a Dense module, which lies in a folder that is not called Dense."""
    encoder = load_encoder(teacher_folder)
    linear = nn.Linear(24, 8)
    encoder.head = Dense(linear, nn.Tanh())
    hashes = []
    for name in ("a", "b"):
        export(encoder, load_tokenizer(teacher_folder), tmp_path / name, "# card\n")
        (tmp_path / name / "2_Dense").rename(tmp_path / name / "projection")
        modules = (tmp_path / name / "modules.json").read_text().replace("2_Dense", "projection")
        (tmp_path / name / "modules.json").write_text(modules)
        hashes.append(StoredModel("same", tmp_path / name).hashes())
        with torch.no_grad():
            linear.weight.mul_(2)
    assert hashes[0]["weights"] != hashes[1]["weights"]
    assert hashes[0]["structure"] == hashes[1]["structure"]
    config = tmp_path / "b" / "projection" / "config.json"
    config.write_text(config.read_text().replace("Tanh", "ReLU"))
    assert StoredModel("same", tmp_path / "b").hashes()["structure"] != hashes[1]["structure"]


@pytest.mark.parametrize(
    "file", ["tokenizer.json", "added_tokens.json", "1_Pooling/config.json", "sentence_bert_config.json", "config.json"]
)
def test_trap_1_each_file_that_decides_a_vector_changes_the_key(
    file: str, model: StoredModel, pairs: Task, tmp_path: Path
) -> None:
    shutil.copytree(model.folder, tmp_path / "teacher")
    with (tmp_path / "teacher" / file).open("a") as stream:
        stream.write(" ")
    assert score_key(StoredModel("teacher", tmp_path / "teacher").hashes(), pairs) != score_key(model.hashes(), pairs)


def test_trap_1_the_same_model_twice_has_one_score(model: StoredModel, pairs: Task, tmp_path: Path) -> None:
    shutil.copytree(model.folder, tmp_path / "copy")
    other = StoredModel("another name", tmp_path / "copy")
    first, again = (score(item, [pairs], tmp_path / "cache", "cpu")[0] for item in (model, other))
    assert (first.key, first.metrics) == (again.key, again.metrics)


def test_trap_2_edited_data_change_the_key_and_a_new_revision_alone_does_not(
    pairs: Task, write_pairs: Writes, tmp_path: Path
) -> None:
    changed = own(write_pairs(tmp_path, seed=1))
    assert changed.data_sha256 != pairs.data_sha256
    frame = pd.read_csv(write_pairs(tmp_path))
    frame["sentence2"] = frame["sentence2"].where(frame.index != 7, "another text")
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    assert own(tmp_path / "pairs.csv").data_sha256 not in (changed.data_sha256, pairs.data_sha256)
    same = own(write_pairs(tmp_path))
    same.instance.metadata.dataset["revision"] = "another"
    assert score_key({}, same) == score_key({}, pairs)


def test_trap_2_a_document_cannot_pass_for_a_query(write_beir: Writes, tmp_path: Path) -> None:
    """The last document moved to the front of the queries: the same rows in the same order."""
    folder = write_beir(tmp_path / "set")
    before = own(folder, "search").data_sha256
    corpus, queries = ((folder / f"{name}.jsonl").read_text().splitlines(True) for name in ("corpus", "queries"))
    (folder / "corpus.jsonl").write_text("".join(corpus[:-1]))
    (folder / "queries.jsonl").write_text("".join([corpus[-1], *queries]))
    with (folder / "qrels" / "test.tsv").open("a") as stream:
        stream.write("d5\td1\t1\n")
    moved = own(folder, "search")
    assert list(moved.instance.dataset["default"]["test"]["queries"]["id"]) == ["d5", "q0", "q1"]
    assert moved.data_sha256 != before


def test_trap_2_scores_in_each_others_place_are_noticed(
    model: StoredModel, pairs: Task, search: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two folders of scores swapped: each is whole, and neither is what its name says."""
    first, second = score(model, [pairs, search], tmp_path, "cpu")
    one, other = (tmp_path / "scores" / item.key for item in (first, second))
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    again = score(model, [pairs, search], tmp_path, "cpu")
    assert [item.metrics for item in again] == [first.metrics, second.metrics]
    assert caplog.text.count("belongs to another place") == 2


def test_traps_4_5_and_9_every_model_has_a_result_of_its_own(
    model: StoredModel, pairs: Task, teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing goes through mteb's cache or its frames of results, and no two evaluations share a prediction folder."""
    folders = []
    evaluate = mteb.evaluate

    def watched(*positional: Any, **named: Any) -> Any:
        folders.append(named["prediction_folder"])
        assert (named["cache"], named["overwrite_strategy"]) == (None, "always")
        return evaluate(*positional, **named)

    monkeypatch.setattr(mteb, "evaluate", watched)
    encoder = load_encoder(teacher_folder)
    encoder.pooling = "cls"
    export(encoder, load_tokenizer(teacher_folder), tmp_path / "teacher", "# card\n")
    other = StoredModel("teacher", tmp_path / "teacher")
    (mean,), (cls,) = (score(item, [pairs], tmp_path / "cache", "cpu") for item in (model, other))
    assert len(set(folders)) == 2
    assert mean.metrics["main_score"] != cls.metrics["main_score"]
    assert mean.examples["similarity"].tolist() != cls.examples["similarity"].tolist()


def test_traps_6_7_and_8_one_encoder_with_a_name_for_all_tasks(
    model: StoredModel, pairs: Task, search: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []

    def load(folder: Path, **options: Any) -> Any:
        loaded.append(folder)
        return load_encoder(folder, **options)

    monkeypatch.setattr(model_folder, "load_encoder", load)
    found = score(model, [pairs, search], tmp_path, "cpu")
    assert len(loaded) == 1
    assert len({item.key for item in found}) == 2
    assert scoring.score(model, [], tmp_path, "cpu") == []
    metas = [
        scoring._encoder(model, model.hashes(), tmp_path, "cpu", precision).mteb_model_meta
        for precision in get_args(Precision)
    ]
    assert metas[0].name.startswith("distilbench/")
    assert len({meta.revision for meta in metas}) == len(metas) == 2


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.full((8, 3), np.nan), "8 of 8 vectors are not finite"),
        (np.zeros((8, 3)), "8 different texts have one and the same"),
        (np.ones((8, 3)) * np.arange(1, 9)[:, None], "8 different texts have one and the same"),
        (np.eye(8)[[0, 1, 2, 3, 4, 5, 6, 6]], "1 of 8 different texts have that of another"),
    ],
)
def test_trap_12_vectors_that_say_nothing_are_an_error(vectors: Any, message: str) -> None:
    tokens = [[1, number, 2] for number in range(10, 18)]
    with pytest.raises(CollapseError, match=message):
        check_vectors(vectors.astype(np.float32), tokens)


def test_trap_12_texts_of_the_same_tokens_may_have_one_vector() -> None:
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    check_vectors(vectors, [[1, 5, 6, 2], [1, 6, 5, 2], [1, 7, 2], [1, 8, 2]])
    check_vectors(np.ones((2, 3), dtype=np.float32), [[1, 5, 2], [1, 5, 2]])


def test_trap_14_a_task_that_fails_is_an_error_and_not_a_shorter_list(
    model: StoredModel, pairs: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(BenchEncoder, "_embed", fail)
    with pytest.raises(RuntimeError, match="planted"):
        score(model, [pairs], tmp_path, "cpu")
    assert not list(tmp_path.glob("scores/*"))


def test_traps_13_and_15_no_code_of_others_and_no_model_by_name() -> None:
    """Nothing passes trust_remote_code=True, or asks mteb for a model."""
    for path in (ROOT / "bench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is False, path
            assert not (isinstance(node, ast.Attribute) and node.attr == "get_model"), path


def test_trap_16_the_papers_sick_is_a_task_of_its_own(write_pairs: Writes, tmp_path: Path) -> None:
    assert set(STS7) - set(SENTEVAL7) == {"SICK-R"}
    assert set(SENTEVAL7) - set(STS7) == {"SICK-R-Test"}
    folder = tmp_path / SickTest.metadata.dataset["path"]
    folder.mkdir(parents=True)
    pd.read_csv(write_pairs(tmp_path)).to_parquet(folder / "test.parquet")
    task = load_task("SICK-R-Test", tmp_path)
    assert (task.name, task.kind, task.main_metric) == ("SICK-R-Test", "STS", "cosine_spearman")


def test_trap_17_nano_tasks_are_listed_as_too_noisy() -> None:
    assert {mteb.get_task(name).metadata.name for name in PROFILES["nano"]} == set(PROFILES["nano"])
    assert len(PROFILES["nano"]) == 13
    assert "too noisy for a verdict" in DESCRIPTIONS["nano"]
