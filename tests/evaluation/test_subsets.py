"""Tasks with several subsets: scored as mteb scores them, from every layout of a mirror, and never mixed up."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

pytest.importorskip("mteb")

import mteb

from distilbench.analysis.examples import by_split, metric
from distilbench.core.errors import UserError
from distilbench.evaluation.score import TaskScore, score
from distilbench.evaluation.tasks.by_name import load_task
from distilbench.evaluation.tasks.content import example_texts
from distilbench.evaluation.tasks.fetch import store_task
from distilbench.models.model_folder import StoredModel
from distilbench.study.sections.texts import PartOfTask
from distilbench.study.study import Study
from tests.conftest import shut_network

Frames = dict[str, pd.DataFrame]
Writes = Callable[..., Path]
STS17, SEMREL = "mteb/sts17-crosslingual-sts", "mteb/SemRel24STS"
THREE = ("en-en", "es-es", "ko-ko")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    shut_network(monkeypatch)


@pytest.fixture
def pairs(text_file: Path) -> Callable[..., Frames]:
    """Makes so many pairs for each subset; no two subsets are alike, and they do not have equally many."""
    texts = text_file.read_text(encoding="utf-8").splitlines()

    def make(*subsets: str) -> Frames:
        made = {}
        for at, subset in enumerate(subsets):
            rng = np.random.default_rng(at)
            rows = 8 + 3 * at
            first, second = (rng.choice(texts, rows) for _ in range(2))
            made[subset] = pd.DataFrame({"sentence1": first, "sentence2": second, "score": rng.random(rows) * 5})
        return made

    return make


def jsonl(frame: pd.DataFrame) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in frame.to_dict("records"))


def card(folder: Path, configs: dict[str, dict[str, str]]) -> None:
    listed = [
        {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in splits.items()]}
        for name, splits in configs.items()
    ]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n# A data set\n")


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def parquet(path: Path, frame: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)


def folders_of_parquet(folder: Path, frames: Frames) -> None:
    for subset, frame in frames.items():
        parquet(folder / subset / "test-00000-of-00001.parquet", frame)


def folders_of_the_hubs_conversion(folder: Path, frames: Frames) -> None:
    for subset, frame in frames.items():
        for shard, part in enumerate((frame[:3], frame[3:])):
            parquet(folder / subset / "test" / f"{shard:04d}.parquet", part)


def shards_with_a_hash(folder: Path, frames: Frames) -> None:
    for subset, frame in frames.items():
        for shard, part in enumerate((frame[:3], frame[3:])):
            parquet(folder / subset / f"test-{shard:05d}-of-00002-0a1b2c3d4e5f6071.parquet", part)


def one_converted_table(folder: Path, frames: Frames) -> None:
    together = pd.concat([frame.assign(lang=subset) for subset, frame in frames.items()])
    parquet(folder / "default" / "test" / "0000.parquet", together)


def folders_below_data(folder: Path, frames: Frames) -> None:
    for subset, frame in frames.items():
        put(folder / "data" / subset / "test.csv", frame.to_csv(index=False))


def folders_of_shards(folder: Path, frames: Frames) -> None:
    for subset, frame in frames.items():
        for at, part in enumerate((frame[:2], frame[2:5], frame[5:])):
            parquet(folder / subset / f"test-{at:05d}-of-00003.parquet", part)


def folders_of_packed_lines(folder: Path, frames: Frames) -> None:
    for subset, frame in frames.items():
        put(folder / subset / "test.jsonl.gz", jsonl(frame))
    card(folder, {subset: {"test": f"{subset}/test.jsonl.gz"} for subset in frames})


def files_in_a_folder_of_the_split(folder: Path, frames: Frames) -> None:
    for subset, frame in frames.items():
        put(folder / "test" / f"{subset}.jsonl.gz", jsonl(frame))


def declared_shards(folder: Path, frames: Frames) -> None:
    for at, frame in enumerate(frames.values()):
        for shard, part in enumerate((frame[:4], frame[4:])):
            parquet(folder / "files" / f"{at}-{shard:05d}-of-00002.parquet", part)
    card(folder, {subset: {"test": f"files/{at}-*.parquet"} for at, subset in enumerate(frames)})


def one_table(folder: Path, frames: Frames) -> None:
    together = pd.concat([frame.assign(lang=subset) for subset, frame in frames.items()])
    # As on the Hub, rows of one subset need not lie together.
    parquet(folder / "test.parquet", together.sample(frac=1, random_state=0))


def one_packed_table(folder: Path, frames: Frames) -> None:
    together = pd.concat([frame.assign(lang=subset) for subset, frame in frames.items()])
    put(folder / "test.jsonl.gz", jsonl(together))


LAYOUTS = [
    *(folders_of_parquet, folders_below_data, folders_of_shards, folders_of_packed_lines),
    *(files_in_a_folder_of_the_split, declared_shards, one_table, one_packed_table),
    *(folders_of_the_hubs_conversion, one_converted_table, shards_with_a_hash),
]


def plain(folder: Path, model: StoredModel, task: str, frames: dict[str, Any]) -> Any:
    """What mteb alone gives for the same data."""
    from datasets import Dataset, DatasetDict
    from sentence_transformers import SentenceTransformer

    instance = mteb.get_task(task, hf_subsets=list(frames))
    instance.dataset = {
        subset: DatasetDict({"test": Dataset.from_pandas(data)}) if isinstance(data, pd.DataFrame) else data
        for subset, data in frames.items()
    }
    instance.data_loaded = True
    encoder = SentenceTransformer(str(model.folder), device="cpu")
    (result,) = mteb.evaluate(encoder, [instance], cache=None, show_progress_bar=False).task_results
    return result


def scored(model: StoredModel, task: Any, mirror: Path, cache: Path) -> TaskScore:
    (found,) = score(model, [load_task(task, mirror)], cache, "cpu")
    return found


@pytest.fixture
def model(teacher_folder: Path) -> StoredModel:
    return StoredModel("teacher", teacher_folder)


def by_subset(result: dict[str, Any]) -> dict[str, float]:
    return {row["hf_subset"]: row["main_score"] for row in result["scores"]["test"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
@pytest.mark.parametrize(
    ("task", "path", "subsets"), [("STS17", STS17, THREE), ("SemRel24STS", SEMREL, ("eng", "afr", "hin"))]
)
def test_every_layout_scores_as_mteb_does(
    write: Any,
    task: str,
    path: str,
    subsets: tuple[str, ...],
    model: StoredModel,
    pairs: Callable[..., Frames],
    tmp_path: Path,
) -> None:
    frames = pairs(*subsets)
    (tmp_path / "mirror" / path).mkdir(parents=True)
    write(tmp_path / "mirror" / path, frames)
    theirs = plain(tmp_path, model, task, frames)
    ours = scored(model, PartOfTask(name=task, subsets=subsets), tmp_path / "mirror", tmp_path / "cache")
    assert ours.metrics["main_score"] == pytest.approx(theirs.get_score(), abs=1e-6)
    assert by_subset(ours.mteb_result) == pytest.approx(by_subset({"scores": theirs.scores}), abs=1e-6)
    # Not all subsets have equally many examples, so that their mean is not that of all examples.
    assert len(ours.examples) == sum(map(len, frames.values()))
    for subset, frame in frames.items():
        rows = ours.examples["split"] == f"{subset}/test"
        assert sorted(ours.examples.loc[rows, "gold"]) == sorted(frame["score"])
    examples = ours.examples.assign(run_id="one", value=ours.examples["similarity"])
    assert metric(by_split(examples, ["one"]))[0] == pytest.approx(theirs.get_score(), abs=1e-6)


def test_examples_carry_their_subset(model: StoredModel, pairs: Callable[..., Frames], tmp_path: Path) -> None:
    frames = pairs(*THREE)
    folders_of_parquet(tmp_path / "mirror" / STS17, frames)
    spec = PartOfTask(name="STS17", subsets=THREE[::-1])
    task = load_task(spec, tmp_path / "mirror")
    # In mteb's order, whichever the user's is.
    assert task.name == "STS17@ko-ko,en-en,es-es"
    (found,) = score(model, [task], tmp_path / "cache", "cpu")
    assert found.examples["example"].is_unique
    for subset, frame in frames.items():
        rows = found.examples[found.examples["example"].str.startswith(f"{subset}/")]
        assert rows["gold"].tolist() == frame["score"].tolist()
        assert set(rows["split"]) == {f"{subset}/test"}
        assert rows["example"].tolist() == [f"{subset}/{row}" for row in range(len(frame))]
    texts = example_texts(task)
    assert set(zip(found.examples["split"], found.examples["example"], strict=True)) == set(texts)
    first = frames["es-es"].iloc[3]
    assert texts["es-es/test", "es-es/3"] == f"{first['sentence1']} | {first['sentence2']}"


def test_a_part_is_named_in_many_ways(pairs: Callable[..., Frames], tmp_path: Path) -> None:
    folders_of_parquet(tmp_path / STS17, pairs("en-en", "es-es"))
    values: dict[str, Any] = {"name": "x", "teacher": "t", "student": {"layers": 2}, "text": {"source": "embedded"}}
    values |= {"budget": {"steps": 1}, "methods": ["mse"], "seeds": 1}
    tasks = [
        "STS17@en-en",
        {"STS17": {"subsets": ["en-en"]}},
        {"name": "STS17", "subsets": ["en-en"]},
        {"name": "STS17", "languages": ["eng"]},
        {"STS17": {"languages": ["eng-Latn"]}},
    ]
    study = Study.model_validate({**values, "tasks": tasks})
    again = Study.model_validate({**values, "tasks": study.model_dump()["tasks"]})
    assert again.tasks == study.tasks
    loaded = [load_task(spec, tmp_path) for spec in study.tasks]
    assert {(task.name, task.data_sha256) for task in loaded} == {("STS17@en-en", loaded[0].data_sha256)}
    assert {subset for task in loaded for subset, _, _ in task.splits()} == {"en-en"}
    both = load_task("STS17@es-es,en-en", tmp_path)
    assert both.name == "STS17@en-en,es-es" and both.data_sha256 != loaded[0].data_sha256
    assert load_task("STS17@es-es", tmp_path, limit=5).num_texts == 10


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"STS17": {"subsets": ["en-em"]}}, "STS17: unknown subset 'en-em'; did you mean 'en-en'?"),
        ({"STS17": {"languages": ["en"]}}, "STS17: unknown language 'en'; did you mean"),
        ({"STS17": {"languages": ["nld"]}}, "STS17: none of its subsets is in nld alone; its subsets are ko-ko, ar-ar"),
        ({"STS12": {"subsets": ["en"]}}, "STS12: unknown subset 'en'; known: default"),
        ({"STS117": {"subsets": ["en"]}}, "unknown task 'STS117'; did you mean 'STS17'?"),
        ("STS17@", "STS17: unknown subset ''"),
    ],
)
def test_what_a_task_has_not_is_named(task: Any, message: str, tmp_path: Path) -> None:
    spec = task
    if isinstance(task, dict):
        ((name, values),) = task.items()
        spec = PartOfTask(name=name, **{key: tuple(value) for key, value in values.items()})
    with pytest.raises(UserError, match=re.escape(message)):
        load_task(spec, tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"STS17": {"subsets": ["a"], "languages": ["eng"]}}, "'STS17': give either subsets or languages"),
        ({"STS17": {"subsets": []}}, "'STS17': subsets"),
        ({"STS17": {"subsets": "en-en"}}, "'STS17': subsets"),
        ({"STS17": {"subsets": ["en-en"], "split": "test"}}, "unknown key of 'STS17': 'split'"),
        ({"name": "STS17"}, "'STS17': source is missing"),
    ],
)
def test_malformed_parts_are_explained(entry: Any, message: str) -> None:
    values: dict[str, Any] = {"name": "x", "teacher": "t", "student": {"layers": 2}, "text": {"source": "embedded"}}
    values |= {"budget": {"steps": 1}, "methods": ["mse"], "seeds": 1}
    with pytest.raises(UserError, match=re.escape(message)):
        Study.model_validate({**values, "tasks": [entry]})


@pytest.mark.parametrize("write", [folders_of_parquet, one_table, folders_of_packed_lines])
def test_subsets_that_a_mirror_lacks_are_named(write: Any, pairs: Callable[..., Frames], tmp_path: Path) -> None:
    (tmp_path / STS17).mkdir(parents=True)
    write(tmp_path / STS17, pairs("en-en", "es-es"))
    with pytest.raises(UserError) as caught:
        load_task("STS17", tmp_path)
    message = str(caught.value)
    assert "lacks 9 of the subsets of STS17 (ko-ko, ar-ar, " in message
    assert "has en-en, es-es; score these alone ({name: STS17, subsets: [en-en, es-es]})" in message
    cure = re.search(r"\((\{name.*?\})\)", message)
    assert cure is not None
    assert load_task(PartOfTask(**yaml.safe_load(cure[1])), tmp_path).name == "STS17@en-en,es-es"


def test_a_mirror_without_any_subset_says_so(pairs: Callable[..., Frames], tmp_path: Path) -> None:
    (tmp_path / STS17).mkdir(parents=True)
    with pytest.raises(UserError, match=r"lacks 11 of .* and has none; add them, each in a folder of its name"):
        load_task("STS17", tmp_path)


def test_a_missing_shard_is_damage(pairs: Callable[..., Frames], tmp_path: Path) -> None:
    folders_of_shards(tmp_path / STS17, pairs("en-en"))
    (tmp_path / STS17 / "en-en" / "test-00001-of-00003.parquet").unlink()
    with pytest.raises(UserError, match="test-00001-of-00003 is missing; make it again"):
        load_task("STS17@en-en", tmp_path)


def test_a_card_cannot_lead_outside(pairs: Callable[..., Frames], tmp_path: Path) -> None:
    parquet(tmp_path / "secret.parquet", pairs("en-en")["en-en"])
    (tmp_path / STS17).mkdir(parents=True)
    card(tmp_path / STS17, {"en-en": {"test": "../../secret.parquet"}, "es-es": {"test": f"{tmp_path}/secret.parquet"}})
    with pytest.raises(UserError, match="lacks 2 of"):
        load_task("STS17@en-en,es-es", tmp_path)


SEARCH: dict[str, list[Any]] = {
    "corpus": [("0", "a dog runs"), ("1", "the cat sees a bird"), ("2", "red stone in water"), ("3", "a man sings")],
    "queries": [("q0", "dog"), ("q1", "stone"), ("q2", "who sings")],
    "qrels": [("q0", "0", 1), ("q1", "2", 2), ("q1", "1", 1)],
}


def search_tables(subset: str) -> dict[str, pd.DataFrame]:
    """The same names in every subset, with other texts and judgements."""
    corpus = pd.DataFrame(SEARCH["corpus"], columns=["_id", "text"]).assign(title="")
    queries = pd.DataFrame(SEARCH["queries"], columns=["_id", "text"])
    qrels = pd.DataFrame(SEARCH["qrels"], columns=["query-id", "corpus-id", "score"])
    if subset == "es":
        corpus["text"] = corpus["text"][::-1].tolist()
        qrels["corpus-id"] = ["3", "1", "0"]
    return {"corpus": corpus, "queries": queries, "qrels": qrels}


def search_in_configurations(folder: Path, subset: str) -> None:
    for name, frame in search_tables(subset).items():
        parquet(folder / f"{subset}-{name}" / "test-00000-of-00001.parquet", frame)


def search_declared(folder: Path, subset: str) -> None:
    names = ("corpus", "queries", "qrels")
    for name, frame in search_tables(subset).items():
        put(folder / name / f"{subset}.jsonl", jsonl(frame))
    there = [path.stem for path in (folder / "corpus").glob("*.jsonl")]
    configs = {f"{each}-{name}": {"test": f"{name}/{each}.jsonl"} for each in there for name in names}
    card(folder, configs)


def search_in_folders(folder: Path, subset: str) -> None:
    tables = search_tables(subset)
    for name in ("corpus", "queries"):
        put(folder / subset / f"{name}.jsonl.gz", jsonl(tables[name]))
    put(folder / subset / "qrels" / "test.tsv", tables["qrels"].to_csv(index=False, sep="\t"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("write", [search_in_configurations, search_declared, search_in_folders])
def test_documents_of_subsets_are_kept_apart(write: Any, model: StoredModel, tmp_path: Path) -> None:
    from datasets import Dataset

    name, subsets = "XMarket", ("en", "es")
    instance = mteb.get_task(name)
    folder = tmp_path / "mirror" / instance.metadata.dataset["path"]
    for subset in subsets:
        write(folder, subset)
    data: dict[str, Any] = {}
    for subset in subsets:
        tables = search_tables(subset)
        judged = {
            query: dict(zip(group["corpus-id"], group["score"], strict=True))
            for query, group in tables["qrels"].groupby("query-id")
        }
        queries = tables["queries"].rename(columns={"_id": "id"})
        part = {
            "corpus": Dataset.from_pandas(tables["corpus"].rename(columns={"_id": "id"})),
            "queries": Dataset.from_pandas(queries[queries["id"].isin(judged)], preserve_index=False),
            "relevant_docs": judged,
            "top_ranked": None,
        }
        data[subset] = {"test": part}
    spec = PartOfTask(name=name, subsets=subsets)
    theirs = plain(tmp_path, model, name, data)
    ours = scored(model, spec, tmp_path / "mirror", tmp_path / "cache")
    assert ours.metrics["main_score"] == pytest.approx(theirs.get_score(), abs=1e-6)
    assert by_subset(ours.mteb_result) == pytest.approx(by_subset({"scores": theirs.scores}), abs=1e-6)
    assert set(ours.judged["query_id"]) == {f"{subset}/{query}" for subset in subsets for query in ("q0", "q1")}
    assert set(ours.ranked["doc_id"]) == {f"{subset}/{row}" for subset in subsets for row in range(4)}
    assert not ours.examples.duplicated(["split", "example"]).any()


def test_subsets_that_are_fetched_are_read_again(pairs: Callable[..., Frames], tmp_path: Path) -> None:
    one_table(tmp_path / "hub" / STS17, pairs(*THREE))
    task = load_task("STS17@en-en,ko-ko", tmp_path / "hub")
    store_task(task, tmp_path / "mirror")
    assert load_task("STS17@en-en,ko-ko", tmp_path / "mirror").data_sha256 == task.data_sha256
    assert load_task("STS17@ko-ko", tmp_path / "mirror").num_texts == 28


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_candidates_of_a_subset_are_ranked_alone(model: StoredModel, tmp_path: Path) -> None:
    from datasets import Dataset

    name, subsets = "WikipediaRerankingMultilingual", ("de", "en")
    folder = tmp_path / "mirror" / mteb.get_task(name).metadata.dataset["path"]
    data: dict[str, Any] = {}
    for at, subset in enumerate(subsets):
        search_in_configurations(folder, subset)
        tables = search_tables(subset)
        candidates = {"q0": ["0", "1"], "q1": ["1", "2", "3"][at:]}
        ranked = pd.DataFrame({"query-id": list(candidates), "corpus-ids": list(candidates.values())})
        parquet(folder / f"{subset}-top_ranked" / "test.parquet", ranked)
        queries = tables["queries"].rename(columns={"_id": "id"})[:2]
        part = {
            "corpus": Dataset.from_pandas(tables["corpus"].rename(columns={"_id": "id"})),
            "queries": Dataset.from_pandas(queries),
            "relevant_docs": {"q0": {"0": 1}, "q1": {"2": 2, "1": 1}},
            "top_ranked": candidates,
        }
        data[subset] = {"test": part}
    theirs = plain(tmp_path, model, name, data)
    spec = PartOfTask(name=name, subsets=subsets)
    ours = scored(model, spec, tmp_path / "mirror", tmp_path / "cache")
    assert ours.metrics["main_score"] == pytest.approx(theirs.get_score(), abs=1e-6)
    assert len(ours.ranked) == 2 + 3 + 2 + 2
    short = load_task(spec, tmp_path / "mirror", limit=1)
    assert [part["top_ranked"] for *_, part in short.splits()] == [{"q0": ["0", "1"]}] * 2


def test_splits_of_subsets_are_kept_apart(pairs: Callable[..., Frames], model: StoredModel, tmp_path: Path) -> None:
    frames = {
        subset: frame.rename(columns={"score": "similarity_score"}) for subset, frame in pairs("en", "de", "fr").items()
    }
    folder = tmp_path / mteb.get_task("STSBenchmarkMultilingualSTS").metadata.dataset["path"]
    for split in ("dev", "test"):
        together = pd.concat([frame.assign(lang=subset) for subset, frame in frames.items()])
        parquet(folder / f"{split}.parquet", together)
    task = load_task("STSBenchmarkMultilingualSTS@fr,de", tmp_path)
    assert task.name == "STSBenchmarkMultilingualSTS@de,fr"
    assert [(subset, split, len(data)) for subset, split, data in task.splits()] == [
        *(("de", "dev", 11), ("de", "test", 11)),
        *(("fr", "dev", 14), ("fr", "test", 14)),
    ]
    (found,) = score(model, [task], tmp_path / "cache", "cpu")
    assert sorted(set(found.examples["split"])) == ["de/dev", "de/test", "fr/dev", "fr/test"]
    assert not found.examples.duplicated(["split", "example"]).any()
    # mteb would rename a column again that it has renamed.
    store_task(task, tmp_path / "copy")
    assert load_task(task.name, tmp_path / "copy").data_sha256 == task.data_sha256
