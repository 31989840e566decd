"""One model on one task through mteb: its metrics, and what they are made of for each example."""

from __future__ import annotations

import json
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

from distilbench.evaluation.collapse import CollapseError
from distilbench.evaluation.exact_search import ExactSearch, Ranked
from distilbench.evaluation.mteb_encoder import BenchEncoder
from distilbench.evaluation.tasks.by_name import Task
from distilbench.evaluation.tasks.subsets import WHOLE, within
from distilbench.evaluation.vector_encoders import JoinedEncoder, VectorEncoder

QUERY_METRICS = {
    "ndcg_cut.10": "ndcg_at_10",
    "recall.10": "recall_at_10",
    "recall.100": "recall_at_100",
    "recip_rank": "mrr",
}
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


def _pairs(data: Any, predicted: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"gold": data["score"], "similarity": predicted["cosine_scores"]})
    return frame.assign(example=frame.index.astype(str))


def _query_metrics(relevant: dict[str, dict[str, int]], predicted: Ranked) -> pd.DataFrame:
    evaluator = pytrec_eval.RelevanceEvaluator(relevant, set(QUERY_METRICS))
    rows = evaluator.evaluate(predicted)
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("example").reset_index()
    return frame.rename(columns={name.replace(".", "_"): shown for name, shown in QUERY_METRICS.items()})
