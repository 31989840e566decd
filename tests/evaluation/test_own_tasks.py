"""Tasks from the user's own files, and the per-example store that they and all others leave."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("mteb")

from distilbench.core.errors import UserError
from distilbench.evaluation.score import score
from distilbench.evaluation.tasks.by_name import load_task
from distilbench.evaluation.tasks.content import example_texts
from distilbench.models.model_folder import StoredModel
from distilbench.study.sections.texts import OwnTask
from distilbench.study.study import Study

Writes = Callable[..., Path]


def own(source: Path, **settings: object) -> OwnTask:
    return OwnTask.model_validate({"name": "mine", "source": str(source), **settings})


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_pairs_in_every_format_are_the_same_task(ending: str, write_pairs: Writes, tmp_path: Path) -> None:
    expected = load_task(own(write_pairs(tmp_path)), None)
    frame = pd.read_csv(tmp_path / "pairs.csv").rename(columns={"score": "gold"})
    path = tmp_path / f"other.{ending}"
    if ending in ("csv", "tsv"):
        frame.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    elif ending == "jsonl":
        frame.to_json(path, orient="records", lines=True, double_precision=15)
    else:
        frame.to_parquet(path)
    found = load_task(own(path, columns=["sentence1", "sentence2", "gold"]), None)
    assert found.instance.dataset["test"]["sentence1"][:] == expected.instance.dataset["test"]["sentence1"][:]
    assert found.instance.dataset["test"]["score"][:] == pytest.approx(expected.instance.dataset["test"]["score"][:])
    assert (found.kind, found.main_metric) == ("STS", "cosine_spearman")


def test_a_beir_folder_leaves_runs_that_other_tools_read(
    teacher_folder: Path, write_beir: Writes, tmp_path: Path
) -> None:
    task = load_task(own(write_beir(tmp_path / "set")), None)
    (found,) = score(StoredModel("teacher", teacher_folder), [task], tmp_path / "cache", "cpu")
    assert found.judged[["query_id", "doc_id", "relevance"]].values.tolist() == [
        ["q0", "d0", 1],
        ["q0", "d3", 2],
        ["q1", "d1", 1],
    ]
    ranked = found.ranked
    assert ranked.groupby("query_id")["rank"].apply(list).tolist() == [[1, 2, 3, 4, 5, 6]] * 2
    assert (ranked.groupby("query_id")["score"].diff().dropna() <= 0).all()
    # nDCG@10 by hand from the two frames is that of the record: gain 1 / log2(rank + 1).
    merged = ranked.merge(found.judged, on=["query_id", "doc_id"], how="left").fillna({"relevance": 0})
    gain = (merged["relevance"] / (merged["rank"] + 1).map(lambda value: math.log2(value))).groupby(merged["query_id"])
    ideal = {"q0": 2 / 1 + 1 / 1.5849625007211562, "q1": 1.0}
    ndcg = {query: value / ideal[str(query)] for query, value in gain.sum().items()}
    assert sum(ndcg.values()) / 2 == pytest.approx(found.metrics["ndcg_at_10"], abs=1e-5)
    assert example_texts(task)["test", "q0"] == task.instance.dataset["default"]["test"]["queries"]["text"][0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"qrels/test.tsv": "query-id\tcorpus-id\tscore\nq0\td9\t1\n"}, "1 judged documents are not in the corpus"),
        ({"qrels/test.tsv": "query-id\tcorpus-id\tscore\nq0\td1\t0.5\n"}, "a judgement is a whole number"),
        ({"qrels/test.tsv": "query-id\tcorpus-id\nq0\td1\n"}, "has no column 'score'"),
        (
            {"qrels/test.tsv": "query-id\tcorpus-id\tscore\nq9\td1\t1\n"},
            "no query of qrels/test.tsv is in queries.jsonl",
        ),
        (
            {"corpus.jsonl": '{"_id": "d0", "text": "a"}\n{"_id": "d0", "text": "b"}\n'},
            "corpus.jsonl row 2 has the id 'd0', and so has an earlier row",
        ),
        ({"corpus.jsonl": '{"_id": "d0"}\n'}, "has no column 'text'"),
        ({"corpus.jsonl": "no json\n"}, "corpus.jsonl: "),
    ],
)
def test_a_damaged_beir_folder_is_refused(
    damage: dict[str, str], message: str, write_beir: Writes, tmp_path: Path
) -> None:
    folder = write_beir(tmp_path / "set")
    for name, text in damage.items():
        (folder / name).write_text(text)
    with pytest.raises(UserError, match=message):
        load_task(own(folder), None)


def test_what_cannot_be_a_task_is_refused(write_beir: Writes, write_pairs: Writes, tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "set")
    with pytest.raises(UserError, match="unknown split 'dev'; known: test"):
        load_task(own(folder, split="dev"), None)
    with pytest.raises(UserError, match="is a task of mteb"):
        load_task(OwnTask(name="SciFact", source=str(folder)), None)
    with pytest.raises(UserError, match=r"tasks\.mine\.source: there is no file"):
        load_task(own(tmp_path / "nothing.csv"), None)
    with pytest.raises(UserError, match="the home folder of a user that is not known"):
        load_task(own(Path("~nobody-of-this-name/pairs.csv")), None)
    pd.read_csv(write_pairs(tmp_path)).assign(score=1.0).to_csv(tmp_path / "flat.csv", index=False)
    with pytest.raises(UserError, match="no two pairs with different scores"):
        load_task(own(tmp_path / "flat.csv"), None)
    with pytest.raises(UserError, match="unknown column 'gold'"):
        load_task(own(tmp_path / "flat.csv", columns=["sentence1", "sentence2", "gold"]), None)


def test_the_mirror_may_hold_own_tasks(write_beir: Writes, tmp_path: Path) -> None:
    shutil.move(write_beir(tmp_path / "set"), tmp_path / "mirror" / "extra")
    task = load_task(OwnTask(name="mine", source="mirror:extra"), tmp_path / "mirror")
    assert task.is_retrieval


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([{"p": {"sorce": "a"}}], "unknown key of 'p': 'sorce'; did you mean 'source'"),
        ([{"p": {}}], "source is missing"),
        ([{"p": 3}], "neither the name of a task nor"),
        ([{}], "neither the name of a task nor"),
        ([{"a/b": {"source": "x"}}], "use letters, digits"),
    ],
)
def test_malformed_entries_are_explained(tasks: object, message: str) -> None:
    values: dict[str, object] = {"name": "x", "teacher": "t", "student": {"layers": 2}, "text": {"source": "embedded"}}
    values |= {"budget": {"steps": 1}, "methods": ["mse"], "seeds": 1}
    with pytest.raises(UserError, match=message):
        Study.model_validate({**values, "tasks": tasks})
    study = Study.model_validate({**values, "tasks": ["embedded", {"mine": {"source": "a.csv"}}]})
    assert json.loads(study.model_dump_json())["tasks"][1]["source"] == "a.csv"


def test_a_query_that_is_a_document_may_be_kept_from_finding_itself(
    teacher_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    texts = list(dict.fromkeys(text_file.read_text(encoding="utf-8").splitlines()))[:6]
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    rows = "".join(f"{json.dumps({'_id': f'd{n}', 'title': '', 'text': text})}\n" for n, text in enumerate(texts))
    for name in ("corpus", "queries"):
        (folder / f"{name}.jsonl").write_text(rows)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nd0\td1\t1\nd2\td3\t1\n")
    by_default, kept = (load_task(own(folder, **more), None) for more in ({}, {"ignore_identical_ids": True}))

    plain, other = score(StoredModel("teacher", teacher_folder), [by_default, kept], tmp_path / "cache", "cpu")

    assert plain.key != other.key
    itself = [found.ranked.query("query_id == doc_id") for found in (plain, other)]
    assert list(itself[0]["rank"]) == [1, 1] and itself[1].empty
    assert other.metrics["main_score"] > plain.metrics["main_score"]
    assert other.examples["ndcg_at_10"].mean() == pytest.approx(other.metrics["main_score"], abs=2e-5)
