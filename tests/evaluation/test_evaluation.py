"""Scores: equal to plain mteb's, never another model's, and never disturbing the random state."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("mteb")

from distilbench.core.cache import locked
from distilbench.core.errors import UserError
from distilbench.data.tokenizer import load_tokenizer
from distilbench.evaluation import score as scoring
from distilbench.evaluation.collapse import CollapseError
from distilbench.evaluation.score import score, score_key
from distilbench.evaluation.tasks.by_name import Task, load_task
from distilbench.evaluation.tasks.profiles import EMBEDDED_RETRIEVAL, EMBEDDED_STS, PROFILES, expand
from distilbench.models import model_folder
from distilbench.models.export import export
from distilbench.models.model_folder import StoredModel, load_encoder


@pytest.fixture(scope="module")
def sts() -> Task:
    return load_task(EMBEDDED_STS, None)


@pytest.fixture(scope="module")
def small_mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SciFact in miniature, in the Hub's layout."""
    folder = tmp_path_factory.mktemp("mirror")
    write_retrieval(folder / "mteb" / "scifact")
    return folder


def write_retrieval(folder: Path) -> None:
    (folder / "qrels").mkdir(parents=True)
    corpus = [
        {"_id": str(n), "title": f"the {word}", "text": f"a {word} runs over the old tree"}
        for n, word in enumerate(("dog", "cat", "bird", "man", "woman", "river"))
    ]
    queries = [
        {"_id": f"q{n}", "text": f"who sees the {word}"} for n, word in enumerate(("dog", "cat", "bird", "fire"))
    ]
    qrels = [
        {"query-id": "q0", "corpus-id": "0", "score": 1},
        {"query-id": "q1", "corpus-id": "1", "score": 1},
        {"query-id": "q2", "corpus-id": "2", "score": 2},
        {"query-id": "q2", "corpus-id": "5", "score": 1},
    ]
    pd.DataFrame(corpus).to_parquet(folder / "corpus.parquet")
    pd.DataFrame(queries).to_parquet(folder / "queries.parquet")
    pd.DataFrame(qrels).to_parquet(folder / "qrels" / "test.parquet")


@pytest.fixture
def model(teacher_folder: Path) -> StoredModel:
    return StoredModel("teacher", teacher_folder)


def main_score(model: StoredModel, task: Task, cache: Path) -> float:
    (found,) = score(model, [task], cache, "cpu")
    return found.metrics["main_score"]


def test_the_embedded_sts_set_is_sound(sts: Task) -> None:
    frame = sts.instance.dataset["test"].to_pandas()
    assert len(frame) >= 300
    assert frame["domain"].nunique() >= 5
    assert {"paraphrase", "negation", "role-swap", "number-change", "near-topic", "unrelated"} <= set(frame["kind"])
    assert ((frame["score"] * 2) % 1 == 0).all()
    assert frame["score"].between(0, 5).all()
    assert not frame.duplicated(["sentence1", "sentence2"]).any()


