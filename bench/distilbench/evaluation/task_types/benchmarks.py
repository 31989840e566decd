"""mteb's benchmarks: names of sets of tasks, each with the subsets and splits that count in it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import mteb

from distilbench.core.errors import UserError, one_of
from distilbench.evaluation.task_types.kinds import is_scored
from distilbench.evaluation.tasks.profiles import SCORED, is_benchmark
from distilbench.evaluation.tasks.subsets import LONGEST_NAME, full_name, listed
from distilbench.records.design import Benchmark
from distilbench.study.sections.texts import TaskSpec


@cache
def benchmarks() -> dict[str, Any]:
    """Name -> mteb's benchmark, of those whose tasks are all of text."""
    found = {benchmark.name: benchmark for benchmark in mteb.get_benchmarks()}
    return {
        name: benchmark
        for name, benchmark in found.items()
        if all(list(task.metadata.modalities) == ["text"] for task in benchmark.tasks)
    }


@cache
def benchmark(name: str) -> Benchmark:
    """What distilbench scores of a benchmark, and what it does not. Raises `UserError` for an unknown one."""
    name = name.removesuffix(SCORED)
    if name not in benchmarks():
        raise UserError(f"tasks: {one_of('benchmark', name, benchmarks())}")
    tasks = list(benchmarks()[name].tasks)
    return Benchmark(
        name,
        [_name(task) for task in tasks if _why_not(task) is None],
        {task.metadata.name: why for task in tasks if (why := _why_not(task)) is not None},
    )


def tasks_of(name: str) -> tuple[str, ...]:
    """The tasks of a benchmark, by names that any study may list; with `@scored` behind its name, those that can be.

    Raises `UserError` for an unknown one, for one that has tasks that are not scored, and for one that has no others.
    """
    found = benchmark(name)
    others = listed([f"{task}: {why}" for task, why in found.left_out.items()])
    if not found.tasks:
        raise UserError(f"tasks: none of the tasks of {found.name} is one that distilbench scores ({others})")
    if found.left_out and not name.endswith(SCORED):
        raise UserError(
            f"tasks: {found.name} has tasks that distilbench does not score ({others}); name {found.name + SCORED!r} "
            f"for the {len(found.tasks)} of its {found.size} tasks that it does"
        )
    return tuple(found.tasks)


def benchmarks_among(tasks: Iterable[TaskSpec]) -> list[Benchmark]:
    """The benchmarks among the tasks that a study names."""
    return [benchmark(task) for task in tasks if isinstance(task, str) and is_benchmark(task)]


def _why_not(task: Any) -> str | None:
    """Why a task of a benchmark is not scored; None where it is."""
    if not is_scored(task):
        return "several tasks in one" if task.is_aggregate else str(task.metadata.type)
    return "too many subsets for one name" if len(_name(task)) > LONGEST_NAME else None


def _name(task: Any) -> str:
    """A task's name with the subsets and splits that are left of it."""
    splits = [split for split in task.metadata.eval_splits if split in task.eval_splits]
    subsets = [subset for subset in task.metadata.hf_subsets if subset in task.hf_subsets]
    return full_name(
        task.metadata.name,
        subsets if len(subsets) < len(task.metadata.hf_subsets) else [],
        splits if len(splits) < len(task.metadata.eval_splits) else [],
    )
