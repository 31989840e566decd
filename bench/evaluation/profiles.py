"""Names of task sets, listed without importing mteb."""

from __future__ import annotations

STS7 = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R")
RETRIEVAL = ("NFCorpus", "SciFact")
EMBEDDED_STS = "DistilbenchSTS"
EMBEDDED_RETRIEVAL = "DocstringRetrieval"

PROFILES: dict[str, tuple[str, ...]] = {
    "embedded": (EMBEDDED_STS, EMBEDDED_RETRIEVAL),
    "sts7": STS7,
    "retrieval": RETRIEVAL,
}

DESCRIPTIONS = {
    "embedded": "graded STS pairs and docstring retrieval that come with distilbench; no network",
    "sts7": "MTEB's STS12-16, STSBenchmark and SICK-R (all 9927 pairs, unlike the papers' SICK test)",
    "retrieval": "MTEB's NFCorpus and SciFact",
}


def expand(tasks: list[str]) -> list[str]:
    """Profiles replaced by their tasks, each task once, in order."""
    names = [name for task in tasks for name in PROFILES.get(task, (task,))]
    return list(dict.fromkeys(names))
