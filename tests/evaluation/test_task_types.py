"""Every type of task that distilbench scores: mteb's own score of it, and examples that give that score again."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import average_precision_score

pytest.importorskip("mteb")

import datasets
import mteb
from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores, make_score_dict
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.models.abs_encoder import AbsEncoder

from distilbench.analysis.bootstrap import TaskExamples, average_precision
from distilbench.analysis.examples import by_split, metric
from distilbench.core.errors import UserError
from distilbench.core.libraries import quiet
from distilbench.data.vectors import open_vectors
from distilbench.evaluation.evaluate import _query_metrics
from distilbench.evaluation.mteb_encoder import meta_of
from distilbench.evaluation.score import TaskScore, score
from distilbench.evaluation.task_types.kinds import is_of, is_scored, whole
from distilbench.evaluation.tasks.by_name import load_task
from distilbench.evaluation.tasks.content import example_texts
from distilbench.evaluation.tasks.fetch import store_task
from distilbench.evaluation.tasks.overlap import texts_of
from distilbench.evaluation.vector_encoders import lacking
from distilbench.models.model_folder import StoredModel
from distilbench.models.sources import StoredVectors
from distilbench.records.frames import SIMILARITY
from distilbench.study.sections.models import TeacherSpec
from tests.conftest import shut_network

Texts = list[str]
ROWS = 60


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    shut_network(monkeypatch)


@pytest.fixture
def texts(text_file: Path) -> Texts:
    return list(dict.fromkeys(text_file.read_text(encoding="utf-8").splitlines()))


@pytest.fixture
def model(teacher_folder: Path) -> StoredModel:
    return StoredModel("teacher", teacher_folder)


def lines(path: Path, frame: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in frame.to_dict("records")), encoding="utf-8")


def card(folder: Path, configs: dict[str, dict[str, str]]) -> None:
    listed = [
        {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in splits.items()]}
        for name, splits in configs.items()
    ]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n# A data set\n")


def labelled(texts: Texts, count: int, seed: int) -> pd.DataFrame:
    """Texts of four classes that are told by their first letters, some of them wrongly."""
    chosen = np.random.default_rng(seed).choice(texts, count, replace=len(texts) < count)
    labels = [(len(text) + (ord(text[0]) if row % 5 else row)) % 4 for row, text in enumerate(chosen)]
    return pd.DataFrame({"text": chosen, "label": labels})


def classified(folder: Path, texts: Texts) -> None:
    lines(folder / "train.jsonl", labelled(texts, 2 * ROWS, 0))
    lines(folder / "test.jsonl", labelled(texts, ROWS, 1))
    card(folder, {"default": {"train": "train.jsonl", "test": "test.jsonl"}})


def classified_in_english(folder: Path, texts: Texts) -> None:
    for split, rows in (("train", 2 * ROWS), ("validation", 20), ("test", ROWS)):
        lines(folder / "en" / f"{split}.jsonl", labelled(texts, rows, rows))
    card(folder, {"en": {split: f"en/{split}.jsonl" for split in ("train", "validation", "test")}})


def paired(folder: Path, texts: Texts) -> None:
    """As older data sets have it: one row, with all pairs in lists."""
    rng = np.random.default_rng(2)
    first, second = (list(rng.choice(texts, ROWS)) for _ in range(2))
    labels = [int(len(one) < len(other)) for one, other in zip(first, second, strict=True)]
    lines(folder / "test.jsonl", pd.DataFrame({"sent1": [first], "sent2": [second], "labels": [labels]}))
    card(folder, {"default": {"test": "test.jsonl"}})


def clustered(folder: Path, texts: Texts) -> None:
    frames = [labelled(texts, 200, seed) for seed in (3, 4)]
    rows = {
        "sentences": [list(frame["text"]) for frame in frames],
        "labels": [list(frame["label"]) for frame in frames],
    }
    rows["labels"] = [[f"class {label}" for label in labels] for labels in rows["labels"]]
    lines(folder / "test.jsonl", pd.DataFrame(rows))
    card(folder, {"default": {"test": "test.jsonl"}})


def reranked(folder: Path, texts: Texts) -> None:
    rng = np.random.default_rng(5)
    documents = pd.DataFrame({"_id": [f"d{row}" for row in range(len(texts))], "title": "", "text": texts})
    queries = pd.DataFrame({"_id": [f"q{row}" for row in range(8)], "text": texts[:8]})
    candidates = [[str(name) for name in rng.choice(documents["_id"], 10, replace=False)] for _ in queries["_id"]]
    judged = [
        {"query-id": query, "corpus-id": name, "score": int(place % 3 == 0)}
        for query, names in zip(queries["_id"], candidates, strict=True)
        for place, name in enumerate(names)
    ]
    tables = {
        "corpus": documents,
        "queries": queries,
        "qrels": pd.DataFrame(judged),
        "top_ranked": pd.DataFrame({"query-id": queries["_id"], "corpus-ids": candidates}),
    }
    for name, table in tables.items():
        lines(folder / name / "test.jsonl", table)
    card(folder, {name: {"test": f"{name}/test.jsonl"} for name in tables})


def reranked_by_parts(folder: Path, texts: Texts) -> None:
    """Some queries have several parts, of which the best counts for each document."""
    reranked(folder, texts)
    for name, column in (("queries", "_id"), ("qrels", "query-id"), ("top_ranked", "query-id")):
        table = pd.read_json(folder / name / "test.jsonl", lines=True)
        # Parts of a query have its documents.
        if name == "queries":
            table = pd.concat([table.assign(_id=table["_id"] + f"_{part}") for part in range(2)])
            table["text"] = [text[part:] for part, text in enumerate(table["text"])]
        else:
            table = pd.concat([table.assign(**{column: table[column] + f"_{part}"}) for part in range(2)])
        lines(folder / name / "test.jsonl", table)


def reranked_lists(folder: Path, texts: Texts) -> None:
    """As data sets for reranking once were."""
    rng = np.random.default_rng(7)
    rows = [
        {"query": text, "positive": list(rng.choice(texts, row % 3)), "negative": list(rng.choice(texts, 6 - row % 4))}
        for row, text in enumerate(texts[:12])
    ]
    lines(folder / "test.jsonl", pd.DataFrame(rows))
    card(folder, {"default": {"test": "test.jsonl"}})


def entailed(folder: Path, texts: Texts) -> None:
    rng = np.random.default_rng(8)
    first, second = (list(rng.choice(texts, ROWS)) for _ in range(2))
    labels = [int(len(one) < len(other)) for one, other in zip(first, second, strict=True)]
    lines(folder / "test.jsonl", pd.DataFrame({"sentence1": first, "sentence2": second, "labels": labels}))
    card(folder, {"default": {"test": "test.jsonl"}})


def summarised(folder: Path, texts: Texts) -> None:
    rng = np.random.default_rng(6)
    rows = [
        {
            "text": texts[row],
            "human_summaries": [str(text) for text in rng.choice(texts, 3)],
            "machine_summaries": [str(text) for text in rng.choice(texts, 5, replace=False)],
            # mteb leaves out a text whose summaries have one grade.
            "relevance": [3.0] * 5 if row == 1 else [float(grade) for grade in rng.uniform(1, 5, 5)],
        }
        for row in range(7)
    ]
    lines(folder / "test.jsonl", pd.DataFrame(rows))
    card(folder, {"default": {"test": "test.jsonl"}})


Makes = Callable[[Path, Texts], None]
TASKS: dict[str, Makes] = {
    "Banking77Classification": classified,
    "MTOPDomainClassification@en": classified_in_english,
    "TwitterSemEval2015": paired,
    "TwentyNewsgroupsClustering.v2": clustered,
    "TwentyNewsgroupsClustering": clustered,
    "AskUbuntuDupQuestions": reranked,
    "MindSmallReranking": reranked_by_parts,
    "LegalBenchPC": entailed,
    "SummEvalSummarization.v2": summarised,
}
each_type = pytest.mark.parametrize("name", TASKS)


def official(name: str) -> Any:
    task, _, subset = name.partition("@")
    return mteb.get_task(task, hf_subsets=[subset]) if subset else mteb.get_task(task)


@pytest.fixture
def write(tmp_path: Path, texts: Texts) -> Callable[[str], Path]:
    """Puts a task's data into a mirror, and gives the mirror."""

    def put(name: str) -> Path:
        TASKS[name](tmp_path / "mirror" / official(name).metadata.dataset["path"], texts)
        return tmp_path / "mirror"

    return put


