"""The gate: is a candidate as good as the blessed baseline? Reads results only.

Each row is compared on each task, on each average of a task type, overall, and on slices of the examples, paired by
example, and by seed where both sides were trained on the same batches. Averages decide; tasks and slices stand guard.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from distilbench.analysis import stats
from distilbench.analysis.bootstrap import Array
from distilbench.analysis.examples import aligned, metric, replicates
from distilbench.core.errors import UserError
from distilbench.gate.baseline import Scores
from distilbench.gate.slices import members, slices

Verdict = Literal["pass", "improved", "regressed", "inconclusive", "not comparable", "not evaluated"]
RESAMPLES, SEED = 2000, 20240
OVERALL = "Overall"
BAD: tuple[Verdict, ...] = ("not comparable", "not evaluated")
EXIT: dict[Verdict, int] = {"pass": 0, "improved": 0, "regressed": 1}
COULD_NOT_TELL = 3
UNCONFIRMED = "not confirmed on other seeds"


@dataclass(frozen=True)
class CheckLine:
    """One row of the baseline on one column."""

    label: str
    column: str
    decides: bool
    """Averages decide; tasks and slices stand guard: they can fail a candidate, but never hold it up."""
    verdict: Verdict
    baseline: float | None = None
    candidate: float | None = None
    difference: float | None = None
    half_width: float | None = None
    """Of the 95 % interval of the difference."""
    detectable: float | None = None
    """The drop that would be found with probability 0.8; with fresh seeds, where both sides agree to the last digit."""
    estimate: stats.Estimate | None = None
    """The difference with the parts of its error."""
    runs: int = 0
    """Of the side that has fewer."""
    paired: bool = False
    reason: str = ""
    examples: dict[str, int] | None = None
    """Of a slice: task -> its examples."""


@dataclass(frozen=True)
class CheckResult:
    """What the gate says. Scores, differences and the margin are fractions."""

    verdict: Verdict
    lines: list[CheckLine]
    margin: float
    alpha: float
    notes: list[str]

    @property
    def exit_code(self) -> int:
        """0 pass or improved, 1 regressed, 3 could not tell."""
        return EXIT.get(self.verdict, COULD_NOT_TELL)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_frame(self) -> pd.DataFrame:
        """The lines as a table: label, column, decides, verdict, baseline, candidate, difference and so on."""
        names = [field.name for field in fields(CheckLine) if field.name != "estimate"]
        return pd.DataFrame([[getattr(line, name) for name in names] for line in self.lines], columns=names)


def check(
    candidate: Scores, baseline: Scores, margin: float, alpha: float, tasks: list[str] | None = None
) -> CheckResult:
    """Compare a candidate with a baseline.

    A row passes a column when its drop is shown to be less than `margin`, has regressed when it is shown to have
    dropped and did not pass, and is inconclusive otherwise; `alpha` is the error of each claim, for regressions over
    all columns together. Raises `UserError` for `tasks` that the baseline does not have.
    """
    wanted = wanted_tasks(baseline, tasks)
    if refusals := _refusals(candidate, baseline, wanted):
        lines = [
            CheckLine(str(label), OVERALL, True, "not comparable", reason=refusals[0]) for label in _labels(baseline)
        ]
        return CheckResult("not comparable", lines, margin, alpha, refusals)
    compared = ResampledRuns(candidate, baseline, wanted, RESAMPLES)
    lines = [_missing(label) for label in _labels(baseline) if label not in _labels(candidate)]
    both = [label for label in _labels(baseline) if label in _labels(candidate)]
    judged = judge([item for label in both for item in compared.lines(label)], margin, alpha)
    for label in both:
        lines += [line for line in judged if line.label == label]
        lines += [
            CheckLine(label, item.column, False, "inconclusive", reason=item.reason, examples=item.sizes)
            for item in compared.slices
            if item.reason
        ]
    return CheckResult(overall(lines), lines, margin, alpha, _notes(candidate, baseline))


@dataclass(frozen=True)
class ColumnDifference:
    """A row on a column, not yet judged."""

    label: str
    column: str
    decides: bool
    values: tuple[float, float]
    difference: stats.Estimate
    same_code: stats.Estimate
    """What the difference would be if only the seeds were fresh, by the baseline's own spread."""
    runs: int
    paired: bool
    examples: dict[str, int] | None = None


