"""Advice for a stated situation, from stored records: which methods to take, how sure that is, what to run next.

Studies are never pooled and nothing is extrapolated: a study speaks only for its own teacher, students, text, tasks
and budget, and only where the situation that is asked about is one that it ran.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from distilbench.analysis.frame import OVERALL, StudyFrames, make_study, median_costs, records_of, row_names
from distilbench.analysis.inference import Inference
from distilbench.core.errors import UserError, one_of
from distilbench.records.record import read_study
from distilbench.reporting import study_folders
from distilbench.reporting.cells import DASH, Cell, decimals, number, plus_minus, study_table
from distilbench.reporting.render import Table
from distilbench.reporting.tables.budgets import CURRENCIES
from distilbench.reporting.tables.verdicts import power_notes
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
            fitting = list(_rankings(*with_errors(study, folder), keys))
            tables += fitting
            reason = None if fitting else "it has no two methods that fit and have the same scored examples"
        if reason is not None:
            reasons.append(f"{folder.name}: {reason}")
    return tables, reasons


def _rankings(study: StudyFrames, inference: Inference, keys: list[str]) -> Iterator[Table]:
    """One for each set of rows that may be compared."""
    letters = study.runs.groupby("key")["letters"].first()
    for letter in dict.fromkeys(letters[keys]):
        alike = [key for key in keys if letters[key] == letter and inference.score(key, OVERALL) is not None]
        if len(alike) > 1 and inference.comparisons():
            yield _ranking(study, inference, alike)


def _latency(study: StudyFrames, key: str) -> float:
    """Milliseconds for one query, the median over seeds; not-a-number where no record states it."""
    return _over_seeds(study, key, "query_ms")


def _parameters(study: StudyFrames, key: str) -> float:
    """Of the model that ships, with its head where the records know that."""
    counted = _over_seeds(study, key, "parameters")
    return float(records_of(study, key)[0].student["parameters"]) if math.isnan(counted) else counted


def _over_seeds(study: StudyFrames, key: str, name: str) -> float:
    values = [
        record.speed[name] for record in records_of(study, key) if record.status == "completed" and name in record.speed
    ]
    return median(values) if values else math.nan


def _fits(study: StudyFrames, key: str, wanted: Situation) -> bool:
    if wanted.parameters is not None and _parameters(study, key) > wanted.parameters:
        return False
    # Not-a-number is no answer to what was asked, so such a row does not fit.
    if wanted.milliseconds is not None and not _latency(study, key) <= wanted.milliseconds:
        return False
    if wanted.budget is None:
        return True
    record, (currency, amount) = records_of(study, key)[0], wanted.budget
    return bool(record.budget["currency"] == currency and amount / NEAR <= record.budget["amount"] <= amount * NEAR)


def _nearest(study: StudyFrames, wanted: Situation) -> str:
    """What the study ran instead of what is asked."""
    records = [records_of(study, key)[0] for key in row_names(study, "method")]
    budgets = sorted({f"{record.budget['currency']}={record.budget['amount']:g}" for record in records})
    sizes = sorted({f"{_parameters(study, key) / 1e6:.2f}M" for key in row_names(study, "method")})
    parts = [f"it ran budgets {', '.join(budgets)} and students of {', '.join(sizes)} parameters"]
    known = [value for key in row_names(study, "method") if not math.isnan(value := _latency(study, key))]
    if wanted.milliseconds is not None and known:
        parts.append(f"its fastest row takes {min(known):.1f} ms a query")
    if wanted.budget is not None:
        currency, amount = wanted.budget
        parts.append(f"to know, run it with --budget {currency}={amount:g}")
    return "; ".join(parts)


def _ranking(study: StudyFrames, inference: Inference, keys: list[str]) -> Table:
    scores = {key: score for key in keys if (score := inference.score(key, OVERALL)) is not None}
    ordered = sorted(keys, key=lambda key: -scores[key].mean)
    lines = [_line(inference, key, place, ordered[0]) for place, key in enumerate(ordered, start=1)]
    notes = [
        *_advice(study, inference, ordered),
        _where(study, ordered[0]),
        *_machines(study, keys),
        *power_notes(inference),
    ]
    return study_table(study, "advice", f"advice, by {OVERALL} (x100)", lines, notes)


def _line(inference: Inference, key: str, place: int, first: str) -> Mapping[str, Cell]:
    study, score = inference.study, inference.score(key, OVERALL)
    assert score is not None
    verdict = inference.verdict(key, first)
    seeds = _seeds(inference, key, first) if verdict == "undecided" else None
    costs, latency = median_costs(study), _latency(study, key)
    cost = float(costs["seconds_train"][key]) if "seconds_train" in costs else math.nan
    return {
        "Place": place,
        "Method": row_names(study, "method")[key],
        "n": score.seeds,
        "Score": (plus_minus(score.mean * 100, score.half_width() * 100), score.mean),
        "Against the first": verdict or ("highest score" if key == first else "not compared"),
        "Seeds to settle": (DASH if verdict != "undecided" else str(seeds or "no number"), float(seeds or math.nan)),
        "Training (s)": (number(cost), cost),
        "Query (ms)": (decimals(latency, 1), latency),
    }


def _machines(study: StudyFrames, keys: list[str]) -> list[str]:
    """What the latencies hold for."""
    timed = [record for key in keys for record in records_of(study, key) if "query_ms" in record.speed]
    if not timed:
        return []
    machines = sorted({_machine(record.environment) for record in timed})
    note = f"Query: median time for a sentence alone, tokenising included, on {' and on '.join(machines)}"
    mixed = "; rows of different machines are not to be compared in it" if len(machines) > 1 else ""
    return [f"{note}, whatever else that was doing{mixed}. Elsewhere it is another."]


def _machine(environment: dict[str, Any]) -> str:
    on_cpu = f"{environment['cpu']} ({environment['threads']} threads)"
    return on_cpu if environment["device"] == "cpu" else str(environment["device"])


def _seeds(inference: Inference, one: str, other: str) -> int | None:
    """Seeds that would tell two rows apart, if their difference is the observed one; None where none would."""
    item = inference.comparison(one, other)
    if item is None or math.isnan(item.tested.error):
        return None
    return item.tested.seeds_needed(item.tested.mean, item.alpha)


def _advice(study: StudyFrames, inference: Inference, ordered: list[str]) -> list[str]:
    names, (first, *others) = row_names(study, "method"), ordered
    open_ones = [key for key in others if inference.verdict(key, first) not in ("worse", "equivalent")]
    equal = [names[key] for key in others if inference.verdict(key, first) == "equivalent"]
    beaten = len(others) - len(open_ones) - len(equal)
    sure = f"family-wise error {inference.alpha:g}"
    if not open_ones:
        also = f", equivalent within {study.margin * 100:g} points to {', '.join(equal)}" if equal else ""
        return [f"Take {names[first]}: better than {beaten} of {len(others)} others ({sure}){also}."]
    among = ", ".join(names[key] for key in [first, *open_ones])
    sentences = [f"Undecided between {among}: none of the others is shown to be worse than the first ({sure})."]
    needed = [_seeds(inference, key, first) for key in open_ones]
    reachable = [seeds for seeds in needed if seeds]
    if reachable:
        sentences.append(
            f"Run next: the same study with seeds={max(reachable)}, which would settle {len(reachable)} of "
            f"{len(needed)} if the true differences are those observed."
        )
    elif study.runs["seed"][study.runs["role"] == "method"].nunique() < 2:
        sentences.append("Run next: the same study with seeds=5; with one seed nothing can be shown.")
    if len(reachable) < len(needed):
        sentences.append("Where no number of seeds settles it, add tasks or examples, or take the cheaper one.")
    return sentences


def _where(study: StudyFrames, key: str) -> str:
    record = records_of(study, key)[0]
    tuned = record.ledger["tuning_trials"]
    return (
        f"This holds for the teacher {record.teacher['name']}, students of {_parameters(study, key) / 1e6:.2f}M "
        f"parameters, {record.budget['amount']:g} {record.budget['currency']} of {record.text['source']} and the tasks "
        f"{', '.join(map(str, study.tasks.index))}; methods {f'tuned by {tuned} trainings' if tuned else 'not tuned'}. "
        "Nothing is said of other situations."
    )