def plain(name: str, mirror: Path, model: StoredModel) -> Any:
    """What mteb and sentence-transformers give alone, with mteb reading the files itself."""
    from sentence_transformers import SentenceTransformer

    instance = official(name)
    local = {"path": str(mirror / instance.metadata.dataset["path"]), "revision": "local"}
    instance.metadata = instance.metadata.model_copy(update={"dataset": local})
    encoder = SentenceTransformer(str(model.folder), device="cpu")
    (result,) = mteb.evaluate(encoder, [instance], cache=None, show_progress_bar=False).task_results
    return result


def scored(name: str, mirror: Path, model: StoredModel, cache: Path) -> TaskScore:
    (found,) = score(model, [load_task(name, mirror)], cache, "cpu")
    return found


def again(found: TaskScore) -> float:
    """The score as the analysis makes it from the examples."""
    column = SIMILARITY if SIMILARITY in found.examples else found.task.main_metric
    examples = found.examples.assign(run_id="run", value=found.examples[column])
    if "gold" not in examples:
        examples["gold"] = np.nan
    return float(metric(by_split(examples, ["run"]))[0])


@pytest.mark.filterwarnings("ignore")
@each_type
def test_scores_are_those_of_mteb_alone(
    name: str, write: Callable[[str], Path], model: StoredModel, tmp_path: Path
) -> None:
    mirror = write(name)
    expected = plain(name, mirror, model)

    found = scored(name, mirror, model, tmp_path / "cache")

    assert found.mteb_result["scores"].keys() == expected.scores.keys()
    values = [row["main_score"] for rows in expected.scores.values() for row in rows]
    assert found.metrics["main_score"] == pytest.approx(np.mean(values), abs=1e-6)
    assert 0.01 < abs(found.metrics["main_score"]) < 0.99
    assert again(found) == pytest.approx(found.metrics["main_score"], abs=2e-5)


