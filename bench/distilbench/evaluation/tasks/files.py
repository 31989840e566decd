"""Task data in files: the Hub's layout of a mirror, a BEIR folder, and tables of pairs; every fault is a `ValueError`.

<folder>/corpus.parquet, queries.parquet, qrels/<split>.parquet     or .jsonl, .tsv, .csv, and these with .gz
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset

from distilbench.core.errors import shown
from distilbench.core.tables import (
    SURROGATES,
    as_numbers,
    check_rows,
    check_separator,
    json_frame,
    opened,
    place_of,
    rows,
)
from distilbench.data.checks.parquet_bounds import opened_parquet
from distilbench.data.hub_folder import ENDINGS, PACKED, ending_of

COLUMNS = ("_id", "id", "text", "title", "query-id", "corpus-id", "score")
"""Of documents, queries and judgements."""
LISTS = ("query", "positive", "negative")
"""Of a table of queries with their documents."""
HIGHEST_GRADE = 2**31 - 1
READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".parquet": lambda path: _parquet(path),
    ".jsonl": lambda path: json_frame(path, COLUMNS, precise_float=True),
    ".tsv": lambda path: _text_table(path, tabs=True),
    ".csv": lambda path: _text_table(path, tabs=False),
}

Table = tuple[pd.DataFrame, str]
"""With the name of the file that it is from."""


def read_table(path: Path) -> pd.DataFrame:
    """A table as it stands in a file. Raises `ValueError` for one that is damaged."""
    try:
        return READERS[ending_of(path).removesuffix(PACKED)](path)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path.name}: {error}") from None


def _parquet(path: Path) -> pd.DataFrame:
    with opened_parquet(path) as file:
        file.check_fits(file.names)
    return pd.read_parquet(path)


def _text_table(path: Path, tabs: bool) -> pd.DataFrame:
    """A table all of whose values are text; of a row that is too short, the last are missing."""
    check_rows(path, tabs)
    with opened(path) as stream:
        (_, header), *found = [*rows(stream, tabs)] or [(1, [])]
    for line, row in found:
        if any(map(SURROGATES.search, row)):
            raise ValueError(f"line {line} is not valid UTF-8; save the file as UTF-8")
    for column in header:
        if column in COLUMNS:
            place_of(column, header)
    return pd.DataFrame([row + [None] * (len(header) - len(row)) for _, row in found if row], columns=header)


def has_corpus(folder: Path) -> bool:
    """Whether documents and judgements lie in a folder as `retrieval_split` reads them."""
    return (folder / "qrels").is_dir() and any((folder / f"corpus{ending}").is_file() for ending in ENDINGS)


def retrieval_split(folder: Path, split: str) -> dict[str, Any]:
    """Corpus, queries with judgements, and the judgements of a split, as mteb's retrieval tasks hold them."""
    return retrieval_data(_read(folder / "qrels", split), _read(folder, "queries"), _read(folder, "corpus"))


def own_retrieval_split(folder: Path, split: str) -> dict[str, Any]:
    """As `retrieval_split`, of a user's own folder. Raises `ValueError` for what official tasks must be scored with.

    Which are texts that are none, judgements that contradict each other, and those of queries that are not there.
    """
    for place in (folder / "qrels" / split, folder / "queries", folder / "corpus"):
        _check_single(place)
    qrels, queries, corpus = _read(folder / "qrels", split), _read(folder, "queries"), _read(folder, "corpus")
    for table in (queries, corpus):
        _check_texts(_checked(table, ("id", "text")), table[1])
    _check_filled(_checked(queries, ("id", "text")), queries[1], "text")
    data = retrieval_data(qrels, queries, corpus)
    _check_judgements(qrels, queries)
    return data


