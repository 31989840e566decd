"""Whether a study puts methods in the order of a published table: who is matched with whom, and each pair's order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from distilbench.analysis.frame import StudyFrames, over_seeds
from distilbench.records.published import PublishedRow, PublishedTable

Verdicts = Mapping[tuple[str, str], str]
"""(row key, row key) -> what is known of the first against the second."""
Order = Literal["agrees", "disagrees", "undecided"]

REFERENCE = "mse"
OPPOSITE = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class MatchedRow:
    """A published row beside the study's row of the same method; scores x100, not-a-number where there is none."""

    row: PublishedRow
    key: str
    name: str
    published: float
    """Average over all tasks that the lines have in the source."""
    there: float
    """The source's average over the tasks that the study shares."""
    here: float
    """The study's mean over completed runs of its average over these tasks."""
    half_width: float
    runs: int


@dataclass(frozen=True)
class MethodPair:
    """Two methods on one encoder of the source, the one first that the source puts first."""

    first: MatchedRow
    second: MatchedRow
    verdict: str | None
    order: Order

    @property
    def there(self) -> float:
        """Difference of the published averages over the shared tasks."""
        return self.first.there - self.second.there

    @property
    def here(self) -> float:
        """Difference of the study's means over the shared tasks."""
        return self.first.here - self.second.here


@dataclass(frozen=True)
class PublishedComparison:
    """One published table beside a study."""

    table: PublishedTable
    letters: str
    """The study's set of comparable runs; empty when there is one."""
    common: list[str]
    """Tasks for which all matched rows have a published score."""
    tasks: list[str]
    """Those of them that the study scored by the same metric."""
    lines: list[MatchedRow]
    pairs: list[MethodPair]

    def count(self, order: Order) -> int:
        """Number of pairs with this order."""
        return sum(pair.order == order for pair in self.pairs)

    @property
    def outcome(self) -> str:
        """Reproduced: all pairs agree; partly: some; not: none, though some are decided."""
        if not self.pairs:
            return "not comparable"
        agreeing = self.count("agrees")
        if agreeing == len(self.pairs):
            return "reproduced"
        if agreeing:
            return "partly reproduced"
        return "not reproduced" if self.count("disagrees") else "undecided"


def compare(
    table: PublishedTable, study: StudyFrames, verdicts: Verdicts | None = None, without: Sequence[str] = ()
) -> PublishedComparison | None:
    """Set `study` beside `table`, leaving out the tasks `without`; None when they share fewer than two methods.

    A row of the study stands for a published method when its label is that method's name.
    """
    letters, keys = _matched(table, study)
    rows = _rows(table, keys)
    if not rows:
        return None
    metrics = {task.name: task.metric for task in table.tasks if task.ranked}
    common = [task for task in metrics if all(task in row.scores for row in rows)]
    scored = dict(study.tasks["metric"])
    tasks = [task for task in common if scored.get(task) == metrics[task] and task not in without]
    lines = _lines(study, rows, keys, common, tasks)
    return PublishedComparison(table, letters, common, tasks, lines, _pairs(lines, verdicts, study.margin * 100))


def judge(there: float, here: float, verdict: str | None = None, margin: float = 0.0) -> Order:
    """Whether a published difference and ours have one direction.

    Without a verdict the sign of `here` decides. A verdict against that sign was reached on other tasks and decides
    nothing. Equivalent methods agree with a published difference of at most `margin` points and with no other.
    """
    if verdict == "equivalent":
        return "agrees" if abs(there) <= margin else "disagrees"
    if verdict == "undecided" or there == 0 or here == 0:
        return "undecided"
    if verdict is not None and (verdict == "better") != (here > 0):
        return "undecided"
    return "agrees" if (here > 0) == (there > 0) else "disagrees"


def _matched(table: PublishedTable, study: StudyFrames) -> tuple[str, dict[str, str]]:
    """Letters and method -> row key of the set of comparable runs that shares most rows with the table."""
    methods = {row.method for row in table.rows if row.method}
    sets: dict[str, dict[str, str]] = {}
    for run_id, run in study.runs[study.runs["role"] == "method"].iterrows():
        label, stages = str(run["label"]), study.records[str(run_id)].method.split("+")
        # A label is free text: one that names another method than the run's stands for nothing published.
        if label in methods and (label == stages[0] or label.startswith(f"{stages[0]}-")):
            sets.setdefault(str(run["letters"]), {})[label] = str(run["key"])
    best = max(sorted(sets), key=lambda letters: len(_rows(table, sets[letters])), default="")
    return best, sets.get(best, {})


def _rows(table: PublishedTable, methods: Mapping[str, str]) -> list[PublishedRow]:
    """Rows with scores of these methods, on encoders on which the table has at least two of them."""
    rows = [row for row in table.rows if row.method in methods and row.scores]
    return [row for row in rows if any(_comparable(row, other) for other in rows)]


def _comparable(one: PublishedRow, other: PublishedRow) -> bool:
    return one.student == other.student and one.method != other.method


def _lines(
    study: StudyFrames, rows: Sequence[PublishedRow], keys: Mapping[str, str], common: list[str], tasks: list[str]
) -> list[MatchedRow]:
    averages = study.scores[tasks].mean(axis=1, skipna=False).to_frame("shared")
    estimate = over_seeds(study.runs, averages)
    counts = averages["shared"].notna().groupby(study.runs["key"].reindex(averages.index)).sum()
    lines = []
    for row in rows:
        key = keys[str(row.method)]
        here, half_width = estimate.percent(key, "shared")
        name = str(study.rows.at[key, "row"])
        there = (row.mean(common), row.mean(tasks))
        lines.append(MatchedRow(row, key, name, *there, here, half_width, int(counts.get(key, 0))))
    return lines


def _pairs(lines: Sequence[MatchedRow], verdicts: Verdicts | None, margin: float) -> list[MethodPair]:
    pairs = []
    for one, other in combinations(lines, 2):
        if not _comparable(one.row, other.row) or math.isnan(one.here - other.here):
            continue
        first, second = (one, other) if one.there >= other.there else (other, one)
        verdict = None if verdicts is None else _verdict(verdicts, first.key, second.key)
        order = judge(first.there - second.there, first.here - second.here, verdict, margin)
        pairs.append(MethodPair(first, second, verdict, order))
    return pairs


def _verdict(verdicts: Verdicts, first: str, second: str) -> str:
    """What is known of `first` against `second`; a pair that nobody tested is undecided."""
    if (second, first) in verdicts:
        return OPPOSITE.get(verdicts[second, first], verdicts[second, first])
    return verdicts.get((first, second), "undecided")
