"""The gate: is a candidate as good as the blessed baseline? Reads results only.

Each row is compared on each task, on each average of a task type, overall, and on slices of the examples, paired by
example, and by seed where both sides were trained on the same batches. Averages decide; tasks and slices stand guard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import ndtr

from distilbench.analysis import stats
from distilbench.analysis.frame import OVERALL
from distilbench.analysis.stats import Array
from distilbench.core.errors import UserError
from distilbench.evaluation.tasks.profiles import expand
from distilbench.gate.baseline import Scores
from distilbench.gate.judging.columns import ALL_ROWS, ColumnDifference, ResampledRuns, paired_seeds
from distilbench.gate.judging.family import Families, families_of, kind_of, with_means
from distilbench.gate.judging.power import Power, powers

Verdict = Literal["pass", "improved", "regressed", "inconclusive", "not comparable", "not evaluated"]
RESAMPLES = 2000
BAD: tuple[Verdict, ...] = ("not comparable", "not evaluated")
EXIT: dict[Verdict, int] = {"pass": 0, "improved": 0, "regressed": 1}
COULD_NOT_TELL = 3
UNCONFIRMED = "not confirmed on other seeds"
TEXTS_UNKNOWN = (
    "Which examples share texts is not known, so that they are taken to be independent, and errors may be too small; "
    "running the study again writes that, and trains nothing."
)


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
    critical: float | None = None
    """What the statistic of a drop must exceed in this check, as a standard normal deviate."""
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
        """All of it, and of its parts, as plain values."""
        return asdict(self)

    def to_frame(self) -> pd.DataFrame:
        """The lines as a table: label, column, decides, verdict, baseline, candidate, difference and so on."""
        names = [field.name for field in fields(CheckLine) if field.name != "estimate"]
        return pd.DataFrame([[getattr(line, name) for name in names] for line in self.lines], columns=names)


def check(
    candidate: Scores,
    baseline: Scores,
    margin: float,
    alpha: float,
    tasks: Sequence[str] = (),
    *,
    as_models: bool = False,
) -> CheckResult:
    """Compare a candidate with a baseline, on some `tasks` or all that the baseline has.

    With `as_models`, what stands on each side is a model; else it is a way to train one, of which seeds are a part.

    A row passes a column when its drop is shown to be less than `margin`, has regressed when it is shown to have
    dropped and did not pass, and is inconclusive otherwise; `alpha` is the error of each claim, for regressions over
    all columns together. Raises `UserError` for `tasks` that the baseline does not have.
    """
    wanted, rows = wanted_tasks(baseline, tasks), _labels(baseline)
    lost = {label: line for label in rows if (line := _lost(candidate, label)) is not None}
    both = [label for label in rows if label in _labels(candidate) and label not in lost]
    refusals = _refusals(candidate, baseline, wanted) if both else []
    if refusals:
        refused = {label: CheckLine(label, OVERALL, True, "not comparable", reason=refusals[0]) for label in rows}
        lines = list((refused | lost).values())
        return CheckResult(overall(lines), lines, margin, alpha, refusals)
    no_such = "the candidate has no such row"
    lines = [
        lost.get(label) or CheckLine(label, OVERALL, True, "not evaluated", reason=no_such)
        for label in rows
        if label not in both
    ]
    if not both:
        return CheckResult(overall(lines), lines, margin, alpha, _notes(candidate, baseline))
    compared = ResampledRuns(candidate, baseline, wanted, RESAMPLES)
    judged = judge(list(compared.lines(both, as_models=as_models)), margin, alpha)
    for label in both:
        lines += [line for line in judged if line.label == label]
        lines += [
            CheckLine(label, item.column, False, "inconclusive", reason=item.reason, examples=item.sizes)
            for item in compared.slices
            if item.reason
        ]
    lines += [line for line in judged if line.label == ALL_ROWS and line.label not in both]
    trained = [] if as_models else both
    notes = [note for label in trained if (note := _unpaired(label, *compared.sides(label)))]
    return CheckResult(overall(lines), lines, margin, alpha, [*notes, *_notes(candidate, baseline)])


def _labels(side: Scores) -> list[str]:
    return sorted(set(map(str, side.runs["label"])))


def _lost(candidate: Scores, label: str) -> CheckLine | None:
    """The line of a row of which runs have no scores: one that diverged has regressed, whatever the others say."""
    runs = [run for run in candidate.lost if run.label == label]
    if not runs:
        return None
    verdict: Verdict = "regressed" if any(run.diverged for run in runs) else "not evaluated"
    return CheckLine(label, OVERALL, True, verdict, reason="; ".join(f"seed {run.seed} {run.why}" for run in runs))


def wanted_tasks(baseline: Scores, tasks: Sequence[str] = ()) -> list[str]:
    """`tasks` and those of profiles, or all of the baseline's. Raises `UserError` for one that it does not have."""
    asked = list(map(str, expand(tasks)))
    for task in asked:
        if task not in baseline.tasks:
            raise UserError(f"--tasks: the baseline has no scores of {task}; it has {', '.join(baseline.tasks)}")
    return asked or list(baseline.tasks)


