"""Task data in files: the Hub's layout of a mirror, a BEIR folder, and tables of pairs; every fault is a `ValueError`.

<folder>/corpus.parquet, queries.parquet, qrels/<split>.parquet     or .jsonl, .tsv, .csv
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset

READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".parquet": pd.read_parquet,
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False),
    ".tsv": lambda path: pd.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, dtype=str, keep_default_na=False),
    ".csv": lambda path: pd.read_csv(path, dtype=str, keep_default_na=False),
}


def read_split(folder: Path, split: str) -> pd.DataFrame:
    """A split of pairs as the mirror has it."""
    return _read(folder, split, (".parquet",))[0]


def retrieval_split(folder: Path, split: str) -> dict[str, Any]:
    """Corpus, queries with judgements, and the judgements of a split, as mteb's retrieval tasks hold them."""
    qrels, judged_in = _table(folder / "qrels", split, ("query-id", "corpus-id", "score"))
    queries, asked_in = _table(folder, "queries", ("id", "text"))
    corpus, _ = _table(folder, "corpus", ("id", "text"))
    relevant = {
        str(query): dict(zip(group["corpus-id"], group["score"], strict=True))
        for query, group in qrels.groupby("query-id", sort=False)
    }
    queries = queries[queries["id"].isin(relevant)]
    if queries.empty:
        raise ValueError(f"no query of qrels/{judged_in} is in {asked_in}")
    return {
        "corpus": Dataset.from_pandas(corpus, preserve_index=False),
        "queries": Dataset.from_pandas(queries, preserve_index=False),
        "relevant_docs": relevant,
        "top_ranked": None,
    }


def check_table(frame: pd.DataFrame, name: str, columns: tuple[str, ...]) -> None:
    """Raise `ValueError` for what would fail in the middle of scoring, or make every score NaN."""
    for column in columns:
        if column not in frame.columns:
            raise ValueError(f"{name} has no column {column!r}")
        values = pd.to_numeric(frame[column], errors="coerce") if column == "score" else frame[column]
        bad = values.isna() | values.isin([float("inf"), -float("inf")])
        if bad.any():
            raise ValueError(f"{name} row {int(bad.argmax()) + 1} has no usable value under {column!r}")


def _read(folder: Path, stem: str, endings: tuple[str, ...]) -> tuple[pd.DataFrame, str]:
    """A table, and the name of the file that it is from."""
    for ending in endings:
        path = folder / f"{stem}{ending}"
        if path.is_file():
            try:
                return READERS[ending](path), path.name
            except ValueError as error:
                raise ValueError(f"{path.name}: {error}") from None
    raise ValueError(f"{stem}{' or '.join(endings)} is missing")


def _table(folder: Path, stem: str, columns: tuple[str, ...]) -> tuple[pd.DataFrame, str]:
    frame, name = _read(folder, stem, tuple(READERS))
    frame = frame.rename(columns={"_id": "id"})
    check_table(frame, name, columns)
    frame = frame.astype({column: str for column in columns if column.endswith("id")})
    if "id" in columns:
        if frame["id"].duplicated().any():
            raise ValueError(f"{name} has the id {frame.loc[frame['id'].duplicated(), 'id'].iloc[0]!r} twice")
        return frame[[column for column in frame.columns if column != "metadata"]], name
    frame["score"] = pd.to_numeric(frame["score"])
    if (frame["score"] % 1 != 0).any():
        raise ValueError(f"{name} has a judgement that is no whole number")
    return frame.astype({"score": int}), name
