"""Which pairs of texts a task is scored on, and which of them are also elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

import pandas as pd

from distilbench.evaluation.tasks.by_name import Task
from distilbench.evaluation.tasks.contamination import normalised
from distilbench.evaluation.tasks.content import example_texts
from distilbench.evaluation.tasks.subsets import within

Pair = tuple[str, str]


def shared_pairs(task: Task, pairs: Iterable[Pair]) -> list[Pair]:
    """Those of some pairs that the task holds too, in either order, by their letters and digits in lower case.

    The same pair is there as a table has it and as a tokeniser left it: "don't" and "do n't".
    """
    scored = {_normalised(pair) for pair in _pairs(task)}
    return [pair for pair in pairs if _normalised(pair) in scored]


def pairs_seen(tasks: Sequence[Task], pairs: Sequence[Pair]) -> dict[str, int]:
    """Task -> how many of its pairs are among some pairs to train on; only tasks with any."""
    trained = {_normalised(pair) for pair in pairs}
    counts = {task.name: sum(_normalised(pair) in trained for pair in _pairs(task)) for task in tasks}
    return {name: count for name, count in counts.items() if count}


def texts_of(tasks: Sequence[Task]) -> tuple[list[str], list[str]]:
    """The texts of tables and the queries of some tasks, and the documents of those that have some."""
    short: list[str] = []
    documents: list[str] = []
    for task in tasks:
        for _, _, data in task.splits():
            if task.is_retrieval:
                short += data["queries"]["text"]
                documents += data["corpus"]["text"]
            else:
                short += [text for text, _ in task.tables.texts(task.instance, data)]
    return short, documents


def text_numbers(tasks: Iterable[Task]) -> pd.DataFrame:
    """Which texts the examples of tasks are made of: task, split, example, first and second text, data_sha256.

    Texts are numbers, equal ones where texts are equal by their letters and digits, in all tasks. Of a query, or of two
    equal texts, the second number is one that goes with the first.
    """
    rows = [
        (task.name, *place, *_numbers(*texts), task.data_sha256)
        for task in tasks
        for place, texts in _texts_of_examples(task).items()
    ]
    frame = pd.DataFrame(rows, columns=["task", "split", "example", "first", "second", "data_sha256"])
    return frame.astype({"first": "int64", "second": "int64"})


def _texts_of_examples(task: Task) -> dict[tuple[str, str], tuple[str, str | None]]:
    """(split, example) -> its pair of texts, or its one text; empty where the examples are repeated experiments."""
    pairs: dict[tuple[str, str], tuple[str, str | None]] = {}
    for subset, split, data in () if task.is_retrieval else task.splits():
        for row, pair in enumerate(task.tables.pairs(task.instance, data)):
            pairs[within(subset, split), within(subset, str(row))] = pair
    return pairs or {place: (text, None) for place, text in example_texts(task).items()}


def _numbers(first: str, second: str | None) -> tuple[int, int]:
    one, other = (None if text is None else _one_text(text) for text in (first, second))
    return _number(f"{one}"), _number(f"\0{one}" if other is None or other == one else other)


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True)


def _one_text(text: str) -> str:
    # Of a text without letters and digits, its signs are all there is to tell it by.
    return normalised(text) or " ".join(text.split())


def _normalised(pair: Pair) -> frozenset[str]:
    return frozenset(map(_one_text, pair))


def _pairs(task: Task) -> Iterator[Pair]:
    """Pairs of a task of pairs; of a retrieval task, queries with what is relevant to them."""
    for _, _, data in task.splits():
        if not task.is_retrieval:
            yield from task.tables.pairs(task.instance, data)
            continue
        queries = dict(zip(data["queries"]["id"], data["queries"]["text"], strict=True))
        documents = dict(zip(data["corpus"]["id"], data["corpus"]["text"], strict=True))
        for query, relevant in data["relevant_docs"].items():
            yield from (
                (queries[query], documents[document])
                for document in relevant
                # Official judgements may name what is not there.
                if query in queries and document in documents
            )
