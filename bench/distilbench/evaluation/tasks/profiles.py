"""Names of task sets, listed without importing mteb."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distilbench.study.sections.texts import TaskSpec

STS7 = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R")
SICK_TEST = "SICK-R-Test"
SENTEVAL7 = (*STS7[:-1], SICK_TEST)
RETRIEVAL = ("NFCorpus", "SciFact")
NANO = tuple(
    f"Nano{name}Retrieval"
    for name in (
        *("ArguAna", "ClimateFever", "DBPedia", "FEVER", "FiQA2018", "HotpotQA", "MSMARCO", "NFCorpus", "NQ", "Quora"),
        *("SCIDOCS", "SciFact", "Touche2020"),
    )
)
EMBEDDED_STS = "DistilbenchSTS"
EMBEDDED_RETRIEVAL = "DocstringRetrieval"

PROFILES: dict[str, tuple[str, ...]] = {
    "embedded": (EMBEDDED_STS, EMBEDDED_RETRIEVAL),
    "sts7": STS7,
    "senteval7": SENTEVAL7,
    "retrieval": RETRIEVAL,
    "nano": NANO,
}

DESCRIPTIONS = {
    "embedded": "graded STS pairs and docstring retrieval that come with distilbench; no network",
    "sts7": "MTEB's STS12-16, STSBenchmark and SICK-R (all 9927 pairs, unlike the papers' SICK test)",
    "senteval7": "the papers' seven: as sts7, but SICK's 4927 test pairs (SICK-R-Test), not mteb's SICK-R; all pairs "
    "of a task at once (SentEval's 'all')",
    "retrieval": "MTEB's NFCorpus and SciFact",
    "nano": "the 13 NanoBEIR tasks of 50 queries: quick to see whether all is well, too noisy for a verdict",
}


BENCHMARKS = (
    *("BEIR", "BEIR-NL", "BRIGHT", "BRIGHT-Pro", "ChemTEB", "CoIR", "CodeRAG", "Encodechka", "FollowIR"),
    *("LMEB", "LongEmbed", "MINERSBitextMining", "NanoBEIR", "NanoBEIR-multilingual", "R2MED", "RAR-b", "RuSciBench"),
)
"""Those of mteb's benchmarks whose names have no brackets, so that mteb is not asked about each task's name."""

SCORED = "@scored"
"""Behind a benchmark's name: those of its tasks that distilbench scores."""


def is_benchmark(name: str) -> bool:
    """Whether a name is, or is meant to be, that of one of mteb's benchmarks, such as `MTEB(eng, v2)`."""
    return "(" in name or name.removesuffix(SCORED) in BENCHMARKS


def expand(tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
    """Profiles and mteb's benchmarks replaced by their tasks, each task once, in order.

    Raises `UserError` for a benchmark that is unknown, or has tasks that are not scored and are not left out.
    """
    return list(dict.fromkeys(name for task in tasks for name in _expanded(task)))


def _expanded(task: TaskSpec) -> Sequence[TaskSpec]:
    if not isinstance(task, str):
        return (task,)
    if is_benchmark(task):
        from distilbench.evaluation.task_types.benchmarks import tasks_of

        return tasks_of(task)
    return PROFILES.get(task, (task,))
