"""How often a study's verdicts are wrong: measured on its records, kept beside them, shown in its report."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from distilbench.analysis.frame import ALPHA
from distilbench.core.bounds import is_there
from distilbench.core.errors import UserError
from distilbench.core.stored_json import Stored, as_type, check_shape, check_sum, read_object, write_summed

if TYPE_CHECKING:
    from distilbench.analysis.error_rates import ErrorRates, GateRates, SimulatedDesign
    from distilbench.analysis.frame import StudyFrames
    from distilbench.analysis.inference import Inference
    from distilbench.reporting.formats.render import Table

FILE = "error_rates.json"
SCHEMA = 1


class _FileShape(Stored):
    runs: str
    margin: float
    rates: list[dict[str, Any]]
    gate: list[dict[str, Any]] = Field(default_factory=list)


def measure(
    study: StudyFrames,
    inference: Inference,
    studies: int,
    design: Mapping[str, Any],
    methods: int | None,
    seeds: int | None,
) -> ErrorRates:
    """Simulate studies; `methods` and `seeds` unset are the study's own, with the runs that it lacks.

    Raises `UserError` where there is nothing to simulate from, or fewer than two methods or seeds are asked for.
    """
    from distilbench.analysis.error_rates import Population, SimulatedDesign, error_rates

    if (methods is not None and methods < 2) or (seeds is not None and seeds < 2):
        raise UserError("--methods and --seeds must be 2 or more: there is nothing to tell apart otherwise")
    population = Population.of(inference)
    own = population.there_KSC.shape
    like = methods is None and seeds is None and not design.get("equal_variances")
    asked = SimulatedDesign(methods or own[0], seeds or own[1], like_the_study=like, **design)
    return error_rates(population, asked, studies, study.margin, ALPHA)


def table(study: StudyFrames, rates: Sequence[ErrorRates]) -> Table:
    """One line for each measure, a column for each design that was simulated."""
    from distilbench.reporting.cells import Cell, decimal_cell, study_table

    measures: dict[str, Callable[[ErrorRates], float]] = {
        "Equal methods: any verdict": lambda item: item.false_verdict,
        "Equal methods: any marked as best": lambda item: item.false_best,
        "At the margin: called equivalent": lambda item: item.false_equivalence,
        "All intervals hold": lambda item: item.coverage,
        "A single 95 % interval holds": lambda item: item.single_coverage,
    }
    for points in dict.fromkeys(points for item in rates for points in item.power):
        measures[f"{points} points: found"] = partial(_power, points)
    measures["Smallest of them: wrong way round"] = lambda item: item.wrong_direction
    lines: list[Mapping[str, Cell]] = [
        {"Share (%)": name, **{_heading(item): decimal_cell(100 * measure(item), 1) for item in rates}}
        for name, measure in measures.items()
    ]
    notes = [
        "Simulated from the records of this study and judged by the same functions, all pairs and averages as one "
        "family. Shares of studies: any pair of equal methods is called better or worse; any of them is marked as best "
        "(never below three seeds); a pair whose true difference is the margin is called equivalent; all simultaneous "
        "intervals hold the true differences. Shares of pairs and averages: the others.",
        *(f"{_heading(item)}: {item.studies} studies, {_runs(item.design)}." for item in rates),
    ]
    return study_table(study, "error_rates", "how often verdicts are wrong", lines, notes)


def gate_table(study: StudyFrames, rates: Sequence[GateRates]) -> Table:
    """One line for each design of a check that was simulated."""
    from distilbench.reporting.cells import Cell, decimal_cell, study_table

    lines: list[Mapping[str, Cell]] = []
    for item in rates:
        design = item.design
        line: dict[str, Cell] = {
            "Rows": str(design.rows),
            "Seeds": f"{design.seeds} against {design.baseline_seeds}",
            "Code and seeds": "other code, same seeds" if design.paired else "same code, fresh seeds",
            "False alarm": decimal_cell(100 * item.false_alarm, 1),
            "Inconclusive": decimal_cell(100 * item.inconclusive, 1),
            "Passed": decimal_cell(100 * item.passed, 1),
        }
        for where, found in (("", item.found), (" in one row", item.found_in_one)):
            line |= {f"{points}{where}: found": decimal_cell(100 * share, 1) for points, share in found.items()}
        lines.append(line | {"Margin in one row: passed": decimal_cell(100 * item.passed_at_margin, 1)})
    checks = " or ".join(sorted({str(item.checks) for item in rates}))
    notes = [
        f"Shares (%) of {checks} checks of each design, simulated from the records of this study and judged by the "
        f"functions of distilbench check: margin {100 * study.margin:g} points, error "
        f"{', '.join(sorted({f'{item.alpha:g}' for item in rates}))}.",
        "False alarm: regressed though nothing has dropped. Inconclusive and passed (or improved): likewise. Found: "
        "regressed where all rows, or one of them, have dropped by so many points on every task. The last column: one "
        "row has dropped by the margin, and the check passes.",
    ]
    return study_table(study, "gate_error_rates", "how often the gate is wrong", lines, notes)


def note(rates: Sequence[ErrorRates]) -> list[str]:
    """Of studies like this one, a sentence under its main table."""
    return [
        f"Error rates, in {item.studies} studies simulated from these records: equal methods are told apart in "
        f"{item.false_verdict:.1%} of studies (aim: 5 %), marked as best in {item.false_best:.1%}; "
        + ", ".join(f"{float(points):g} points found in {share:.0%}" for points, share in item.power.items())
        + "."
        for item in rates
        if item.design.like_the_study and not item.design.resampled
    ][:1]


def keep(folder: Path, study: StudyFrames, found: ErrorRates) -> None:
    """Write what was measured beside the records, in the place of an older measurement of the same design."""
    rates, gate = _read(folder, study)
    rates = [item for item in rates if item.design != found.design] + [found]
    rates.sort(
        key=lambda item: (not item.design.like_the_study, item.design.methods, item.design.seeds, str(item.design))
    )
    _write(folder, study, rates, gate)


def keep_gate(folder: Path, study: StudyFrames, found: list[GateRates]) -> None:
    """Likewise of the gate, in the place of all that was measured of it."""
    _write(folder, study, _read(folder, study)[0], found)


def _write(folder: Path, study: StudyFrames, rates: Sequence[ErrorRates], gate: Sequence[GateRates]) -> None:
    content = {
        "schema": SCHEMA,
        "runs": _fingerprint(study),
        "margin": study.margin,
        "rates": [asdict(item) for item in rates],
        **({"gate": [asdict(item) for item in gate]} if gate else {}),
    }
    write_summed(folder / FILE, content)


def read(folder: Path, study: StudyFrames) -> list[ErrorRates]:
    """What was measured on these runs with this margin; nothing else counts. Raises `UserError` for a damaged file."""
    return _read(folder, study)[0]


def read_gate(folder: Path, study: StudyFrames) -> list[GateRates]:
    """Likewise of the gate."""
    return _read(folder, study)[1]


def _read(folder: Path, study: StudyFrames) -> tuple[list[ErrorRates], list[GateRates]]:
    from distilbench.analysis.error_rates import ErrorRates, GateRates

    path = folder / FILE
    try:
        if not is_there(path):
            return [], []
        content = read_object(path)
        if content.get("schema") != SCHEMA:
            raise ValueError(f"it is not of schema {SCHEMA}")
        check_sum(content)
        check_shape(_FileShape, content)
        rates = as_type(list[ErrorRates], content["rates"])
        gate = as_type(list[GateRates], content.get("gate", []))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read: {error}; delete it and run distilbench error-rates {folder} again"
        ) from None
    is_of_these = (content["runs"], content["margin"]) == (_fingerprint(study), study.margin)
    return (rates, gate) if is_of_these else ([], [])


def _fingerprint(study: StudyFrames) -> str:
    """Of the runs that the simulation was made from."""
    return hashlib.sha256("\n".join(sorted(study.records)).encode()).hexdigest()[:16]


def _power(points: str, item: ErrorRates) -> float:
    return item.power.get(points, math.nan)


def _heading(item: ErrorRates) -> str:
    design = item.design
    marks = "=" * design.equal_variances + "*" * design.resampled
    return f"{design.methods} x {design.seeds}{marks}"


def _runs(design: SimulatedDesign) -> str:
    runs = (
        "methods x seeds of the study, without the runs that it lacks" if design.like_the_study else "methods x seeds"
    )
    drawn = "resampled runs" if design.resampled else "normal runs"
    return (
        f"{runs}, {drawn}, {'equal variances' if design.equal_variances else 'each method with a variance of its own'}"
    )
