"""Scores of one model, kept under a key of everything they depend on."""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pandas as pd
import pytrec_eval

from bench.artefact import clear_up, is_sound, write_sealed
from bench.embed import BATCH_RULE
from bench.encoder import StoredModel, load_encoder, load_tokenizer
from bench.evaluation.encoder import BenchEncoder
from bench.evaluation.search import ExactSearch, Ranked
from bench.evaluation.tasks import Task
from bench.identity import PROTOCOL, key_of
from bench.record import dump_json
from bench.seeds import preserved_rng

QUERY_METRICS = {
    "ndcg_cut.10": "ndcg_at_10",
    "recall.10": "recall_at_10",
    "recall.100": "recall_at_100",
    "recip_rank": "mrr",
}
PRECISION = "fp32"
RESULT_FILE, MTEB_FILE, EXAMPLES_FILE = "score.json", "mteb.json", "examples.parquet"


class CollapseError(Exception):
    """A score is not a number, as happens when all vectors are equal."""


@dataclass(frozen=True)
class TaskScore:
    """Scores of one model on one task."""

    task: Task
    key: str
    metrics: dict[str, float]
    mteb_result: dict[str, Any]
    examples: pd.DataFrame


def score_key(hashes: dict[str, str], task: Task) -> str:
    """Hash of all that decides a score. Two students never share one, and changed task data make a new one."""
    return key_of(
        protocol=PROTOCOL,
        model=hashes,
        task=task.name,
        data=task.data_sha256,
        mteb=mteb.__version__,
        precision=PRECISION,
        batches=BATCH_RULE,
    )


def score(model: StoredModel, tasks: list[Task], cache: Path, device: str) -> list[TaskScore]:
    """Score a model folder on tasks; what lies in the cache under the same key is not computed again.

    Raises `CollapseError` when a main score is not a number. Global random state is left as it was.
    """
    hashes = model.hashes()
    encoder: BenchEncoder | None = None
    found = []
    with preserved_rng():
        for task in tasks:
            key = score_key(hashes, task)
            folder = cache / "scores" / key
            if not is_sound(folder, "the score"):
                encoder = encoder or _encoder(model, hashes, device)
                _evaluate(encoder, task, folder)
            found.append(_read(task, key, folder))
    return found


def _encoder(model: StoredModel, hashes: dict[str, str], device: str) -> BenchEncoder:
    loaded = load_encoder(model.folder).to(device)
    return BenchEncoder(loaded, load_tokenizer(model.folder), key_of(name=model.name), key_of(**hashes))


def _read(task: Task, key: str, folder: Path) -> TaskScore:
    return TaskScore(
        task=task,
        key=key,
        metrics=json.loads((folder / RESULT_FILE).read_text(encoding="utf-8")),
        mteb_result=json.loads((folder / MTEB_FILE).read_text(encoding="utf-8")),
        examples=pd.read_parquet(folder / EXAMPLES_FILE),
    )


def _evaluate(encoder: BenchEncoder, task: Task, folder: Path) -> None:
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
    examples = pd.concat(
        [frame.assign(task=task.name, split=split) for frame, (_, split, _) in zip(frames, task.splits(), strict=True)],
        ignore_index=True,
    )

    def write(path: Path) -> None:
        dump_json(metrics, path / RESULT_FILE)
        task_result.to_disk(path / MTEB_FILE)
        dump_json(_nulls_for_nan(json.loads((path / MTEB_FILE).read_text(encoding="utf-8"))), path / MTEB_FILE)
        examples.to_parquet(path / EXAMPLES_FILE, index=False)

    clear_up(folder)
    write_sealed(folder, write)


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
