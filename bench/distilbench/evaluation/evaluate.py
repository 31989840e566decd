"""One model on one task through mteb: its metrics, and what they are made of for each example."""

from __future__ import annotations

import copy
import json
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pandas as pd
import pytrec_eval
from mteb._evaluators.text import summarization_evaluator

from distilbench.evaluation.collapse import CollapseError
from distilbench.evaluation.exact_search import ExactSearch, Ranked
from distilbench.evaluation.mteb_encoder import BenchEncoder
from distilbench.evaluation.task_types.kinds import Sts
from distilbench.evaluation.tasks.by_name import Task
from distilbench.evaluation.tasks.content import OF_SUBQUERIES, whole_query
from distilbench.evaluation.tasks.subsets import WHOLE, within
from distilbench.evaluation.vector_encoders import JoinedEncoder, VectorEncoder
from distilbench.evaluation.vectors.centred import centred_correlation
from distilbench.records.schema import CENTRED, MEAN_LENGTH

QUERY_METRICS = {
    "ndcg_cut.10": "ndcg_at_10",
    "recall.10": "recall_at_10",
    "recall.100": "recall_at_100",
    "recip_rank": "mrr",
}
MEASURES = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
"""mteb's names of metrics -> pytrec_eval's."""
MtebEncoder = BenchEncoder | VectorEncoder | JoinedEncoder
KEPT_DOCUMENTS = 100
"""Of each query's ranked list."""


@dataclass(frozen=True)
class Evaluated:
    """What one evaluation gave, not kept anywhere yet."""

    metrics: dict[str, float]
    result: Any
    """mteb's own."""
    examples: pd.DataFrame
    ranked: pd.DataFrame
    judged: pd.DataFrame


def evaluate(encoder: MtebEncoder, task: Task) -> Evaluated:
    """Score an encoder on a task. Raises `CollapseError`; global random state is not preserved."""
    model = ExactSearch(encoder) if task.is_retrieval else encoder
    writes_predictions = not task.is_retrieval and task.tables.predicts
    with tempfile.TemporaryDirectory() as predictions, warnings.catch_warnings(), _without_a_bar():
        # Tasks are named on purpose, superseded or not.
        warnings.filterwarnings("ignore", message="The task .* is superseded")
        # mteb stops its classifiers after a fixed number of steps, and averages over classes that were not predicted.
        warnings.filterwarnings("ignore", message="(?s).*failed to converge")
        warnings.filterwarnings("ignore", message=".*ill-defined")
        result = mteb.evaluate(
            model,
            [_afresh(task.instance)],
            cache=None,
            overwrite_strategy="always",
            co2_tracker=False,
            # mteb would write the ranked lists as JSON, which takes longer than the search.
            prediction_folder=predictions if writes_predictions else None,
            show_progress_bar=False,
            encode_kwargs={"batch_size": 256, "show_progress_bar": False},
        )
        (task_result,) = result.task_results
        predicted = _predictions(task, predictions) if writes_predictions else {}
        frames = [
            _query_metrics(data["relevant_docs"], model.found[subset, split], task.main_metric)
            if isinstance(model, ExactSearch)
            else task.tables.examples(
                task.instance, data, predicted.get(subset, {}).get(split), _scores(task_result, subset, split)
            )
            for subset, split, data in task.splits()
        ]
    metrics = _metrics(task_result) | _centred(encoder, model, task)
    if not np.isfinite(metrics["main_score"]):
        raise CollapseError(f"the score of {task.name} is not a number: the model's vectors have collapsed")
    ranked = [
        ranked_frame(model.found[at, split]) if isinstance(model, ExactSearch) else None for at, split in _at(task)
    ]
    judged = [judged_frame(data["relevant_docs"]) if task.is_retrieval else None for *_, data in task.splits()]
    return Evaluated(metrics, task_result, *(_of_task(task, parts) for parts in (frames, ranked, judged)))


def _centred(encoder: MtebEncoder, model: Any, task: Task) -> dict[str, float]:
    """The main score of centred vectors and the length of their mean, averaged like it; of STS and retrieval alone."""
    found = []
    for subset, split, data in task.splits():
        if isinstance(model, ExactSearch):
            if (subset, split) not in model.centred:
                return {}
            frame = _query_metrics(data["relevant_docs"], model.centred[subset, split], task.main_metric)
            if task.main_metric not in frame:
                return {}
            found.append((float(frame[task.main_metric].mean()), model.mean_lengths[subset, split]))
        elif isinstance(task.tables, Sts):
            pairs = list(task.tables.pairs(task.instance, data))
            found.append(centred_correlation(encoder, task.instance.metadata, pairs, data["score"]))
    if not found or not np.isfinite(found).all():
        return {}
    score, length = np.mean(found, axis=0)
    return {CENTRED: float(score), MEAN_LENGTH: float(length)}