PROMPTED: dict[str, dict[str, Any]] = {
    "no prompts": {},
    "sides": {"prompts": {"query": "who sees ", "document": "a small "}},
    "one side and a default": {"prompts": {"query": "who sees ", "all": "the old "}, "default_prompt_name": "all"},
    "types and tasks": {"prompts": {"STS": "water ", "SciFact-query": "red ", "Retrieval-document": "blue "}},
    "lengths count": {"similarity_fn_name": "dot", "prompts": {"document": "a small "}},
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("how", PROMPTED)
def test_scores_equal_plain_mteb(teacher_folder: Path, sts: Task, small_mirror: Path, tmp_path: Path, how: str) -> None:
    import mteb
    from sentence_transformers import SentenceTransformer

    shutil.copytree(teacher_folder, tmp_path / "model")
    if how == "lengths count":
        modules = json.loads((tmp_path / "model" / "modules.json").read_text(encoding="utf-8"))
        (tmp_path / "model" / "modules.json").write_text(json.dumps(modules[:2]), encoding="utf-8")
    (tmp_path / "model" / "config_sentence_transformers.json").write_text(json.dumps(PROMPTED[how]), encoding="utf-8")
    model = StoredModel("teacher", tmp_path / "model")
    retrieval = load_task("SciFact", small_mirror)
    for task in (sts, retrieval):
        plain = mteb.evaluate(
            SentenceTransformer(str(model.folder), device="cpu"), [task.instance], cache=None, show_progress_bar=False
        )
        theirs = plain.task_results[0].scores["test"][0]
        (ours,) = score(model, [task], tmp_path, "cpu")
        for metric in ("main_score", "cosine_pearson", "recall_at_3", "mrr_at_10"):
            if metric in theirs:
                assert ours.metrics[metric] == pytest.approx(theirs[metric], abs=1e-6)


def test_examples_add_up_to_the_score(model: StoredModel, sts: Task, small_mirror: Path, tmp_path: Path) -> None:
    pairs, queries = score(model, [sts, load_task("SciFact", small_mirror)], tmp_path, "cpu")
    spearman = pairs.examples["similarity"].rank().corr(pairs.examples["gold"].rank())
    assert spearman == pytest.approx(pairs.metrics["cosine_spearman"], abs=1e-9)
    assert queries.examples["ndcg_at_10"].mean() == pytest.approx(queries.metrics["ndcg_at_10"], abs=1e-5)
    assert set(queries.examples["example"]) == {"q0", "q1", "q2"}
    assert set(pairs.examples.columns) >= {"task", "split", "example", "gold", "similarity"}


def test_scoring_leaves_the_random_state_alone(model: StoredModel, sts: Task, tmp_path: Path) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    load_task(EMBEDDED_STS, None)
    score(model, [sts], tmp_path, "cpu")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # type: ignore[index]


def other_model(teacher_folder: Path, target: Path, pooling: str = "mean", noise: float = 0.0) -> StoredModel:
    encoder = load_encoder(teacher_folder)
    encoder.pooling = pooling  # type: ignore[assignment]
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    export(encoder, load_tokenizer(teacher_folder), target, "# card\n")
    return StoredModel("teacher", target)


def test_no_model_gets_anothers_score(model: StoredModel, sts: Task, teacher_folder: Path, tmp_path: Path) -> None:
    """Same name, other weights or pooling; then the first folder's content replaced."""
    first = main_score(model, sts, tmp_path / "cache")
    noisy = other_model(teacher_folder, tmp_path / "a" / "teacher", noise=0.3)
    pooled = other_model(teacher_folder, tmp_path / "b" / "teacher", pooling="cls")
    same = other_model(teacher_folder, tmp_path / "c" / "teacher")
    scores = [main_score(item, sts, tmp_path / "cache") for item in (noisy, pooled, same)]
    assert len({round(value, 6) for value in (first, *scores[:2])}) == 3
    assert scores[2] == first
    shutil.rmtree(same.folder)
    shutil.copytree(noisy.folder, same.folder)
    assert main_score(same, sts, tmp_path / "cache") == scores[0]


def test_changed_task_data_never_reuse_a_score(model: StoredModel, small_mirror: Path, tmp_path: Path) -> None:
    shutil.copytree(small_mirror, tmp_path / "mirror")
    before = load_task("SciFact", tmp_path / "mirror")
    path = tmp_path / "mirror" / "mteb" / "scifact" / "qrels" / "test.parquet"
    qrels = pd.read_parquet(path)
    qrels["corpus-id"] = ["3", "4", "4", "3"]
    qrels.to_parquet(path)
    after = load_task("SciFact", tmp_path / "mirror")
    assert before.data_sha256 != after.data_sha256
    assert score_key(model.hashes(), before) != score_key(model.hashes(), after)
    assert main_score(model, before, tmp_path / "cache") != main_score(model, after, tmp_path / "cache")


def test_a_stored_score_is_used_again_and_a_damaged_one_is_made_again(
    model: StoredModel,
    sts: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = main_score(model, sts, tmp_path)

    def unexpected(*_: Any) -> None:
        raise AssertionError("scored again")

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "evaluate", unexpected)
        assert main_score(model, sts, tmp_path) == first
    (stored,) = (tmp_path / "scores").iterdir()
    file = stored / "score.json"
    file.write_text(file.read_text().replace("0.", "0.9", 1))
    assert main_score(model, sts, tmp_path) == first
    assert "score.json is not as it was written" in caplog.text


def test_who_scores_a_model_on_one_task_waits_for_nobody_at_another(
    model: StoredModel, sts: Task, small_mirror: Path, tmp_path: Path
) -> None:
    other = load_task("SciFact", small_mirror)
    elsewhere = tmp_path / "scores" / score_key(model.hashes(), other)
    with ThreadPoolExecutor(1) as pool, locked(elsewhere, "it"):
        (scored,) = pool.submit(score, model, [sts], tmp_path, "cpu").result(timeout=120)
    assert scored.task is sts


def test_a_model_that_is_replaced_after_it_was_hashed_gets_no_score(
    sts: Task, teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = StoredModel("x", tmp_path / "model")
    shutil.copytree(teacher_folder, model.folder)

    def replace_and_load(folder: Path, **options: Any) -> Any:
        config = folder / "tokenizer_config.json"
        config.write_text(config.read_text() + "\n")
        return load_encoder(folder, **options)

    monkeypatch.setattr(model_folder, "load_encoder", replace_and_load)
    with pytest.raises(UserError, match=r"the model in .*model was changed while it was read; run the same command"):
        score(model, [sts], tmp_path / "cache", "cpu")
    assert not any((tmp_path / "cache" / "scores").iterdir())


def test_collapsed_vectors_are_an_error_not_a_score(sts: Task, teacher_folder: Path, tmp_path: Path) -> None:
    encoder = load_encoder(teacher_folder)
    with torch.no_grad():
        last = encoder.backbone.encoder.layer[-1].output.LayerNorm
        last.weight.zero_()
        last.bias.fill_(1.0)
    export(encoder, load_tokenizer(teacher_folder), tmp_path / "model", "# card\n")
    with pytest.raises(CollapseError, match="have one and the same"):
        score(StoredModel("x", tmp_path / "model"), [sts], tmp_path / "cache", "cpu")


def test_undefined_secondary_metrics_are_null_not_nan(model: StoredModel, small_mirror: Path, tmp_path: Path) -> None:
    (found,) = score(model, [load_task("SciFact", small_mirror)], tmp_path, "cpu")
    values = found.mteb_result["scores"]["test"][0].values()
    assert None in values
    assert not any(isinstance(value, float) and value != value for value in values)


def test_limit_shortens_tasks_and_changes_their_hash(sts: Task, small_mirror: Path) -> None:
    short = load_task(EMBEDDED_STS, None, limit=10)
    assert len(short.instance.dataset["test"]) == 10
    assert short.data_sha256 != sts.data_sha256
    split = load_task("SciFact", small_mirror, limit=1).instance.dataset["default"]["test"]
    assert (list(split["queries"]["id"]), list(split["relevant_docs"])) == (["q0"], ["q0"])


def test_unknown_and_unreachable_tasks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'SciFact'"):
        load_task("SciFct", None)
    with pytest.raises(UserError, match="did you mean 'embedded'"):
        load_task("embeded", None)
    with pytest.raises(UserError, match="distilbench scores tasks of text alone"):
        load_task("BUCC.v2", None)
    with pytest.raises(UserError, match="is missing"):
        load_task("STS12", tmp_path)
    folder = tmp_path / "mteb" / "sts12-sts"
    folder.mkdir(parents=True)
    (folder / "test.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="damaged"):
        load_task("STS12", tmp_path)


def test_profiles_expand_once() -> None:
    assert expand(["embedded", "STS12", EMBEDDED_STS]) == [EMBEDDED_STS, EMBEDDED_RETRIEVAL, "STS12"]
    assert len(expand(["sts7"])) == 7 == len(PROFILES["sts7"])


def test_docstring_retrieval_is_harvested_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distilbench.data.embedded import docstrings

    monkeypatch.setenv("DISTILBENCH_CACHE", str(tmp_path))
    harvested = ({"b": "q2", "a": "q1"}, {"b": "two", "a": "one"}, {"b": {"b": 1}, "a": {"a": 1}})
    calls: list[int] = []

    def retrieval_set() -> Any:
        calls.append(1)
        return harvested

    monkeypatch.setattr(docstrings, "retrieval_set", retrieval_set)
    first, again = (load_task(EMBEDDED_RETRIEVAL, None) for _ in range(2))
    assert len(calls) == 1
    assert first.data_sha256 == again.data_sha256
    (stored,) = tmp_path.rglob("retrieval.json")
    stored.write_text("{", encoding="utf-8")
    assert load_task(EMBEDDED_RETRIEVAL, None).data_sha256 == first.data_sha256
    assert len(calls) == 2
