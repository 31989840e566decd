"""Which pairs of texts a task is scored on, and which of them are also elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from distilbench.evaluation.tasks.by_name import Task
from distilbench.evaluation.tasks.contamination import normalised

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


def _normalised(pair: Pair) -> frozenset[str]:
    # Of a text without letters and digits, its signs are all there is to tell it by.
    return frozenset(normalised(text) or " ".join(text.split()) for text in pair)


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
