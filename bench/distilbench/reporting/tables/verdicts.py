"""The verdicts as tables, and what the design of a study could have found."""

from __future__ import annotations

import math
from statistics import median

import pandas as pd

from distilbench.analysis.frame import OVERALL, StudyFrames
from distilbench.analysis.stats import POWER, Estimate
from distilbench.analysis.verdicts import Comparison, Inference
from distilbench.reporting.notes import caution
from distilbench.reporting.render import Emphasis, Table

DASH = "—"
SHORT = {"better": ">", "worse": "<", "equivalent": "=", "undecided": "?"}
MORE_EXAMPLES = "no number"


def verdict_table(study: StudyFrames, inference: Inference, column: str = OVERALL) -> Table:
    """One line per pair of rows: difference, interval, tests, effect, verdict."""
    text, order = [], []
    for item in inference.comparisons(column):
        difference, width = item.difference.mean * 100, item.difference.half_width() * 100
        numbers = {
            "Difference": difference,
            "p (Holm)": item.p_differs,
            "d": item.effect,
            "P(improvement)": item.improvement,
            "Detectable": item.tested.detectable(item.alpha) * 100,
        }
        names = {"Method": _name(study, item.one), "Against": _name(study, item.other)}
        shown = {
            "Difference": f"{difference:+.2f}" + ("" if math.isnan(width) else f" ± {width:.2f}"),
            "p (Holm)": _p_value(item.p_differs),
            **{name: _number(numbers[name], 2) for name in ("d", "P(improvement)", "Detectable")},
        }
        text.append({**names, **shown, "Verdict": item.verdict})
        order.append({**names, **numbers, "Verdict": item.verdict})
    notes = [
        f"Differences of {column} in points (x100), the first less the second, with 95 % intervals over seeds and "
        "examples, both paired. d: mean difference over its standard deviation between seeds. P(improvement): that a "
        "run of the first beats one of the second on a task drawn at random.",
        f"Equivalent: shown to differ by less than {study.margin * 100:g} points. Undecided: neither that nor a "
        "difference could be shown; it does not mean equal. Adjusted for all pairs by Holm's procedure.",
        *power_notes(inference, column),
    ]
    caption = f"{study.name}: which differences are real ({column})"
    return Table("verdicts", caption, _frame(text), _frame(order), notes, caution(study))


def verdict_matrix(study: StudyFrames, inference: Inference, column: str = OVERALL) -> Table:
    """Rows against rows, a sign in each cell."""
    compared = {key for item in inference.comparisons(column) for key in (item.one, item.other)}
    keys = [str(key) for key in study.rows.index if key in compared]
    lines = []
    for one in keys:
        verdicts = {other: inference.verdict(one, other, column) for other in keys}
        signs = {_name(study, other): SHORT[v] if (v := verdicts[other]) else "" for other in keys}
        lines.append({"Method": _name(study, one), **signs})
    notes = [
        "Read along a line: > better than, < worse than, = equivalent to the method of the column, ? undecided.",
        f"By {column}; family-wise error {inference.alpha:g} (Holm); equivalent means within "
        f"{study.margin * 100:g} points.",
    ]
    frame = _frame(lines)
    return Table("verdict_matrix", f"{study.name}: verdicts ({column})", frame, frame, notes, caution(study))


def power_table(study: StudyFrames, inference: Inference, delta: float | None = None, column: str = OVERALL) -> Table:
    """One line per pair: what the design can find, and how many seeds would settle it.

    `delta` is the difference to be found, in points; unset, that which was observed.
    """
    text, order = [], []
    for item in inference.comparisons(column):
        wanted = abs(item.difference.mean) if delta is None else delta / 100
        seeds, share = item.tested.seeds_needed(wanted, item.alpha), _seed_share(item.tested)
        names = {"Method": _name(study, item.one), "Against": _name(study, item.other)}
        numbers = {
            "Difference": item.difference.mean * 100,
            "Detectable": item.tested.detectable(item.alpha) * 100,
            "Of the variance, seeds (%)": share * 100,
            "Seeds needed": float(seeds or math.inf),
        }
        shown = {name: _number(value, 2 if "seeds" not in name else 0) for name, value in numbers.items()}
        shown["Seeds needed"] = str(seeds) if seeds else MORE_EXAMPLES
        text.append({**names, **shown, "Verdict": item.verdict})
        order.append({**names, **numbers, "Verdict": item.verdict})
    what = "the observed difference" if delta is None else f"a difference of {delta:g} points"
    notes = [
        f"Detectable: the true difference in points that this design finds with probability {POWER:g}. Seeds needed to "
        f"find {what} so often; '{MORE_EXAMPLES}': the examples' share of the error is too large for any.",
        *power_notes(inference, column),
    ]
    caption = f"{study.name}: what this design can find ({column})"
    return Table("power", caption, _frame(text), _frame(order), notes, caution(study))


def power_notes(inference: Inference, column: str = OVERALL) -> list[str]:
    """The power of the design in a sentence; nothing where there are no comparisons."""
    items = inference.comparisons(column)
    found = [value for item in items if math.isfinite(value := item.tested.detectable(item.alpha) * 100)]
    if not items:
        return []
    if not found:
        return ["With one seed no difference between two methods can be shown; run more."]
    undecided = [item for item in items if item.verdict == "undecided"]
    sentence = (
        f"Power: with this design a true difference of {median(found):.2f} points of {column} between two rows (median "
        f"over {len(found)} pairs; {min(found):.2f} to {max(found):.2f}) is found with probability {POWER:g}."
    )
    return [sentence, *([_settling(undecided)] if undecided else [])]


def _settling(undecided: list[Comparison]) -> str:
    seeds = [item.tested.seeds_needed(item.tested.mean, item.alpha) for item in undecided]
    reachable = [count for count in seeds if count is not None]
    parts = []
    if reachable:
        parts.append(f"{len(reachable)} would be settled by {min(reachable)} to {max(reachable)} seeds")
    if len(reachable) < len(seeds):
        parts.append(f"{len(seeds) - len(reachable)} only by more examples")
    return (
        f"Of {len(undecided)} undecided pairs, if their true difference is the observed one, {' and '.join(parts)}; "
        "distilbench power lists them."
    )


def emphasis(table: Table, study: StudyFrames, inference: Inference, columns: dict[str, str]) -> Table:
    """The table with best and second marked, in the columns whose heading -> column of scores is given."""
    keys = list(map(str, study.rows.index))
    marks: dict[tuple[int, str], Emphasis] = {}
    for heading, column in columns.items():
        for key, mark in inference.leaders(column).items():
            marks[keys.index(key), heading] = mark
    notes = [*table.notes, _emphasis_note(bool(marks))]
    return Table(table.name, table.caption, table.text, table.order, notes, table.mark, marks)


def _emphasis_note(marked: bool) -> str:
    if not marked:
        return "No method is marked as best: none is shown to be better than all others."
    return "Best and second are marked only where the verdicts say that they are better than all methods behind them."


def _name(study: StudyFrames, key: str) -> str:
    return str(study.rows.at[key, "row"])


def _seed_share(difference: Estimate) -> float:
    total = difference.seed_variance + difference.example_variance
    return difference.seed_variance / total if total else 0.0


def _number(value: float, digits: int) -> str:
    return DASH if not math.isfinite(value) else f"{value:.{digits}f}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _frame(lines: list[dict[str, object]] | list[dict[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(lines)
