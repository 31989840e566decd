"""Advice for a stated situation, from stored records: which methods to take, how sure that is, what to run next.

Studies are never pooled and nothing is extrapolated: a study speaks only for its own teacher, students, text, tasks
and budget, and only where the situation that is asked about is one that it ran.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from distilbench.analysis.frame import StudyFrames, make_study, records_of, row_names
from distilbench.core.errors import UserError, one_of
from distilbench.records.record import read_study
from distilbench.reporting import study_folders
from distilbench.reporting.formats.render import Table
from distilbench.reporting.ranking import latency_of, parameters_of, rankings
from distilbench.reporting.tables.budgets import CURRENCIES
from distilbench.reporting.write import with_errors

NEAR = 1.25
"""A budget speaks for those up to this factor above or below it."""


@dataclass(frozen=True)
class Situation:
    """What somebody has; unset: anything goes."""

    budget: tuple[str, float] | None = None
    """Currency and amount."""
    parameters: float | None = None
    """At most, of the model that ships."""
    milliseconds: float | None = None
    """At most, for one query by itself, on the machine that ran the study."""


def situation(budget: str | None, size: str | None, latency: float | None) -> Situation:
    """A situation as it is typed: `sentences=50000`, `12M`, milliseconds. Raises `UserError` for what is none."""
    return Situation(_budget(budget) if budget else None, _number(size, "--size") if size else None, latency)


def _budget(text: str) -> tuple[str, float]:
    currency, equals, amount = text.partition("=")
    if not equals:
        raise UserError(f"--budget {text!r} is not of the form key=value, for example sentences=50000")
    if currency not in CURRENCIES:
        raise UserError(f"--budget: {one_of('currency', currency, CURRENCIES)}")
    return currency, _number(amount, "--budget")


def _number(text: str, option: str) -> float:
    factor = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}.get(text[-1:].lower(), 1.0)
    try:
        value = float(text[:-1] if factor != 1.0 else text) * factor
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"{option} {text!r} is not a positive number such as 50000 or 12M")
    return value


def advise(results: Path, wanted: Situation) -> tuple[list[Table], list[str]]:
    """A table of ranked methods for each set of rows that fits the situation, and why other studies do not speak."""
    tables, reasons = [], []
    for folder in study_folders(results):
        study = make_study(folder.name, read_study(folder))
        keys = [key for key in row_names(study, "method") if _fits(study, key, wanted)]
        reason = None if keys else _nearest(study, wanted)
        if study.runs["limit"].notna().any():
            reason = "smoke runs are no results"
        if reason is None:
            fitting = list(rankings(*with_errors(study, folder), keys))
            tables += fitting
            reason = None if fitting else "it has no two methods that fit and have the same scored examples"
        if reason is not None:
            reasons.append(f"{folder.name}: {reason}")
    return tables, reasons


def _fits(study: StudyFrames, key: str, wanted: Situation) -> bool:
    if wanted.parameters is not None and parameters_of(study, key) > wanted.parameters:
        return False
    # Not-a-number is no answer to what was asked, so such a row does not fit.
    if wanted.milliseconds is not None and not latency_of(study, key) <= wanted.milliseconds:
        return False
    if wanted.budget is None:
        return True
    record, (currency, amount) = records_of(study, key)[0], wanted.budget
    return bool(record.budget["currency"] == currency and amount / NEAR <= record.budget["amount"] <= amount * NEAR)


def _nearest(study: StudyFrames, wanted: Situation) -> str:
    """What the study ran instead of what is asked."""
    records = [records_of(study, key)[0] for key in row_names(study, "method")]
    budgets = sorted({f"{record.budget['currency']}={record.budget['amount']:g}" for record in records})
    sizes = sorted({f"{parameters_of(study, key) / 1e6:.2f}M" for key in row_names(study, "method")})
    parts = [f"it ran budgets {', '.join(budgets)} and students of {', '.join(sizes)} parameters"]
    known = [value for key in row_names(study, "method") if not math.isnan(value := latency_of(study, key))]
    if wanted.milliseconds is not None and known:
        parts.append(f"its fastest row takes {min(known):.1f} ms a query")
    if wanted.budget is not None:
        currency, amount = wanted.budget
        parts.append(f"to know, run it with --budget {currency}={amount:g}")
    return "; ".join(parts)
