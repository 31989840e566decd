"""Scores of one model, kept under a key of everything they depend on."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pandas as pd

from distilbench.core.cache import find_or_make
from distilbench.core.errors import UserError
from distilbench.core.hashes import PROTOCOL, key_of
from distilbench.core.seeds import preserved_rng
from distilbench.data.tokenizer import load_tokenizer
from distilbench.data.tokens import TokenCache
from distilbench.evaluation.evaluate import Evaluated, MtebEncoder, evaluate
from distilbench.evaluation.mteb_encoder import BenchEncoder, in_precision
from distilbench.evaluation.slices import with_slices
from distilbench.evaluation.tasks.by_name import Task
from distilbench.evaluation.vector_encoders import JoinedEncoder, VectorEncoder
from distilbench.models.embed import batch_rule
from distilbench.models.sources import Joined, Source, StoredVectors
from distilbench.records.record import dump_json
from distilbench.study.sections.training import Precision

RESULT_FILE, MTEB_FILE = "score.json", "mteb.json"
EXAMPLES_FILE, RANKED_FILE, JUDGED_FILE = "examples.parquet", "ranked.parquet", "judged.parquet"


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


def score(model: Source, tasks: list[Task], cache: Path, device: str, precision: Precision = "fp32") -> list[TaskScore]:
    """Score a model folder, or stored vectors, on tasks.

    What lies in the cache under the same key is not computed again. Raises `CollapseError` for vectors, or a main
    score, that say nothing, and `UserError` for a model that changes meanwhile, or texts without a stored vector.
    Global random state is left as it was.
    """
    hashes = model.hashes()
    encoder = functools.cache(lambda: _encoder(model, hashes, cache, device, precision))

    def score_on(task: Task) -> TaskScore:
        key = score_key(hashes, task, device, precision)
        folder = find_or_make(
            cache / "scores" / key,
            lambda path: _write(path, evaluate(encoder(), task)),
            f"the score of {model.name} on {task.name}",
        )
        return _read(task, key, folder)

    with preserved_rng():
        return [score_on(task) for task in tasks]


def _encoder(model: Source, hashes: dict[str, str], cache: Path, device: str, precision: Precision) -> MtebEncoder:
    name, revision = key_of(name=model.name), key_of(precision=precision, **hashes)
    if isinstance(model, Joined):
        members = [_encoder(member, member.hashes(), cache, device, precision) for member in model.members]
        return JoinedEncoder(members, model.weights, name, revision)
    if isinstance(model, StoredVectors):
        return VectorEncoder(model, name, revision)
    loaded, tokenizer = in_precision(model.load().to(device), precision), load_tokenizer(model.folder)
    if model.hashes() != hashes:
        raise UserError(f"the model in {model.folder} was changed while it was read; run the same command again")
    tokens = TokenCache(cache, hashes["tokenizer"])
    return BenchEncoder(loaded, tokenizer, name, revision, tokens)


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


def _write(path: Path, evaluated: Evaluated) -> None:
    dump_json(evaluated.metrics, path / RESULT_FILE)
    evaluated.result.to_disk(path / MTEB_FILE)
    dump_json(_nulls_for_nan(json.loads((path / MTEB_FILE).read_text(encoding="utf-8"))), path / MTEB_FILE)
    for name in (EXAMPLES_FILE, RANKED_FILE, JUDGED_FILE):
        getattr(evaluated, Path(name).stem).to_parquet(path / name, index=False)


def _nulls_for_nan(value: Any) -> Any:
    """mteb's secondary metrics are NaN where they are undefined, as nAUC is when every query scores alike."""
    if isinstance(value, dict):
        return {key: _nulls_for_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nulls_for_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
