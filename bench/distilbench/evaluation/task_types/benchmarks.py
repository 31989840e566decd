"""mteb's benchmarks: names of sets of tasks, each with the subsets and splits that count in it."""

from __future__ import annotations

from functools import cache
from typing import Any

import mteb

from distilbench.core.errors import UserError, one_of
from distilbench.evaluation.task_types.kinds import is_scored
from distilbench.evaluation.tasks.subsets import full_name


@cache
def benchmarks() -> dict[str, Any]:
    """Name -> mteb's benchmark, of those whose tasks are all of text."""
    found = {benchmark.name: benchmark for benchmark in mteb.get_benchmarks()}
    return {
        name: benchmark
        for name, benchmark in found.items()
        if all(list(task.metadata.modalities) == ["text"] for task in benchmark.tasks)
    }


def tasks_of(name: str) -> tuple[str, ...]:
    """The tasks of a benchmark, by names that any study may list.

    Raises `UserError` for an unknown one, and for one that has tasks that are not scored.
    """
    if name not in benchmarks():
        raise UserError(f"tasks: {one_of('benchmark', name, benchmarks())}")
    tasks = list(benchmarks()[name].tasks)
    if others := [task.metadata.name for task in tasks if not is_scored(task)]:
        raise UserError(
            f"tasks: {name} has tasks that distilbench does not score ({', '.join(others)}); name those of its tasks "
            "that you mean"
        )
    return tuple(_name(task) for task in tasks)


def _name(task: Any) -> str:
    """A task's name with the subsets and splits that are left of it."""
    splits = [split for split in task.metadata.eval_splits if split in task.eval_splits]
    subsets = [subset for subset in task.metadata.hf_subsets if subset in task.hf_subsets]
    return full_name(
        task.metadata.name,
        subsets if len(subsets) < len(task.metadata.hf_subsets) else [],
        splits if len(splits) < len(task.metadata.eval_splits) else [],
    )
