"""Official task data into a mirror, in the layout that `load_task` reads: whole, or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pandas as pd

from distilbench.core.errors import UserError
from distilbench.core.sealed import SUMS_FILE, write_folder_atomically, write_sealed
from distilbench.evaluation.tasks.by_name import Task, load_task
from distilbench.evaluation.tasks.mirror import TRANSFORMED
from distilbench.evaluation.tasks.subsets import WHOLE, within
from distilbench.records.record import SOURCE_FILE, dump_json

TABLES = ("corpus", "queries")


def store_task(task: Task, mirror: Path) -> None:
    """Leave the data of a loaded official task in `mirror`, with their licence and hashes.

    Other subsets and splits of it that were fetched before stay. What was written is read again before it gets its
    place, and must be the same data. Raises `UserError` for data that the layout of a mirror does not hold.
    """
    path = Path(task.instance.metadata.dataset["path"])
    mirror.mkdir(parents=True, exist_ok=True)

    def write(folder: Path) -> None:
        if (mirror / path).is_dir():
            _copy(mirror / path, folder)
            (folder / SUMS_FILE).unlink()
        _write(task, folder)

    staged = Path(mkdtemp(dir=mirror, prefix=".prefetch."))
    try:
        write_sealed(staged / path, write)
        if (wrong := _changed(task, staged)) is not None:
            raise UserError(f"the data of task {task.name} do not fit a mirror ({wrong}); use the Hub cache")
        write_folder_atomically(mirror / path, lambda folder: _copy(staged / path, folder))
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def was_fetched(folder: Path) -> bool:
    """Whether a task's folder in a mirror is what `store_task` left."""
    try:
        said = json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and TRANSFORMED in said


def _copy(folder: Path, to: Path) -> None:
    shutil.copytree(folder, to, dirs_exist_ok=True)


def _changed(task: Task, mirror: Path) -> str | None:
    """In what a task's data in a mirror are not what they were; None where they are the same."""
    try:
        found = load_task(task.name, mirror)
    except UserError as error:
        return str(error).replace(str(mirror), "").partition("; make it again")[0]
    if found.data_sha256 == task.data_sha256:
        return None
    for (subset, split, before), (*_, after) in zip(task.splits_read(), found.splits_read(), strict=True):
        tables = [(before[name], after[name], name) for name in TABLES] if isinstance(before, dict) else []
        for one, other, name in tables or [(before, after, split)]:
            if set(one.column_names) != set(other.column_names):
                columns = sorted(set(one.column_names) ^ set(other.column_names))
                return f"{within(subset, name)} would lose the column {columns[0]!r}"
    return "read again, they are others"


def _write(task: Task, folder: Path) -> None:
    facts = task.instance.metadata
    for subset, split, data in task.splits_read():
        if isinstance(data, dict):
            _write_retrieval(data, subset, split, folder)
        else:
            place = folder if subset == WHOLE else folder / subset
            _write_table(data.to_pandas(), place / f"{split}.parquet")
    source = {"hub": facts.dataset["path"], "revision": facts.dataset["revision"], "licence": facts.license}
    facts_of = {"task": task.name, **source, TRANSFORMED: True, "data_sha256": task.data_sha256}
    dump_json(facts_of, folder / SOURCE_FILE)


def _write_retrieval(data: dict[str, Any], subset: str, split: str, folder: Path) -> None:
    """Each table of a split in a folder of its own, as mteb has them on the Hub: splits may differ in documents."""
    judged = [
        {"query-id": query, "corpus-id": document, "score": score}
        for query, relevant in data["relevant_docs"].items()
        for document, score in relevant.items()
    ]
    tables = {name: data[name].to_pandas() for name in TABLES} | {"qrels": pd.DataFrame(judged)}
    if data.get("top_ranked") is not None:
        rows = [{"query-id": query, "corpus-ids": documents} for query, documents in data["top_ranked"].items()]
        tables["top_ranked"] = pd.DataFrame(rows)
    for name, table in tables.items():
        _write_table(table, folder / (name if subset == WHOLE else f"{subset}-{name}") / f"{split}.parquet")


def _write_table(table: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path, index=False)
