"""Which texts the examples of a study's tasks are made of, as numbers: equal ones for equal texts, and no text itself.

<study>/texts.parquet    task, split, example, first, second, data_sha256; in its metadata a sum over these
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from distilbench.core.bounds import is_there
from distilbench.core.errors import UserError

TEXTS_FILE = "texts.parquet"
SUM = b"sha256"
COLUMNS = ["task", "split", "example", "first", "second", "data_sha256"]


def read_example_texts(folder: Path) -> pd.DataFrame:
    """The columns `COLUMNS`, empty where the study has no such file. Raises `UserError` for a damaged one."""
    path = folder / TEXTS_FILE
    try:
        if not is_there(path):
            return pd.DataFrame(columns=COLUMNS)
        table = pq.read_table(path)
        frame: pd.DataFrame = table.to_pandas()
        lacking = [name for name in COLUMNS if name not in frame]
        if lacking:
            raise ValueError(f"it has no column {lacking[0]}")
        if not all(frame[name].dtype == "int64" for name in ("first", "second")):
            raise ValueError("its texts are no whole numbers")
        if frame.duplicated(["task", "split", "example"]).any():
            raise ValueError("an example stands in it twice")
        if (table.schema.metadata or {}).get(SUM) != _sum(frame[COLUMNS]):
            raise ValueError("it is not as it was written")
    except (OSError, ValueError, LookupError, TypeError, NotImplementedError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete it and run its study again, which writes it"
        ) from error
    return frame[COLUMNS]


def of_data(texts: pd.DataFrame, data: Collection[tuple[str, str]]) -> pd.DataFrame:
    """The examples of tasks whose data have one of these hashes: (task, sha256).

    Of other data, an example of the same name is another.
    """
    return texts[[place in data for place in zip(texts["task"], texts["data_sha256"], strict=True)]]


def write_example_texts(folder: Path, frame: pd.DataFrame) -> None:
    """Write the examples of some tasks, beside those of other tasks that were written before."""
    before = read_example_texts(folder)
    kept = before[~before["task"].isin(frame["task"].unique())]
    whole = pd.concat([kept, frame[COLUMNS]], ignore_index=True) if len(kept) else frame[COLUMNS]
    folder.mkdir(parents=True, exist_ok=True)
    # A reader sees the old file or the new one.
    unfinished = folder / f".{TEXTS_FILE}.{os.getpid()}"
    table = pa.Table.from_pandas(whole, preserve_index=False)
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), SUM: _sum(whole)}), unfinished)
    unfinished.replace(folder / TEXTS_FILE)


def _sum(frame: pd.DataFrame) -> bytes:
    return hashlib.sha256(frame.to_csv(index=False).encode("utf-8", "surrogatepass")).hexdigest().encode()