@pytest.mark.parametrize(
    ("name", "examples", "texts_in"),
    [
        ("Banking77Classification", 10, None),
        ("TwitterSemEval2015", ROWS, 2 * ROWS),
        ("TwentyNewsgroupsClustering", 2, 400),
        ("AskUbuntuDupQuestions", 8, None),
        # Of two parts each.
        ("MindSmallReranking", 8, None),
        ("LegalBenchPC", ROWS, 2 * ROWS),
        # One text's summaries are graded alike.
        ("SummEvalSummarization.v2", 6, 7 * 8),
    ],
)
def test_examples_are_pairs_queries_texts_or_experiments(
    name: str, examples: int, texts_in: int | None, write: Callable[[str], Path], model: StoredModel, tmp_path: Path
) -> None:
    found = scored(name, write(name), model, tmp_path / "cache")

    assert len(found.examples) == examples
    assert found.examples["example"].is_unique
    assert texts_in in (None, found.task.num_texts)
    assert texts_in in (None, len(texts_of([found.task])[0]) + (2 * ROWS if "Banking" in name else 0))
    named = set(zip(found.examples["split"], found.examples["example"], strict=True))
    are_texts = found.task.kind not in ("Classification", "Clustering")
    assert named <= set(example_texts(found.task)) if are_texts else not example_texts(found.task)


def write_vectors(path: Path, some: Texts, values: Any) -> str:
    pd.DataFrame({"text": some, "vector": list(values[: len(some)])}).to_parquet(path)
    return str(path)


class Watched(AbsEncoder):  # type: ignore[misc]
    """Remembers what it was asked to embed."""

    def __init__(self) -> None:
        self.mteb_model_meta = meta_of("watched", "none", embed_dim=4)
        self.texts: list[str] = []

    def encode(self, inputs: Any, **_: Any) -> Any:
        texts = list(inputs.dataset["text"])
        self.texts += texts
        return np.array([[len(text), text.count("a"), text.count("e"), 1.0] for text in texts], dtype=np.float32)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["Banking77Classification", pytest.param("MTOPDomainClassification@en", marks=pytest.mark.thorough)]
)
def test_the_texts_that_a_classifier_learns_from_are_told_beforehand(
    name: str, write: Callable[[str], Path], texts: Texts, tmp_path: Path
) -> None:
    mirror = write(name)
    folder = mirror / official(name).metadata.dataset["path"]
    file = next(folder.rglob("train.jsonl"))
    # More of each class than can be chosen.
    lines(file, pd.DataFrame({"text": [f"{text} {row}" for row, text in enumerate(texts * 2)], "label": "one"}))
    lines(file, pd.read_json(file, lines=True).assign(label=lambda frame: frame.index % 2))
    task, watched = load_task(name, mirror), Watched()

    mteb.evaluate(watched, [copy.copy(task.instance)], cache=None, show_progress_bar=False)

    splits = [(split, data) for _, split, data in task.splits_read()]
    told = [text for split, data in splits for text in task.tables.embedded(task.instance, split, data)["text"]]
    assert sorted(set(told)) == sorted(set(watched.texts))
    assert task.num_texts == len(told) < sum(len(data) for _, data in splits) / 2

    # So stored vectors of these alone are enough to score a teacher by.
    told = list(dict.fromkeys(told))
    values = np.random.default_rng(0).standard_normal((len(told), 4)).astype(np.float32)
    enough, fewer = (write_vectors(tmp_path / f"{len(some)}.parquet", some, values) for some in (told, told[:-1]))
    stored = StoredVectors("v", open_vectors(TeacherSpec(vectors=enough), tmp_path / "c"))
    assert lacking(stored, [task]) is None
    assert score(stored, [task], tmp_path / "c", "cpu")[0].metrics["main_score"] > 0
    assert lacking(StoredVectors("v", open_vectors(TeacherSpec(vectors=fewer), tmp_path / "c")), [task]) is not None