def retrieval_data(qrels: Table, queries: Table, corpus: Table) -> dict[str, Any]:
    """As `retrieval_split`, from the three tables."""
    judged, asked = _checked(qrels, ("query-id", "corpus-id", "score")), _checked(queries, ("id", "text"))
    relevant = {
        str(query): dict(zip(group["corpus-id"], group["score"], strict=True))
        for query, group in judged.groupby("query-id", sort=False)
    }
    if judged.empty:
        raise ValueError(f"qrels/{qrels[1]} has no rows")
    asked = asked[asked["id"].isin(relevant)]
    if asked.empty:
        raise ValueError(f"no query of qrels/{qrels[1]} is in {queries[1]}")
    return {
        "corpus": Dataset.from_pandas(_checked(corpus, ("id", "text")), preserve_index=False),
        "queries": Dataset.from_pandas(asked, preserve_index=False),
        "relevant_docs": relevant,
        "top_ranked": None,
    }


def ranked_candidates(table: Table) -> dict[str, list[str]]:
    """Query -> the documents that are to be ranked for it."""
    frame, name = table
    check_table(frame, name, ("query-id", "corpus-ids"))
    rows = zip(frame["query-id"], frame["corpus-ids"], strict=True)
    return {str(query): [str(document) for document in documents] for query, documents in rows}


def with_instructions(queries: Dataset, table: Table) -> Dataset:
    """Queries with what is asked of each. Raises `ValueError` where there is none for one of them."""
    frame, name = table
    check_table(frame, name, ("query-id", "instruction"))
    texts = dict(zip(frame["query-id"].astype(str), frame["instruction"], strict=True))
    if missing := [query for query in queries["id"] if query not in texts]:
        raise ValueError(f"{name} has no instruction for the query {missing[0]!r}")
    return queries.add_column("instruction", [texts[query] for query in queries["id"]])


def is_of_lists(table: Table) -> bool:
    """Whether each row is a query with lists of its documents, as data sets for reranking once were."""
    return set(LISTS) <= set(table[0].columns)


def candidate_lists(table: Table, split: str) -> dict[str, Any]:
    """As `retrieval_split`, from such rows, with the ids and in the order that mteb gives them.

    Rows without a positive or without a negative document are left out, as they rank nothing.
    """
    frame, name = table
    check_table(frame, name, LISTS)
    whole = frame[(frame["positive"].map(len) > 0) & (frame["negative"].map(len) > 0)]
    queries, corpus, relevant = [], [], dict[str, dict[str, int]]()
    for number, row in enumerate(whole.to_dict("records")):
        query = f"{split}_query{number}"
        queries.append({"id": query, "text": row["query"]})
        relevant[query] = {}
        # Of documents with one score, mteb takes these names in order.
        for grade, stem, column in ((1, "apositive", "positive"), (0, "negative", "negative")):
            for place, text in enumerate(row[column]):
                document = f"{stem}_{query}_{place:05d}"
                corpus.append({"title": "", "text": text, "id": document})
                relevant[query][document] = grade
    if not queries:
        raise ValueError(f"{name} has no row with positive and negative documents")
    return {
        "corpus": Dataset.from_list(corpus),
        "queries": Dataset.from_list(queries),
        "relevant_docs": relevant,
        "top_ranked": {query: list(documents) for query, documents in relevant.items()},
    }


def check_table(frame: pd.DataFrame, name: str, columns: tuple[str, ...]) -> None:
    """Raise `ValueError` for what would fail in the middle of scoring, or make every score NaN."""
    for column in columns:
        if column not in frame.columns:
            try:
                check_separator(list(frame.columns))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            raise ValueError(f"{name} has no column {column!r}")
        values = as_numbers(frame[column]) if column == "score" else frame[column]
        bad = values.isna() | values.isin([float("inf"), -float("inf")])
        if bad.any():
            raise ValueError(f"{name} row {int(bad.argmax()) + 1} has no usable value under {column!r}")


def check_types(frame: pd.DataFrame, name: str, columns: Iterable[str]) -> None:
    """Raise `ValueError` for a column of texts that holds numbers, dates or the like."""
    for column in columns:
        if len(frame) and frame[column].dtype.kind != "O":
            raise ValueError(f"{name} row 1 has {shown(frame[column].tolist()[0])} under {column!r}, which is no text")


def _read(folder: Path, stem: str) -> Table:
    for ending in ENDINGS:
        path = folder / f"{stem}{ending}"
        if path.is_file():
            return read_table(path), path.name
    raise ValueError(f"{stem}{' or '.join(READERS)} is missing")


