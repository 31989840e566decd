"""What the gate says: as plain text for a terminal, as a table, and as JUnit XML."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from dataclasses import replace
from itertools import groupby
from xml.etree import ElementTree

import pandas as pd

from distilbench.core.escape import escape_github, visible
from distilbench.gate.check import BAD, CheckLine, CheckResult
from distilbench.gate.judging.columns import ALL_ROWS
from distilbench.reporting.cells import DASH, decimals, plus_minus
from distilbench.reporting.formats.render import Table

WIDTH, NAME_WIDTH = 80, 25
HEADINGS = ("On", "Verdict", "Before", "Now", "Change", "MDE")


def printable(outcome: CheckResult) -> CheckResult:
    """The outcome with names and reasons as they can be printed."""
    lines = [
        replace(line, label=visible(line.label), column=visible(line.column), reason=visible(line.reason))
        for line in outcome.lines
    ]
    return replace(outcome, lines=lines, notes=list(map(visible, outcome.notes)))


def headline(outcome: CheckResult) -> str:
    """The verdict, and in one sentence why."""
    same = [line for line in outcome.lines if line.verdict == outcome.verdict and line.decides]
    same += [line for line in outcome.lines if line.verdict == outcome.verdict and not line.decides]
    if outcome.verdict == "pass":
        deciding = sum(line.decides and line.difference is not None for line in outcome.lines)
        columns = "the one column that decides" if deciding == 1 else f"all {deciding} columns that decide"
        return f"PASS: on {columns}, the drop is shown to be less than {outcome.margin * 100:g} points"
    worst = min(same, key=lambda line: (not line.decides, line.difference or 0.0))
    more = f" (and {len(same) - 1} more)" if len(same) > 1 else ""
    return f"{outcome.verdict.upper()}: {_why(worst, outcome)}{more}"


def _why(line: CheckLine, outcome: CheckResult) -> str:
    where = f"{line.label} on {line.column}"
    if line.difference is None or line.verdict in BAD:
        return f"{where}: {line.reason.partition('; ')[0]}".rstrip(".")
    if line.reason:
        return f"{where}: {_change(line)} points; {line.reason}"
    if line.verdict == "inconclusive":
        return f"{where}: {_change(line)} points neither shows a drop nor rules out one of {outcome.margin * 100:g}"
    return f"{where}: {_change(line)} points"


def explanations(outcome: CheckResult) -> list[str]:
    """What a reader of the lines must know."""
    return [
        f"pass: the drop is shown to be less than {outcome.margin * 100:g} points, which does not mean equal. "
        f"regressed: a drop is shown, and not to be less than that. Error of each claim: {outcome.alpha:g}; "
        "regressions are adjusted for all lines.",
        "Columns that decide count in full; a guard, or a slice of the examples (STS: long), can fail the candidate, "
        "but not hold it up.",
        "Before, Now: score x100. Change: with its 95 % interval. MDE, minimum detectable effect: the drop that this "
        "check would call regressed with probability 0.8; with fresh seeds, where nothing differs.",
        *_means(outcome),
        *_sizes(outcome),
        *outcome.notes,
    ]


def _means(outcome: CheckResult) -> list[str]:
    """What the mean over rows is, where there is one."""
    said = f"{ALL_ROWS}: their mean, in which a row whose seeds differ much has little weight."
    return [said] if any(line.label == ALL_ROWS for line in outcome.lines) else []


def _sizes(outcome: CheckResult) -> list[str]:
    """How many examples the slices have."""
    sizes = {line.column: line.examples for line in outcome.lines if line.examples}
    parts = [f"{column} {' + '.join(map(str, counts.values()))}" for column, counts in sizes.items()]
    return [f"Examples in slices: {', '.join(parts)}."] if parts else []


def to_text(outcome: CheckResult) -> str:
    """At most 80 columns, but for names that are longer; words are never broken."""
    outcome = printable(outcome)
    parts = [textwrap.fill(headline(outcome), WIDTH, break_long_words=False, break_on_hyphens=False)]
    columns = {line.column for line in outcome.lines}
    if len(columns) == 1:
        parts.append("\n".join([*_row((f"On {columns.pop()}", *HEADINGS[1:])), *_block(outcome.lines, by_label=True)]))
    else:
        parts.append("\n".join(_row(HEADINGS)))
        for label, lines in groupby(outcome.lines, key=lambda line: line.label):
            parts.append("\n".join([label, *_block(list(lines), by_label=False)]))
    notes = [
        textwrap.fill(note, WIDTH, subsequent_indent="  ", break_long_words=False) for note in explanations(outcome)
    ]
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def _block(lines: list[CheckLine], *, by_label: bool) -> list[str]:
    text = []
    for line in lines:
        cells = _cells(line)
        text += _row((line.label, *cells[1:]) if by_label else cells)
        for reason in line.reason.split("; ") if line.reason else []:
            text.append(textwrap.fill(reason, WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 6))
    return text


def _row(cells: tuple[str, ...]) -> list[str]:
    name, verdict, before, now, change, mde = cells
    figures = f"{verdict:<14} {before:>6} {now:>6} {change:>14} {mde:>5}".rstrip()
    if len(name) <= NAME_WIDTH and len(verdict) <= len("not comparable"):
        return [f"  {name:<{NAME_WIDTH}} {figures}"]
    return [f"  {name}", f"  {'':<{NAME_WIDTH}} {figures}"]


def _cells(line: CheckLine) -> tuple[str, ...]:
    name = line.column + ("" if line.decides or line.examples else " (guard)")
    before, now, mde = (decimals(_points(value)) for value in (line.baseline, line.candidate, line.detectable))
    return name, line.verdict, before, now, _change(line), mde


def as_table(outcome: CheckResult) -> Table:
    """A line for each row and column, in points (x100)."""
    outcome = printable(outcome)
    text = pd.DataFrame([_shown(line) for line in outcome.lines])
    order = text.copy()
    for heading, name in (("Before", "baseline"), ("Now", "candidate"), ("Change", "difference")):
        order[heading] = [_points(getattr(line, name)) for line in outcome.lines]
    return Table("check", headline(outcome), text, order, explanations(outcome), None)


def _shown(line: CheckLine) -> dict[str, str]:
    named = dict(zip(HEADINGS, _cells(line), strict=True))
    why = f": {line.reason}" if line.reason else ""
    return {
        "Row": line.label,
        **named,
        "Verdict": line.verdict + why,
        "Paired by": "seed, example" if line.paired else "example",
    }


def _change(line: CheckLine) -> str:
    return plus_minus(_points(line.difference), _points(line.half_width), signed=True)


def _points(value: float | None) -> float:
    return math.nan if value is None else 100 * value


def to_junit(outcome: CheckResult) -> str:
    """A test case for each line: regressed is a failure; what could not be told is an error, of a guard skipped."""
    outcome = printable(outcome)
    suite = ElementTree.Element("testsuite", name="distilbench check", tests=str(len(outcome.lines)))
    counts: Counter[str] = Counter()
    for line in outcome.lines:
        case = ElementTree.SubElement(suite, "testcase", classname=line.label, name=line.column)
        if tag := _junit_tag(line):
            counts[tag] += 1
            message = ", ".join(f"{name}: {value}" for name, value in _shown(line).items() if value != DASH)
            ElementTree.SubElement(case, tag, message=message)
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(counts[tag]))
    return ElementTree.tostring(suite, encoding="unicode") + "\n"


def _junit_tag(line: CheckLine) -> str | None:
    if line.verdict == "regressed":
        return "failure"
    if line.verdict in BAD:
        return "error"
    if line.verdict == "inconclusive":
        return "error" if line.decides else "skipped"
    return None


def to_github(outcome: CheckResult) -> list[str]:
    """Workflow commands: an error for each line that regressed, a warning for each that decides and cannot be told."""
    commands = []
    for line in outcome.lines:
        failed = line.verdict == "regressed"
        if failed or (line.decides and line.verdict in ("inconclusive", *BAD)):
            title = escape_github(f"{line.verdict}: {line.label} on {line.column}", is_property=True)
            kind = "error" if failed else "warning"
            commands.append(f"::{kind} title={title}::{escape_github(_why(line, outcome))}")
    return commands
