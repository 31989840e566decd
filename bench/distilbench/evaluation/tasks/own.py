"""Tasks made from the user's own files: pairs with scores, and BEIR folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS

from distilbench.core.errors import UserError, one_of
from distilbench.core.mirror import below
from distilbench.data.hub_folder import ending_of
from distilbench.data.text import MIRROR_PREFIX, check_fits, numbers, read_column, resolve
from distilbench.evaluation.tasks.embedded import metadata
from distilbench.evaluation.tasks.files import own_retrieval_split
from distilbench.models.finding import local_folder
from distilbench.study.sections.texts import OwnTask


def own_task(spec: OwnTask, mirror: Path | None) -> Any:
    """A loaded mteb task: retrieval where the source is a folder, STS where it is a table.

    Raises `UserError` for files that are missing or hold what cannot be scored.
    """
    folder = _folder(spec, mirror)
    return _retrieval(spec, folder) if folder is not None else _sts(spec, mirror)


def _folder(spec: OwnTask, mirror: Path | None) -> Path | None:
    if spec.source.startswith(MIRROR_PREFIX):
        name = spec.source.removeprefix(MIRROR_PREFIX)
        path = below(mirror, name, f"tasks.{spec.name}.source") if mirror is not None else None
        return path if path is not None and path.is_dir() else None
    return local_folder(spec.source)


def _sts(spec: OwnTask, mirror: Path | None) -> Any:
    section = f"tasks.{spec.name}"
    path = resolve(spec.source, mirror, section)
    *texts, score = spec.columns
    check_fits(path, [*texts, score], section)
    first, second = (list(read_column(path, column, section, as_written=True)) for column in texts)
    gold = numbers(path, score, section, key="columns")
    if len(set(gold)) < 2:
        raise UserError(f"{section}.source: {path} has no two pairs with different scores; there is nothing to rank")
    task = _make(AbsTaskSTS, spec, "Pairs of the user's own, with scores.", "STS", "cosine_spearman")
    pairs = Dataset.from_dict({"sentence1": first, "sentence2": second, "score": gold})
    task.dataset = DatasetDict({spec.split: pairs})
    task.data_loaded = True
    return task


def _retrieval(spec: OwnTask, folder: Path) -> Any:
    qrels = [path for path in (folder / "qrels").glob("*.*") if ending_of(path)]
    splits = sorted({path.name.removesuffix(ending_of(path)) for path in qrels})
    if spec.split not in splits:
        raise UserError(f"tasks.{spec.name}.split: {folder}/qrels: {one_of('split', spec.split, splits)}")
    try:
        data = own_retrieval_split(folder, spec.split)
    except (OSError, ValueError) as error:
        raise UserError(f"tasks.{spec.name}.source: {folder}: {str(error).splitlines()[0]}; mend the folder") from None
    judged = {document for relevant in data["relevant_docs"].values() for document in relevant}
    if missing := sorted(judged - set(data["corpus"]["id"])):
        raise UserError(
            f"tasks.{spec.name}.source: {folder}: {len(missing)} judged documents are not in the corpus, such as "
            f"{missing[0]!r}; mend the folder"
        )
    task = _make(AbsTaskRetrieval, spec, "Queries and documents of the user's own.", "Retrieval", "ndcg_at_10")
    task.ignore_identical_ids = spec.ignore_identical_ids
    task.dataset = {"default": {spec.split: data}}
    task.data_loaded = True
    return task


def _make(base: type[Any], spec: OwnTask, description: str, kind: str, main_score: str) -> Any:
    described = metadata(
        spec.name,
        description,
        type=kind,
        main_score=main_score,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        eval_splits=[spec.split],
    )
    return type(spec.name, (base,), {"metadata": described})()