@contextmanager
def _without_a_bar() -> Iterator[None]:
    # mteb draws one over summaries, whatever it is told.
    before = summarization_evaluator.tqdm
    summarization_evaluator.tqdm = partial(before, disable=True)
    try:
        yield
    finally:
        summarization_evaluator.tqdm = before


def _afresh(instance: Any) -> Any:
    """The task with random numbers of its own, as it had them when it was made: each model is scored on the same."""
    fresh = copy.copy(instance)
    fresh.rng_state, fresh.np_rng = copy.deepcopy((instance.rng_state, instance.np_rng))
    return fresh


def _scores(task_result: Any, subset: str, split: str) -> dict[str, Any]:
    (found,) = (row for row in task_result.scores[split] if row["hf_subset"] == subset)
    return dict(found)


def _at(task: Task) -> list[tuple[str, str]]:
    return [(subset, split) for subset, split, _ in task.splits()]


def _of_task(task: Task, parts: Sequence[pd.DataFrame | None]) -> pd.DataFrame:
    """The frames of a task's splits as one, empty where the task has none of the kind."""
    named = [
        _named(frame, subset).assign(task=task.name, split=within(subset, split))
        for frame, (subset, split) in zip(parts, _at(task), strict=True)
        if frame is not None
    ]
    return pd.concat(named, ignore_index=True) if named else pd.DataFrame(columns=["task", "split"])


def _named(frame: pd.DataFrame, subset: str) -> pd.DataFrame:
    """The frame with the subset in the names of its examples and documents, which other subsets may have too."""
    if subset == WHOLE:
        return frame
    named = [column for column in ("example", "query_id", "doc_id") if column in frame.columns]
    return frame.assign(**{column: [within(subset, name) for name in frame[column]] for column in named})


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


def _predictions(task: Task, folder: str) -> Any:
    return json.loads((Path(folder) / task.instance.prediction_file_name).read_text(encoding="utf-8"))


def _metrics(task_result: Any) -> dict[str, float]:
    """Every metric that is a number, averaged over splits and subsets."""
    rows = [row for scores in task_result.scores.values() for row in scores]
    names = [name for name, value in rows[0].items() if isinstance(value, float | int) and not isinstance(value, bool)]
    means = {name: float(np.mean([row[name] for row in rows])) for name in names}
    return {name: value for name, value in means.items() if np.isfinite(value) or name == "main_score"}


def _query_metrics(relevant: dict[str, dict[str, int]], predicted: Ranked, main: str) -> pd.DataFrame:
    metrics = QUERY_METRICS | _as_measured(main)
    evaluator = pytrec_eval.RelevanceEvaluator(relevant, set(metrics))
    rows = evaluator.evaluate(predicted)
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("example").reset_index()
    frame = frame.rename(columns={name.replace(".", "_"): shown for name, shown in metrics.items()})
    if main.startswith("mrr_at_"):
        best = {query: _first_places(predicted[query], int(main.removeprefix("mrr_at_"))) for query in frame["example"]}
        frame[main] = [
            next((1 / rank for rank, name in best[query] if relevant[query].get(name, 0) > 0), 0.0)
            for query in frame["example"]
        ]
    if main.startswith(OF_SUBQUERIES):
        return _of_whole_queries(relevant, predicted, main, frame)
    return frame


def _as_measured(main: str) -> dict[str, str]:
    """pytrec_eval's name of a task's main metric -> mteb's; empty where pytrec_eval does not have it."""
    if main == "accuracy":
        # mteb's name for it where each query has one relevant document among a few.
        return {"recall.1": main}
    found = re.fullmatch(r"(ndcg|map|recall|precision|hit_rate)_at_(\d+)", main)
    return {f"{MEASURES[found[1]]}.{found[2]}": main} if found else {}


def _first_places(documents: dict[str, float], count: int) -> list[tuple[int, str]]:
    """(rank, document) of the best documents; of equal ones, in mteb's order."""
    best = sorted(documents.items(), key=lambda item: (item[1], item[0]), reverse=True)[:count]
    return [(rank, name) for rank, (name, _) in enumerate(best, start=1)]


def _of_whole_queries(
    relevant: dict[str, dict[str, int]], predicted: Ranked, main: str, parts: pd.DataFrame
) -> pd.DataFrame:
    """The best of each document over the parts of a query, which mteb names `<query>_<part>`, then the metric."""
    whole = parts["example"].map(whole_query)
    found: Ranked = {}
    judged = {}
    for query, part in zip(whole, parts["example"], strict=True):
        best = found.setdefault(query, {})
        for name, value in predicted[part].items():
            best[name] = max(value, best.get(name, value))
        judged[query] = relevant[part]
    return _query_metrics(judged, found, main.removeprefix(OF_SUBQUERIES)).rename(
        columns={main.removeprefix(OF_SUBQUERIES): main}
    )