def _refusals(candidate: Scores, baseline: Scores, tasks: list[str]) -> list[str]:
    """Why the two cannot be compared, in sentences."""
    refusals = []
    if candidate.mteb != baseline.mteb:
        refusals.append(f"The candidate was scored with mteb {candidate.mteb}, the baseline with {baseline.mteb}.")
    if candidate.limit != baseline.limit:
        refusals.append(f"The candidate was run with --limit {candidate.limit}, the baseline with {baseline.limit}.")
    for task in tasks:
        if task not in candidate.tasks:
            refusals.append(f"The candidate has no scores of {task}.")
        elif candidate.tasks[task] != baseline.tasks[task]:
            differing = [name for name, value in baseline.tasks[task].items() if candidate.tasks[task][name] != value]
            refusals.append(f"{task} is not the task of the baseline: {', '.join(differing)} differ.")
        elif not np.isfinite(candidate.scores[task].to_numpy()).all():
            refusals.append(f"The candidate has runs whose score of {task} is missing or no number.")
    return refusals


def judge(
    items: Sequence[ColumnDifference], margin: float, alpha: float, families: Families | None = None
) -> list[CheckLine]:
    """The verdict of every row, and of their mean, on every column.

    `families`: of these items, which then hold the means already; see `distilbench.gate.judging.family`.
    """
    if families is None:
        items = with_means(items)
        families = families_of(items)
    verdicts = verdicts_of(items, margin, alpha, families)
    found = powers(items, families, margin, alpha)
    return [_line(*given) for given in zip(items, verdicts, found, strict=True)]


def verdicts_of(items: Sequence[ColumnDifference], margin: float, alpha: float, families: Families) -> list[Verdict]:
    """Of items that hold the means already, and their families."""
    estimates = [item.difference for item in items]
    means, of_seeds, of_examples = (
        np.array([getattr(item, name) for item in estimates]) for name in ("mean", "seed_variance", "example_variance")
    )
    freedom = np.array([max(item.freedom, 1.0) for item in estimates])

    def deviates(bound: float) -> Array:
        return np.copysign(stats.normal_deviate(means - bound, of_seeds, freedom, of_examples), means - bound)

    statistics = deviates(0)
    adjusted = {
        kind: [families.adjusted(kind, sign * statistics) for sign in (-1, 1)] for kind in set(map(kind_of, items))
    }
    within = ndtr(-deviates(-margin)) < alpha
    verdicts: list[Verdict] = []
    for place, item in enumerate(items):
        drop, rise = (part[place] for part in adjusted[kind_of(item)])
        if within[place]:
            verdicts.append("improved" if rise < alpha else "pass")
        else:
            verdicts.append("regressed" if drop < alpha else "inconclusive")
    return verdicts


def _line(item: ColumnDifference, verdict: Verdict, power: Power) -> CheckLine:
    if math.isnan(item.difference.mean):
        reason = "the two sides were not scored on the same examples"
        return CheckLine(item.label, item.column, item.decides, "not comparable", reason=reason)
    return CheckLine(
        label=item.label,
        column=item.column,
        decides=item.decides,
        verdict=verdict,
        baseline=item.values[0],
        candidate=item.values[1],
        difference=item.difference.mean,
        half_width=item.difference.half_width() if item.is_known else None,
        detectable=power.detectable,
        critical=power.critical,
        estimate=item.difference if item.is_known else None,
        runs=item.runs,
        paired=item.paired,
        reason=item.reason,
        examples=item.examples,
    )


def _unpaired(label: str, new: pd.DataFrame, old: pd.DataFrame) -> str:
    """Which seeds of a row have no counterpart and are left out, or why none has one; nothing where all have one."""
    common, seeds = paired_seeds(new, old), {*new.index} | {*old.index}
    if not (others := sorted(seeds - set(common))):
        return ""
    named = ", ".join(map(str, others))
    if len(common) > 1:
        return f"{label} is compared on the seeds that both sides have; without a counterpart: {named}."
    return f"{label} has fewer than two seeds on both sides with the same batches; without a counterpart: {named}."


def overall(lines: list[CheckLine]) -> Verdict:
    """The worst line that counts; of single tasks, only what failed. A drop that is shown stays one, whatever lacks."""
    deciding = [line.verdict for line in lines if line.decides]
    everything = [line.verdict for line in lines]
    for worst in ("regressed", "not evaluated", "not comparable"):
        if worst in everything:
            return worst
    if "inconclusive" in deciding or not deciding:
        return "inconclusive"
    return "improved" if "improved" in deciding else "pass"


def _notes(candidate: Scores, baseline: Scores) -> list[str]:
    """What else differs: not part of the protocol, but what a reader would ask first."""
    notes = []
    for section, before in baseline.provenance.items():
        now = candidate.provenance.get(section, before)
        if names := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
            notes.append(f"{section} differs from the baseline's in {', '.join(names)}.")
    more = [label for label in _labels(candidate) if label not in _labels(baseline)]
    notes += [TEXTS_UNKNOWN] if candidate.example_texts is None else []
    return notes + ([f"Rows that the baseline does not have were not checked: {', '.join(more)}."] if more else [])


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
