"""What of a task's data is scored: its hash, and signs that it is not what a published figure was made from."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from mteb.abstasks.sts import AbsTaskSTS
from scipy.stats import spearmanr

from distilbench.core.errors import UserError
from distilbench.core.machine import MIRROR_VARIABLE
from distilbench.evaluation.task_types.kinds import is_of, whole
from distilbench.evaluation.tasks.by_name import Task, load_task
from distilbench.evaluation.tasks.subsets import within
from distilbench.records.published import PublishedTask
from distilbench.records.record import Record

OF_SUBQUERIES = "max_over_subqueries_"
"""Begins a metric of queries of several parts, of which the best counts for each document."""
WORD = re.compile(r"\w+")
SIGNIFICANT = 3.0
"""Standard errors from which on a correlation with the overlap of words is no chance."""


def content_sha256(task: Task) -> str:
    """Hash of the texts, scores and judgements alone: equal for one data set from the Hub and from a mirror."""
    digest = hashlib.sha256()
    for subset, split, data in task.splits():
        digest.update(f"{subset}/{split}\n".encode())
        for part in _scored(task, data):
            digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


def _scored(task: Task, data: Any) -> list[Any]:
    if is_of(task.instance, AbsTaskSTS):
        first, second = task.instance.column_names
        return [list(data[first]), list(data[second]), [float(score) for score in data["score"]]]
    if not task.is_retrieval:
        return [whole(data, column) for column in task.tables.columns(task.instance)]
    texts = [
        {
            name: [table[column][row] for column in ("title", "text") if column in table.column_names]
            for row, name in ids
        }
        for table, ids in ((data[kind], list(enumerate(data[kind]["id"]))) for kind in ("corpus", "queries"))
    ]
    return [*texts, data["relevant_docs"]]


def fault(task: Task, published: PublishedTask) -> str | None:
    """What is plainly wrong with a task's data, in words, or None."""
    examples = sum(len(data["relevant_docs"]) if task.is_retrieval else len(data) for *_, data in task.splits())
    are_examples = task.is_retrieval or is_of(task.instance, AbsTaskSTS)
    if are_examples and published.examples not in (None, examples):
        return (
            f"the data are others: {task.name} has {examples} examples here, the published figure {published.examples}"
        )
    if is_of(task.instance, AbsTaskSTS) and not _labels_fit(task):
        return (
            f"the scores of {task.name} have nothing to do with its pairs (no correlation with the words that they "
            "share): the column of scores is likely shuffled"
        )
    return None


def is_other(task: Task, published: PublishedTask) -> bool:
    """Whether a task's data are not those with which the published figure was found again, where that is known."""
    return published.content is not None and content_sha256(task) != published.content


def _labels_fit(task: Task) -> bool:
    """Whether pairs that share more words have higher scores, as in every set of graded pairs."""
    first, second = task.instance.column_names
    gold = [float(score) for *_, data in task.splits() for score in data["score"]]
    overlap = [
        len(a & b) / max(1, len(a | b))
        for *_, data in task.splits()
        for a, b in zip(map(_words, whole(data, first)), map(_words, whole(data, second)), strict=True)
    ]
    if np.ptp(overlap) == 0:
        return True
    return bool(float(spearmanr(overlap, gold).statistic) * np.sqrt(len(gold)) > SIGNIFICANT)


def _words(text: str) -> set[str]:
    return set(WORD.findall(text.lower()))


def texts_of_tasks(record: Record, tasks: list[str], mirror: str | None) -> dict[tuple[str, str, str], str]:
    """(task, split, example) -> its text, for those tasks of a record whose data can be had here by name.

    Raises `UserError` when the data here are not those that the record was made with.
    """
    found = {}
    folder = mirror or os.environ.get(MIRROR_VARIABLE)
    for name in tasks:
        task = load_task(name, Path(folder) if folder else None, record.limit)
        if task.data_sha256 != record.tasks[name]["data_sha256"]:
            raise UserError(f"the data of {name} here are not those that the runs were scored on; leave --texts out")
        found.update({(name, *place): text for place, text in example_texts(task).items()})
    return found


def whole_query(part: str) -> str:
    """The query that a part is of, where mteb names parts `<query>_<part>`."""
    return part.rpartition("_")[0]


def example_texts(task: Task) -> dict[tuple[str, str], str]:
    """(split, example) -> the texts of a pair, or a query, as the per-example store names them.

    Empty where the examples are repeated experiments.
    """
    found = {}
    for subset, split, data in task.splits():
        place = within(subset, split)
        if task.is_retrieval:
            by_parts, queries = task.main_metric.startswith(OF_SUBQUERIES), dict[str, list[str]]()
            for name, text in zip(data["queries"]["id"], data["queries"]["text"], strict=True):
                queries.setdefault(whole_query(str(name)) if by_parts else str(name), []).append(text)
            found.update({(place, within(subset, name)): " | ".join(parts) for name, parts in queries.items()})
        else:
            texts = task.tables.shown(task.instance, data)
            found.update({(place, within(subset, str(row))): text for row, text in enumerate(texts)})
    return found