@each_type
def test_every_model_is_scored_on_the_same_samples(
    name: str, write: Callable[[str], Path], model: StoredModel, tmp_path: Path
) -> None:
    task = load_task(name, write(name))

    first, second = (score(model, [task], tmp_path / cache, "cpu")[0] for cache in ("first", "second"))

    pd.testing.assert_frame_equal(first.examples, second.examples)
    assert first.metrics == second.metrics


@each_type
def test_no_bar_is_drawn(
    name: str, write: Callable[[str], Path], model: StoredModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    task = load_task(name, write(name), limit=3)
    model.load()
    capfd.readouterr()
    with quiet():
        score(model, [task], tmp_path / "cache", "cpu")
    assert capfd.readouterr() == ("", "")


@each_type
def test_a_limit_leaves_what_can_be_scored(
    name: str, write: Callable[[str], Path], model: StoredModel, tmp_path: Path
) -> None:
    mirror = write(name)

    task = load_task(name, mirror, limit=3)
    (found,) = score(model, [task], tmp_path / "cache", "cpu")

    assert task.num_texts < load_task(name, mirror).num_texts
    assert np.isfinite(found.metrics["main_score"])


@pytest.mark.filterwarnings("ignore")
def test_lists_of_documents_are_read_as_mteb_reads_them(
    model: StoredModel, texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mteb.abstasks.text import reranking
    from sentence_transformers import SentenceTransformer

    name = "SciDocsRR"
    folder = tmp_path / "mirror" / official(name).metadata.dataset["path"]
    reranked_lists(folder, texts)
    local = {"path": str(folder), "revision": "local"}
    facts = {"metadata": official(name).metadata.model_copy(update={"dataset": local})}
    monkeypatch.setattr(reranking, "OLD_FORMAT_RERANKING_TASKS", [name])
    theirs = type("Old", (reranking.AbsTaskReranking,), facts)()
    theirs.load_data()

    task = load_task(name, tmp_path / "mirror")

    ((_, _, data),) = task.splits()
    expected = theirs.dataset["default"]["test"]
    assert data["corpus"][:] == expected["corpus"][:] and data["queries"][:] == expected["queries"][:]
    assert data["relevant_docs"] == expected["relevant_docs"] and data["top_ranked"] == expected["top_ranked"]
    assert 0 < len(data["queries"]) < 12
    encoder = SentenceTransformer(str(model.folder), device="cpu")
    (result,) = mteb.evaluate(encoder, [theirs], cache=None, show_progress_bar=False).task_results
    found = scored(name, tmp_path / "mirror", model, tmp_path / "cache")
    assert found.metrics["main_score"] == pytest.approx(result.get_score(), abs=1e-6)
    store_task(task, tmp_path / "copy")
    assert load_task(name, tmp_path / "copy").data_sha256 == task.data_sha256


@each_type
def test_a_stored_task_is_the_same_data(name: str, write: Callable[[str], Path], tmp_path: Path) -> None:
    task = load_task(name, write(name))
    copy = tmp_path / "copy"

    store_task(task, copy)

    assert load_task(name, copy).data_sha256 == task.data_sha256


def test_the_training_split_of_a_classifier_is_in_the_hash(write: Callable[[str], Path], texts: Texts) -> None:
    mirror = write("Banking77Classification")
    before = load_task("Banking77Classification", mirror)
    lines(mirror / "mteb" / "banking77" / "train.jsonl", labelled(texts, 2 * ROWS, 9))

    after = load_task("Banking77Classification", mirror)

    assert after.data_sha256 != before.data_sha256
    assert after.splits()[0][2][:] == before.splits()[0][2][:]


def test_average_precision_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 40).astype(float)
    # Rounded, so that some are equal.
    values = np.round(rng.random((3, 40)) + gold / 4, 1)
    counts = rng.integers(0, 4, (40, 7)).astype(np.float32)

    found = average_precision(values, gold, counts)

    for run in range(3):
        for draw in range(7):
            expected = average_precision_score(gold, values[run], sample_weight=counts[:, draw])
            assert found[run, draw] == pytest.approx(expected, abs=1e-9)
    whole = TaskExamples(values, gold, classified=True).metric()
    assert whole == pytest.approx([average_precision_score(gold, row) for row in values])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("BUCC.v2", "BUCC.v2 is of the type BitextMining and of text; distilbench scores tasks of text alone of these"),
        ("CIFAR10", "CIFAR10 is of the type ImageClassification and of image"),
        ("NevIR", "the score of NevIR, paired_accuracy, is no mean over queries"),
        ("Core17InstructionRetrieval", "the score of Core17InstructionRetrieval, p-MRR, is no mean over queries"),
        ("CQADupstackRetrieval", "several tasks in one; name those that you mean: CQADupstackAndroid"),
    ],
)
def test_other_types_are_refused_in_a_sentence(name: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        load_task(name, None)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_metric_of_a_scored_retrieval_task_is_the_mean_of_its_queries() -> None:
    metrics = {
        task.metadata.main_score
        for task in mteb.get_tasks(modalities=["text"], exclude_superseded=False)
        if isinstance(task, AbsTaskRetrieval) and is_scored(task)
    } - {"max_over_subqueries_map_at_1000"}  # of groups of queries: scored with mteb in tests of MindSmallReranking
    rng = np.random.default_rng(5)
    documents = [f"d{number}" for number in range(150)]
    relevant = {f"q{number}": {name: int(rng.integers(0, 4)) for name in documents[:40]} for number in range(9)}
    found = {query: dict(zip(documents, rng.normal(size=150).round(3).tolist(), strict=True)) for query in relevant}
    ndcg, maps, recall, precision, naucs, mrr, naucs_mrr, hit_rate = calculate_retrieval_scores(
        found, relevant, (*AbsTaskRetrieval.k_values, 2)
    )[1:9]
    theirs = make_score_dict(
        ndcg=ndcg,
        _map=maps,
        recall=recall,
        precision=precision,
        mrr=mrr,
        naucs=naucs,
        naucs_mrr=naucs_mrr,
        hit_rate=hit_rate,
        task_scores={},
    )

    ours = {name: _query_metrics(relevant, found, name)[name].mean() for name in metrics}

    assert len(metrics) > 10 and ours == pytest.approx({name: theirs[name] for name in metrics}, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("Banking77Classification", lambda folder: (folder / "train.jsonl").unlink(), "train.parquet is missing"),
        (
            "Banking77Classification",
            lambda folder: lines(folder / "test.jsonl", pd.DataFrame({"text": ["a"], "labels": [1]})),
            "test has no column 'label'",
        ),
        (
            "Banking77Classification",
            lambda folder: lines(folder / "test.jsonl", pd.DataFrame({"text": ["a", None], "label": [1, 2]})),
            "test row 2 has no usable value under 'text'",
        ),
    ],
)
def test_a_damaged_mirror_is_named(
    name: str, spoil: Callable[[Path], Any], said: str, write: Callable[[str], Path]
) -> None:
    mirror = write(name)
    spoil(mirror / official(name).metadata.dataset["path"])

    with pytest.raises(UserError, match="is damaged") as refused:
        load_task(name, mirror)

    assert said in str(refused.value)


def test_the_prompt_of_a_type_is_used(
    write: Callable[[str], Path], teacher_folder: Path, model: StoredModel, tmp_path: Path
) -> None:
    mirror = write("Banking77Classification")
    prompted = StoredModel("prompted", teacher_folder, prompts={"Classification": "of what intent is this: "})

    with_prompt = scored("Banking77Classification", mirror, prompted, tmp_path / "cache")

    assert with_prompt.key != scored("Banking77Classification", mirror, model, tmp_path / "cache").key
    assert with_prompt.metrics != scored("Banking77Classification", mirror, model, tmp_path / "cache").metrics


@pytest.mark.parametrize("name", ["STS17", "SciFact", "Banking77Classification", "SprintDuplicateQuestions"])
def test_the_type_of_a_task_is_told_as_isinstance_tells_it(name: str) -> None:
    task = mteb.get_task(name)
    bases = (AbsTaskRetrieval, mteb.abstasks.AbsTaskSTS, mteb.abstasks.AbsTaskClassification)
    assert [is_of(task, base) for base in bases] == [isinstance(task, base) for base in bases]


def test_columns_are_read_at_once() -> None:
    assert whole(datasets.Dataset.from_dict({"text": ["a", "b"]}), "text") == ["a", "b"]