def _checked(table: Table, columns: tuple[str, ...]) -> pd.DataFrame:
    frame, name = table
    if {"_id", "id"} <= set(frame.columns):
        raise ValueError(f"{name} has the columns '_id' and 'id', and one of them is the id; leave it alone")
    frame = frame.rename(columns={"_id": "id"})
    check_table(frame, name, columns)
    check_types(frame, name, [column for column in columns if column == "text"])
    ids = [column for column in columns if column.endswith("id")]
    frame = frame.astype({column: "int64" for column in ids if _is_whole(frame[column])}).astype(
        dict.fromkeys(ids, str)
    )
    if "id" in columns:
        if (again := frame["id"].duplicated()).any():
            row = int(again.argmax())
            raise ValueError(f"{name} row {row + 1} has the id {frame['id'].iloc[row]!r}, and so has an earlier row")
        if "title" in frame.columns and frame["title"].isna().any():
            # mteb knows a title that is empty, and none that is missing.
            frame["title"] = frame["title"].astype(object).where(frame["title"].notna(), "")
        return frame[[column for column in frame.columns if column != "metadata"]]
    grades = as_numbers(frame["score"])
    if (bad := (grades % 1 != 0) | (grades.abs() > HIGHEST_GRADE)).any():
        row = int(bad.argmax())
        raise ValueError(
            f"{name} row {row + 1} has the score {shown(frame['score'].tolist()[row])}; a judgement is a whole number, "
            f"at most {HIGHEST_GRADE}"
        )
    return frame.assign(score=grades.astype(int))


def _is_whole(ids: pd.Series) -> bool:
    """Whether ids are whole numbers that were stored as others, as those of a column with gaps are."""
    return ids.dtype.kind == "f" and bool((ids % 1 == 0).all() and (ids.abs() < 2**53).all())


def _check_single(place: Path) -> None:
    there = [name for ending in ENDINGS if (name := f"{place.name}{ending}") and (place.parent / name).is_file()]
    if len(there) > 1:
        raise ValueError(f"{' and '.join(there)} are both there; leave one")


def _check_texts(frame: pd.DataFrame, name: str) -> None:
    for column in ("id", "text", "title"):
        for row, value in enumerate(frame.get(column, ()), start=1):
            if not isinstance(value, str):
                raise ValueError(f"{name} row {row} has {shown(value)} under {column!r}, which is no text")
            if SURROGATES.search(value):
                raise ValueError(f"{name} row {row} is not valid UTF-8 under {column!r}; save the file as UTF-8")
            if "\0" in value:
                raise ValueError(f"{name} row {row} holds a NUL byte under {column!r}")
    _check_filled(frame, name, "id")


def _check_filled(frame: pd.DataFrame, name: str, column: str) -> None:
    """Documents may be empty, as some of the published collections are: ids and queries may not."""
    if (bad := frame[column].str.strip() == "").any():
        raise ValueError(f"{name} row {int(bad.argmax()) + 1} has no usable value under {column!r}")


def _check_judgements(qrels: Table, queries: Table) -> None:
    judged, grades = _checked(qrels, ("query-id", "corpus-id", "score")), dict[tuple[str, str], int]()
    asked = set(_checked(queries, ("id", "text"))["id"])
    if not (judged["score"] > 0).any():
        raise ValueError(f"qrels/{qrels[1]} has no score above 0, so that there is nothing to find")
    rows_of = zip(judged["query-id"], judged["corpus-id"], judged["score"], strict=True)
    for row, (query, document, grade) in enumerate(rows_of, start=1):
        earlier = grades.setdefault((query, document), grade)
        if earlier != grade:
            raise ValueError(
                f"qrels/{qrels[1]} row {row} has the score {grade} for the query-id {query!r} and the corpus-id "
                f"{document!r}, and an earlier row {earlier}"
            )
        if query not in asked:
            raise ValueError(f"qrels/{qrels[1]} row {row} has the query-id {query!r}, which is not in {queries[1]}")
