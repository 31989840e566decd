"""Scores of one model, kept under a key of everything they depend on."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pandas as pd
import pytrec_eval
import torch

from distilbench.core.hashes import PROTOCOL, key_of
from distilbench.core.sealed import clear_up, is_sound, write_sealed
from distilbench.core.seeds import preserved_rng
from distilbench.data.tokenizer import load_tokenizer
from distilbench.data.tokens import TokenCache
from distilbench.evaluation.collapse import CollapseError
from distilbench.evaluation.exact_search import ExactSearch, Ranked
from distilbench.evaluation.mteb_encoder import BenchEncoder
from distilbench.evaluation.slices import with_slices
from distilbench.evaluation.tasks.by_name import Task
from distilbench.models.embed import batch_rule
from distilbench.models.model_folder import StoredModel, load_encoder
from distilbench.records.record import dump_json
from distilbench.study.sections import Precision

QUERY_METRICS = {
    "ndcg_cut.10": "ndcg_at_10",
    "recall.10": "recall_at_10",
    "recall.100": "recall_at_100",
    "recip_rank": "mrr",
}
RESULT_FILE, MTEB_FILE, EXAMPLES_FILE, IDENTITY_FILE = "score.json", "mteb.json", "examples.parquet", "identity.json"
RANKED_FILE, JUDGED_FILE = "ranked.parquet", "judged.parquet"
KEPT_DOCUMENTS = 100
"""Of each query's ranked list."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskScore:
    """Scores of one model on one task."""

    task: Task
    key: str
    metrics: dict[str, float]
    mteb_result: dict[str, Any]
    examples: pd.DataFrame
    ranked: pd.DataFrame
    """Of a retrieval task, the documents found for each query; see `distilbench.records.record`."""
    judged: pd.DataFrame
    """Of a retrieval task, the judgements; see `distilbench.records.record`."""


def score_identity(
    hashes: dict[str, str], task: Task, device: str = "cpu", precision: Precision = "fp32"
) -> dict[str, Any]:
    """All that decides a score."""
    return {
        "protocol": PROTOCOL,
        "model": hashes,
        "task": task.name,
        "data": task.data_sha256,
        "mteb": mteb.__version__,
        "precision": precision,
        "batches": batch_rule(device),
    }


def score_key(hashes: dict[str, str], task: Task, device: str = "cpu", precision: Precision = "fp32") -> str:
    """Hash of all that decides a score. Two students never share one, and changed task data make a new one."""
    return key_of(**score_identity(hashes, task, device, precision))


def score(
    model: StoredModel, tasks: list[Task], cache: Path, device: str, precision: Precision = "fp32"
) -> list[TaskScore]:
    """Score a model folder on tasks; what lies in the cache under the same key is not computed again.

    Raises `CollapseError` for vectors, or a main score, that say nothing. Global random state is left as it was.
    """
    hashes = model.hashes()
    encoder: BenchEncoder | None = None
    found = []
    with preserved_rng():
        for task in tasks:
            key = score_key(hashes, task, device, precision)
            folder = cache / "scores" / key
            identity = score_identity(hashes, task, device, precision)
            if not (is_sound(folder, "the score") and _is_of(folder, identity)):
                encoder = encoder or _encoder(model, hashes, cache, device, precision)
                _evaluate(encoder, task, folder, identity)
            found.append(_read(task, key, folder))
    return found