class ResampledRuns:
    """Both sides' runs, resampled together; `runs` may be cut down afterwards, to compare some of them."""

    def __init__(self, candidate: Scores, baseline: Scores, tasks: list[str], resamples: int) -> None:
        self.runs = pd.concat([_marked(candidate, "new"), _marked(baseline, "old")])
        sides = [(candidate, "new"), (baseline, "old")]
        scores = [side.scores.set_axis(f"{name}:" + side.scores.index, axis=0) for side, name in sides]
        self.scores = pd.concat(scores)[tasks]
        examples = pd.concat([side.examples.assign(run_id=f"{name}:" + side.examples["run"]) for side, name in sides])
        found = aligned(examples[examples["task"].isin(tasks)], self.scores)
        self.unaligned = [task for task in tasks if task not in found]
        kinds = {task: str(baseline.tasks[task]["type"]) for task in tasks}
        self.columns = _columns(kinds)
        kinds = {task: kind for task, kind in kinds.items() if task in found}
        self.slices = slices(members(baseline), examples, kinds, list(self.scores.index))
        for item in self.slices:
            parts = {f"{task}: {item.column}": splits for task, splits in item.examples.items()}
            self.scores = self.scores.assign(**{name: metric(splits) for name, splits in parts.items()})
            self.columns |= {item.column: (list(parts), False)} if parts else {}
            found |= parts
        self.resampled = replicates(found, resamples, np.random.default_rng(SEED))

    def lines(self, label: str) -> Iterator[ColumnDifference]:
        """What was found of a row on every column."""
        mine = self.runs[self.runs["label"] == label]
        new, old = (mine[mine["side"] == side].set_index("seed") for side in ("new", "old"))
        paired = self._paired(new, old)
        sizes = {item.column: item.sizes for item in self.slices}
        for column, (tasks, decides) in self.columns.items():
            if set(tasks) & set(self.unaligned):
                nothing = stats.Estimate(math.nan, 0, math.nan, math.nan)
                yield ColumnDifference(label, column, decides, (math.nan, math.nan), nothing, nothing, 0, False)
                continue
            order = sorted(old.index) if paired else None
            one, one_B = self._values(new if order is None else new.loc[order], tasks)
            other, other_B = self._values(old if order is None else old.loc[order], tasks)
            difference = (
                stats.estimate(one - other, one_B - other_B)
                if paired and len(one) > 1
                else stats.estimate_apart(one, one_B, other, other_B)
            )
            same_code = stats.estimate_apart(other, other_B, other, other_B)
            values, runs = (float(other.mean()), float(one.mean())), min(len(one), len(other))
            yield ColumnDifference(
                label, column, decides, values, difference, same_code, runs, paired, sizes.get(column)
            )

    @staticmethod
    def _paired(new: pd.DataFrame, old: pd.DataFrame) -> bool:
        """Whether both sides have the same seeds, which read the same batches."""
        if sorted(new.index) != sorted(old.index):
            return False
        return bool(old["batches"].notna().all() and (new.loc[old.index, "batches"] == old["batches"]).all())

    def _values(self, runs: pd.DataFrame, tasks: list[str]) -> tuple[Array, Array]:
        places = self.scores.index.get_indexer(pd.Index(runs["run"]))
        values: Array = self.scores.iloc[places][tasks].mean(axis=1).to_numpy(dtype=np.float64)
        return values, np.mean([self.resampled[task][places] for task in tasks], axis=0)


def _columns(kinds: dict[str, str]) -> dict[str, tuple[list[str], bool]]:
    """Name -> tasks, and whether it decides. What has the same tasks is one column, under its most specific name."""
    tasks = list(kinds)
    named = [(task, [task], False) for task in tasks]
    for kind in dict.fromkeys(kinds.values()):
        named.append((f"{kind} average", [task for task in tasks if kinds[task] == kind], True))
    found: dict[tuple[str, ...], tuple[str, bool]] = {}
    for name, of, decides in [*named, (OVERALL, tasks, True)]:
        first, before = found.get(tuple(of), (name, False))
        found[tuple(of)] = (first, before or decides)
    return {name: (list(of), decides) for of, (name, decides) in found.items()}


def _marked(side: Scores, name: str) -> pd.DataFrame:
    return side.runs.assign(side=name, run=f"{name}:" + side.runs.index)


def _labels(side: Scores) -> list[str]:
    return sorted(set(map(str, side.runs["label"])))


def wanted_tasks(baseline: Scores, tasks: list[str] | None) -> list[str]:
    """`tasks`, or all of the baseline's. Raises `UserError` for one that the baseline does not have."""
    for task in tasks or []:
        if task not in baseline.tasks:
            raise UserError(f"--tasks: the baseline has no scores of {task}; it has {', '.join(baseline.tasks)}")
    return tasks or list(baseline.tasks)


def _refusals(candidate: Scores, baseline: Scores, tasks: list[str]) -> list[str]:
    """Why the two cannot be compared, in sentences."""
    found = []
    if candidate.mteb != baseline.mteb:
        found.append(f"The candidate was scored with mteb {candidate.mteb}, the baseline with {baseline.mteb}.")
    if candidate.limit != baseline.limit:
        found.append(f"The candidate was run with --limit {candidate.limit}, the baseline with {baseline.limit}.")
    for task in tasks:
        if task not in candidate.tasks:
            found.append(f"The candidate has no scores of {task}.")
        elif candidate.tasks[task] != baseline.tasks[task]:
            differing = [name for name, value in baseline.tasks[task].items() if candidate.tasks[task][name] != value]
            found.append(f"{task} is not the task of the baseline: {', '.join(differing)} differ.")
        elif not np.isfinite(candidate.scores[task].to_numpy()).all():
            found.append(f"The candidate has runs whose score of {task} is missing or no number.")
    return found


