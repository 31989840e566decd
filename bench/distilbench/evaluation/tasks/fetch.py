"""Official task data into a mirror, in the layout that `load_task` reads: whole, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pandas as pd

from distilbench.core.errors import UserError
from distilbench.core.sealed import write_sealed
from distilbench.evaluation.tasks.by_name import Task, load_task
from distilbench.evaluation.tasks.mirror import TRANSFORMED
from distilbench.evaluation.tasks.subsets import WHOLE
from distilbench.records.record import SOURCE_FILE, dump_json


def store_task(task: Task, mirror: Path) -> None:
    """Leave the data of a loaded official task in `mirror`, with their licence and hashes.

    What was written is read again before it gets its place, and must be the same data. Raises `UserError` for data that
    the layout of a mirror does not hold.
    """
    path = Path(task.instance.metadata.dataset["path"])
    mirror.mkdir(parents=True, exist_ok=True)
    staged = Path(mkdtemp(dir=mirror, prefix=".prefetch."))
    try:
        write_sealed(staged / path, lambda folder: _write(task, folder))
        if _data_sha256_in(staged, task.name) != task.data_sha256:
            raise UserError(
                f"the data of task {task.name} do not fit a mirror (a list of candidates, or columns that mteb gives "
                "other names); use the Hub cache"
            )
        (mirror / path).parent.mkdir(parents=True, exist_ok=True)
        (staged / path).replace(mirror / path)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _data_sha256_in(mirror: Path, name: str) -> str | None:
    """Hash of a task's data as a mirror gives them; None where it cannot."""
    try:
        return load_task(name, mirror).data_sha256
    except UserError:
        return None


def _write(task: Task, folder: Path) -> None:
    facts = task.instance.metadata
    for subset, split, data in task.splits_read():
        place = folder if subset == WHOLE else folder / subset
        place.mkdir(exist_ok=True)
        if isinstance(data, dict):
            _write_retrieval(data, split, place)
        else:
            data.to_pandas().to_parquet(place / f"{split}.parquet", index=False)
    source = {"hub": facts.dataset["path"], "revision": facts.dataset["revision"], "licence": facts.license}
    if not task.is_retrieval:
        source[TRANSFORMED] = True
    dump_json({"task": task.name, **source, "data_sha256": task.data_sha256}, folder / SOURCE_FILE)


def _write_retrieval(data: dict[str, Any], split: str, folder: Path) -> None:
    (folder / "qrels").mkdir(exist_ok=True)
    for name in ("corpus", "queries"):
        data[name].to_pandas().to_parquet(folder / f"{name}.parquet", index=False)
    judged = [
        {"query-id": query, "corpus-id": document, "score": score}
        for query, relevant in data["relevant_docs"].items()
        for document, score in relevant.items()
    ]
    pd.DataFrame(judged).to_parquet(folder / "qrels" / f"{split}.parquet", index=False)
