"""A run's scores as mteb keeps them, for `mteb.ResultCache` and what reads it."""

from __future__ import annotations

import json
from pathlib import Path

from mteb import ResultCache
from mteb.results import TaskResult

from distilbench.core.errors import UserError
from distilbench.evaluation.mteb_encoder import meta_of
from distilbench.evaluation.tasks.by_name import is_of_mteb
from distilbench.evaluation.tasks.subsets import parsed
from distilbench.records.record import MTEB_FOLDER, Record, read_run


def export_mteb(run: Path, out: Path) -> tuple[Path, list[str]]:
    """Write the results of a run's folder, `results/<study>/<run_id>`, into a folder that mteb takes as its cache.

    Gives the model's folder in there, and the tasks that are left out as mteb does not know them. Results of the same
    model that are there are merged with; parts of a task are put together. Raises `UserError` for a run without scores,
    and for a smoke run.
    """
    record = _scored(run)
    meta = meta_of(
        f"{record.study}-{record.label}-seed-{record.seed}",
        record.identity.get("weights", record.run_id),
        embed_dim=(record.teacher if record.role == "ceiling" else record.student)["output_width"],
    )
    cache, left_out = ResultCache(out), []
    for name in record.scores:
        spec = parsed(name)
        task = spec if isinstance(spec, str) else spec.name
        if not is_of_mteb(task):
            left_out.append(name)
            continue
        result = _read(run / MTEB_FOLDER / f"{name}.json")
        earlier = cache.get_task_result_path(task_name=task, model_name=meta)
        if earlier.is_file():
            try:
                result = _read(earlier).merge(result)
            except ValueError as error:
                raise UserError(f"{earlier} cannot be merged with ({str(error).splitlines()[0]}); delete it") from None
        cache.save_to_cache(result, meta)
    if len(left_out) == len(record.scores):
        raise UserError(f"{run} has no score of a task of mteb; there is nothing to export")
    return cache.get_task_result_path(task_name="", model_name=meta).parent, left_out


def _scored(run: Path) -> Record:
    record = read_run(run)
    if not record.scores:
        raise UserError(f"{run} has no scores ({record.status}); choose another run")
    if record.limit is not None:
        raise UserError(f"{run} is of a smoke run (--limit {record.limit}), which has no results; choose another run")
    return record


def _read(path: Path) -> TaskResult:
    try:
        return TaskResult.from_disk(path)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is no result of mteb ({str(error).splitlines()[0]}); delete it") from None