def _is_of(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether a score that is whole is also the one that its folder is named after."""
    path = folder / IDENTITY_FILE
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) == identity:
        return True
    _log.warning("%s holds another score than its name says; it is made again", folder)
    return False


def _encoder(
    model: StoredModel, hashes: dict[str, str], cache: Path, device: str, precision: Precision
) -> BenchEncoder:
    loaded, tokenizer = load_encoder(model.folder).to(device), load_tokenizer(model.folder)
    if precision == "bf16":
        loaded.backbone.to(torch.bfloat16)
    tokens = TokenCache(cache, hashes["tokenizer"])
    return BenchEncoder(loaded, tokenizer, key_of(name=model.name), key_of(precision=precision, **hashes), tokens)


def _read(task: Task, key: str, folder: Path) -> TaskScore:
    return TaskScore(
        task=task,
        key=key,
        metrics=json.loads((folder / RESULT_FILE).read_text(encoding="utf-8")),
        mteb_result=json.loads((folder / MTEB_FILE).read_text(encoding="utf-8")),
        # Told from the texts each time, so that another definition makes no score void.
        examples=with_slices(pd.read_parquet(folder / EXAMPLES_FILE), task),
        ranked=pd.read_parquet(folder / RANKED_FILE),
        judged=pd.read_parquet(folder / JUDGED_FILE),
    )


def _evaluate(encoder: BenchEncoder, task: Task, folder: Path, identity: dict[str, Any]) -> None:
    found = evaluate(encoder, task)

    def write(path: Path) -> None:
        dump_json(identity, path / IDENTITY_FILE)
        dump_json(found.metrics, path / RESULT_FILE)
        found.result.to_disk(path / MTEB_FILE)
        dump_json(_nulls_for_nan(json.loads((path / MTEB_FILE).read_text(encoding="utf-8"))), path / MTEB_FILE)
        for name in (EXAMPLES_FILE, RANKED_FILE, JUDGED_FILE):
            getattr(found, Path(name).stem).to_parquet(path / name, index=False)

    clear_up(folder)
    write_sealed(folder, write)


@dataclass(frozen=True)
class Evaluated:
    """What one evaluation gave, not kept anywhere yet."""

    metrics: dict[str, float]
    result: Any
    """mteb's own."""
    examples: pd.DataFrame
    ranked: pd.DataFrame
    judged: pd.DataFrame


def evaluate(encoder: BenchEncoder, task: Task) -> Evaluated:
    """Score an encoder on a task. Raises `CollapseError`; global random state is not preserved."""
    model = ExactSearch(encoder) if task.is_retrieval else encoder
    with tempfile.TemporaryDirectory() as predictions, warnings.catch_warnings():
        # Tasks are named on purpose, superseded or not.
        warnings.filterwarnings("ignore", message="The task .* is superseded")
        result = mteb.evaluate(
            model,
            [task.instance],
            cache=None,
            overwrite_strategy="always",
            co2_tracker=False,
            # mteb would write the ranked lists as JSON, which takes longer than the search.
            prediction_folder=None if task.is_retrieval else predictions,
            show_progress_bar=False,
            encode_kwargs={"batch_size": 256, "show_progress_bar": False},
        )
        frames = [
            _query_metrics(data["relevant_docs"], model.found[subset, split])
            if isinstance(model, ExactSearch)
            else _pairs(data, _predictions(task, predictions)[subset][split])
            for subset, split, data in task.splits()
        ]
    (task_result,) = result.task_results
    metrics = _metrics(task_result)
    if not np.isfinite(metrics["main_score"]):
        raise CollapseError(f"the score of {task.name} is not a number: the model's vectors have collapsed")
    ranked = [
        ranked_frame(model.found[at, split]) if isinstance(model, ExactSearch) else None for at, split in _at(task)
    ]
    judged = [judged_frame(data["relevant_docs"]) if task.is_retrieval else None for *_, data in task.splits()]
    return Evaluated(metrics, task_result, *(_of_task(task, parts) for parts in (frames, ranked, judged)))


def _at(task: Task) -> list[tuple[str, str]]:
    return [(subset, split) for subset, split, _ in task.splits()]


def _of_task(task: Task, parts: Sequence[pd.DataFrame | None]) -> pd.DataFrame:
    """The frames of a task's splits as one, empty where the task has none of the kind."""
    named = [
        frame.assign(task=task.name, split=split)
        for frame, (_, split) in zip(parts, _at(task), strict=True)
        if frame is not None
    ]
    return pd.concat(named, ignore_index=True) if named else pd.DataFrame(columns=["task", "split"])


def ranked_frame(found: Ranked) -> pd.DataFrame:
    """The best documents of each query, as ranx and ir_measures name the columns, with ranks from 1."""
    rows = [
        (query, document, value, rank)
        for query, documents in found.items()
        for rank, (document, value) in enumerate(
            sorted(documents.items(), key=lambda item: (-item[1], item[0]))[:KEPT_DOCUMENTS], start=1
        )
    ]
    return pd.DataFrame(rows, columns=["query_id", "doc_id", "score", "rank"])


def judged_frame(relevant: dict[str, dict[str, int]]) -> pd.DataFrame:
    """The judgements of each query, as ranx and ir_measures name the columns."""
    rows = [(query, document, value) for query, documents in relevant.items() for document, value in documents.items()]
    return pd.DataFrame(rows, columns=["query_id", "doc_id", "relevance"])


def _nulls_for_nan(value: Any) -> Any:
    """mteb's secondary metrics are NaN where they are undefined, as nAUC is when every query scores alike."""
    if isinstance(value, dict):
        return {key: _nulls_for_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nulls_for_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _predictions(task: Task, folder: str) -> Any:
    return json.loads((Path(folder) / task.instance.prediction_file_name).read_text(encoding="utf-8"))


def _metrics(task_result: Any) -> dict[str, float]:
    """Every metric that is a number, averaged over splits and subsets."""
    rows = [row for scores in task_result.scores.values() for row in scores]
    names = [name for name, value in rows[0].items() if isinstance(value, float | int) and not isinstance(value, bool)]
    means = {name: float(np.mean([row[name] for row in rows])) for name in names}
    return {name: value for name, value in means.items() if np.isfinite(value) or name == "main_score"}


def _pairs(data: Any, predicted: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"gold": data["score"], "similarity": predicted["cosine_scores"]})
    return frame.assign(example=frame.index.astype(str))


def _query_metrics(relevant: dict[str, dict[str, int]], predicted: Ranked) -> pd.DataFrame:
    evaluator = pytrec_eval.RelevanceEvaluator(relevant, set(QUERY_METRICS))
    rows = evaluator.evaluate(predicted)
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("example").reset_index()
    return frame.rename(columns={name.replace(".", "_"): shown for name, shown in QUERY_METRICS.items()})