def _missing(label: str) -> CheckLine:
    return CheckLine(label, OVERALL, True, "not evaluated", reason="the candidate has no such row")


def judge(found: list[ColumnDifference], margin: float, alpha: float) -> list[CheckLine]:
    """The verdict of every row on every column."""
    drops = _adjusted(found, [item.difference.p_below(0) if _known(item) else 1.0 for item in found])
    rises = _adjusted(found, [item.difference.p_above(0) if _known(item) else 1.0 for item in found])
    return [_line(*given, margin, alpha) for given in zip(found, drops, rises, strict=True)]


def _adjusted(found: list[ColumnDifference], p_values: list[float]) -> list[float]:
    """Holm's adjustment among what decides and among the guards, each with its half of the error.

    However many guards there are, the columns that decide lose no more than that half to them.
    """
    families = [[place for place, item in enumerate(found) if item.decides is kind] for kind in (True, False)]
    families = [family for family in families if family]
    adjusted = [1.0] * len(found)
    for family in families:
        for place, value in zip(family, stats.holm([p_values[place] for place in family]), strict=True):
            adjusted[place] = min(1.0, len(families) * value)
    return adjusted


def _known(item: ColumnDifference) -> bool:
    return math.isfinite(item.difference.error)


def _line(item: ColumnDifference, p_drop: float, p_rise: float, margin: float, alpha: float) -> CheckLine:
    if math.isnan(item.difference.mean):
        reason = "the two sides were not scored on the same examples"
        return CheckLine(item.label, item.column, item.decides, "not comparable", reason=reason)
    verdict: Verdict = "inconclusive"
    if item.difference.p_above(-margin) < alpha:
        verdict = "improved" if p_rise < alpha else "pass"
    elif p_drop < alpha:
        verdict = "regressed"
    known = _known(item)
    return CheckLine(
        label=item.label,
        column=item.column,
        decides=item.decides,
        verdict=verdict,
        baseline=item.values[0],
        candidate=item.values[1],
        difference=item.difference.mean,
        half_width=item.difference.half_width() if known else None,
        detectable=_detectable(item, alpha),
        estimate=item.difference if known else None,
        runs=item.runs,
        paired=item.paired,
        examples=item.examples,
    )


def _detectable(item: ColumnDifference, alpha: float) -> float | None:
    for estimate in (item.difference, item.same_code):
        if math.isfinite(estimate.error) and estimate.error > 0:
            return estimate.detectable(2 * alpha)
    return None


def overall(lines: list[CheckLine]) -> Verdict:
    """The worst line that counts; of single tasks, only what failed."""
    deciding = [line.verdict for line in lines if line.decides]
    guards = [line.verdict for line in lines if not line.decides]
    if any(verdict in BAD for verdict in deciding + guards):
        return "not evaluated" if "not evaluated" in deciding + guards else "not comparable"
    if "regressed" in deciding + guards:
        return "regressed"
    if "inconclusive" in deciding or not deciding:
        return "inconclusive"
    return "improved" if "improved" in deciding else "pass"


def _notes(candidate: Scores, baseline: Scores) -> list[str]:
    """What else differs: not part of the protocol, but what a reader would ask first."""
    found = []
    for section, before in baseline.provenance.items():
        now = candidate.provenance.get(section)
        if isinstance(before, dict) and isinstance(now, dict):
            names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
            if names:
                found.append(f"{section} differs from the baseline's in {', '.join(names)}.")
    more = [label for label in _labels(candidate) if label not in _labels(baseline)]
    return found + ([f"Rows that the baseline does not have were not checked: {', '.join(more)}."] if more else [])


def confirmed(first: CheckResult, second: CheckResult) -> CheckResult:
    """What `first` says, with only those regressions that `second`, the same code on other seeds, shows as well.

    A false alarm then has to come up twice: with fresh seeds of the candidate, at most in `alpha` of all cases however
    the two depend on each other through their common baseline, and in about `alpha` squared if they do not.
    """
    if first.verdict != "regressed" or second.verdict in BAD:
        return first
    again = {(line.label, line.column) for line in second.lines if line.verdict == "regressed"}
    lines = [
        replace(line, verdict="inconclusive", reason=UNCONFIRMED)
        if line.verdict == "regressed" and (line.label, line.column) not in again
        else line
        for line in first.lines
    ]
    verdict = overall(lines)
    # A guard's unconfirmed drop would not show in what decides.
    if verdict in ("pass", "improved") and any(line.reason == UNCONFIRMED for line in lines):
        verdict = "inconclusive"
    return replace(first, verdict=verdict, lines=lines)
