"""What the gate says, as a table and as JUnit XML."""

from __future__ import annotations

from xml.etree import ElementTree

import pandas as pd

from bench.check import BAD, Line, Outcome
from bench.report.render import Table

DASH = "—"


def as_table(outcome: Outcome) -> Table:
    """A line for each row and column, in points (x100)."""
    text = pd.DataFrame([_shown(line) for line in outcome.lines])
    order = text.copy()
    for heading, name in (("Baseline", "baseline"), ("Candidate", "candidate"), ("Difference", "difference")):
        order[heading] = [_points(getattr(line, name)) for line in outcome.lines]
    notes = [
        f"Pass: the drop is shown to be less than {outcome.margin * 100:g} points, which does not mean equal. "
        f"Regressed: a drop is shown, and not to be less than that. Error of each claim: {outcome.alpha:g}; "
        "regressions are adjusted for all lines (Holm).",
        "Averages decide; a single task, marked as guard, can fail the candidate but not hold it up.",
        "Detectable: the drop that would be found with probability 0.8.",
        *outcome.notes,
    ]
    return Table("check", f"{outcome.verdict}", text, order, notes, None)


def _points(value: float | None) -> float:
    return float("nan") if value is None else 100 * value


def _shown(line: Line) -> dict[str, str]:
    difference = DASH if line.difference is None else f"{line.difference * 100:+.2f}"
    if line.half_width is not None:
        difference += f" ± {line.half_width * 100:.2f}"
    return {
        "Row": line.label,
        "On": line.column + ("" if line.decides else " (guard)"),
        "Verdict": line.verdict + (f": {line.reason}" if line.reason else ""),
        "Baseline": _number(line.baseline),
        "Candidate": _number(line.candidate),
        "Difference": difference,
        "Detectable": _number(line.detectable),
        "Paired by": "seed, example" if line.paired else "example",
    }


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value * 100:.2f}"


def to_junit(outcome: Outcome) -> str:
    """A test case for each line: regressed is a failure, what could not be told of what decides is an error."""
    suite = ElementTree.Element("testsuite", name="distilbench check", tests=str(len(outcome.lines)))
    failures = errors = 0
    for line in outcome.lines:
        case = ElementTree.SubElement(suite, "testcase", classname=line.label, name=line.column)
        message = ", ".join(f"{name}: {value}" for name, value in _shown(line).items() if value != DASH)
        if line.verdict == "regressed":
            failures += 1
            ElementTree.SubElement(case, "failure", message=message)
        elif line.verdict in BAD or (line.verdict == "inconclusive" and line.decides):
            errors += 1
            ElementTree.SubElement(case, "error", message=message)
    suite.set("failures", str(failures))
    suite.set("errors", str(errors))
    return ElementTree.tostring(suite, encoding="unicode") + "\n"
