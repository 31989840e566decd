"""What ablations found: effects of factors and their interactions, paired over seeds and examples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import pandas as pd

from distilbench.analysis import stats
from distilbench.analysis.comparable import conflicts, settings_of
from distilbench.analysis.frame import OVERALL, StudyFrames
from distilbench.analysis.verdicts import Inference, Verdict
from distilbench.records.design import Ablation, AblationRow
from distilbench.reporting.notes import caution
from distilbench.reporting.render import Table

DASH = "—"
TIMES = " x "
INTERACTION: dict[Verdict, str] = {
    "better": "more than the sum",
    "worse": "less than the sum",
    "equivalent": "the sum",
    "undecided": "undecided",
}


@dataclass(frozen=True)
class Effect:
    """One change of an ablation and what it does: a weighted sum of the scores of its cells."""

    ablation: str
    factor: str
    change: str
    labels: dict[str, float]
    """Label of a cell -> its weight in the difference."""
    interaction: bool = False
    """A difference of differences."""
    estimates: dict[str, stats.Estimate] = field(default_factory=dict)
    """Column -> the effect; empty where a cell is missing."""
    p_differs: float = math.nan
    """Adjusted for all effects of the ablation (Holm)."""
    verdict: Verdict | None = None
    alpha: float = math.nan
    """What is left of the error for this effect at the first step of Holm's procedure."""

    @property
    def says(self) -> str:
        """The verdict in words."""
        if self.verdict is None:
            return "a cell is missing"
        return INTERACTION[self.verdict] if self.interaction else self.verdict


def effects(inference: Inference, ablations: Sequence[Ablation]) -> list[Effect]:
    """All effects of all ablations with their verdicts on the overall score; nothing where it cannot be compared."""
    if OVERALL not in inference.columns:
        return []
    return [effect for ablation in ablations for effect in _judged(inference, ablation)]


def _judged(inference: Inference, ablation: Ablation) -> Iterator[Effect]:
    asked = list(_asked(ablation))
    whole = keys_of(inference.study, [cell.label for cell in ablation.cells], apart(ablation))
    keys = [whole or keys_of(inference.study, list(item.labels), apart(ablation)) for item in asked]
    cells = list(dict.fromkeys(key for found in keys if found for key in found.values()))
    columns = [column for column in map(str, inference.study.averages) if column in inference.columns]
    spread = {column: inference.residual_variance(cells, column) for column in columns}
    estimates = [_estimates(inference, item, found, spread) for item, found in zip(asked, keys, strict=True)]
    there = [found[OVERALL] for found in estimates if found]
    differs = iter(stats.holm([item.p_differs() for item in there]))
    within = iter(stats.holm([item.p_within(inference.study.margin) for item in there]))
    for item, found in zip(asked, estimates, strict=True):
        if not found:
            yield item
            continue
        p_differs = next(differs)
        yield Effect(
            **{name: getattr(item, name) for name in ("ablation", "factor", "change", "labels", "interaction")},
            estimates=found,
            p_differs=p_differs,
            verdict=inference.judge(found[OVERALL], p_differs, next(within)),
            alpha=inference.alpha / len(there),
        )


def _estimates(
    inference: Inference, effect: Effect, keys: dict[str, str] | None, spread: dict[str, tuple[float, float]]
) -> dict[str, stats.Estimate]:
    """The effect on each column; its error between seeds is at least what that of all cells makes likely."""
    if keys is None:
        return {}
    weights = {keys[label]: weight for label, weight in effect.labels.items()}
    found = {}
    for column, (variance, freedom) in spread.items():
        item = inference.contrast(weights, column)
        if item is not None and item.seeds > 1:
            item = item.steadied(variance * sum(weight**2 for weight in weights.values()) / item.seeds, freedom)
        if item is not None:
            found[column] = item
    return found


def _asked(ablation: Ablation) -> Iterator[Effect]:
    """The effects that a design is for, with the weights of its cells."""
    if ablation.design != "factorial":
        base = ablation.cells[0]
        for cell in ablation.cells[1:]:
            for factor, level in cell.levels.items():
                change = f"{ablation.factors[factor][0]} → {level}"
                yield Effect(ablation.name, factor, change, _sum([(cell, 1.0), (base, -1.0)]))
        return
    for factor, (reference, *levels) in ablation.factors.items():
        for level in levels:
            weighted = [*_mean(ablation, {factor: level}, 1.0), *_mean(ablation, {factor: reference}, -1.0)]
            yield Effect(ablation.name, factor, f"{reference} → {level}", _sum(weighted))
    for one, other in combinations(ablation.factors, 2):
        yield from _interactions(ablation, one, other)


def _interactions(ablation: Ablation, one: str, other: str) -> Iterator[Effect]:
    (low, *levels), (other_low, *other_levels) = ablation.factors[one], ablation.factors[other]
    for level in levels:
        for other_level in other_levels:
            weighted = [
                *_mean(ablation, {one: level, other: other_level}, 1.0),
                *_mean(ablation, {one: low, other: other_level}, -1.0),
                *_mean(ablation, {one: level, other: other_low}, -1.0),
                *_mean(ablation, {one: low, other: other_low}, 1.0),
            ]
            change = f"{low} → {level}{TIMES}{other_low} → {other_level}"
            yield Effect(ablation.name, f"{one}{TIMES}{other}", change, _sum(weighted), interaction=True)


def with_levels(ablation: Ablation, levels: dict[str, str]) -> list[AblationRow]:
    """The cells that have some levels, whatever their others."""
    return [cell for cell in ablation.cells if levels.items() <= cell.levels.items()]


def _mean(ablation: Ablation, levels: dict[str, str], sign: float) -> list[tuple[AblationRow, float]]:
    cells = with_levels(ablation, levels)
    return [(cell, sign / len(cells)) for cell in cells]


def _sum(weighted: list[tuple[AblationRow, float]]) -> dict[str, float]:
    """Weight of each label; a row may stand for several cells."""
    total: Counter[str] = Counter()
    for cell, weight in weighted:
        total[cell.label] += weight  # type: ignore[assignment]
    return dict(total)


def keys_of(study: StudyFrames, labels: Sequence[str], apart: Sequence[str]) -> dict[str, str] | None:
    """Label -> key of rows that differ in some settings only, as `comparable` names them; None if a row is missing.

    A name that ends in a space stands for all settings of a section.
    """
    methods = study.rows[study.rows["role"] == "method"]
    candidates = {label: list(map(str, methods.index[methods["label"] == label])) for label in labels}
    for first in candidates[labels[0]]:
        found = {
            label: next((key for key in keys if _comparable(study, first, key, apart)), None)
            for label, keys in candidates.items()
        }
        if all(found.values()):
            return {label: str(key) for label, key in found.items()}
    return None


def _comparable(study: StudyFrames, one: str, other: str, apart: Sequence[str]) -> bool:
    mine, theirs = (
        settings_of(study.records[str(study.runs.index[study.runs["key"] == key][0])]) for key in (one, other)
    )
    sections = tuple(name for name in apart if name.endswith(" "))
    return all(name in apart or name.startswith(sections) for name in conflicts(mine, theirs))


def apart(ablation: Ablation) -> list[str]:
    """What the cells of an ablation may differ in. A changed student or text differs in its size and hash too."""
    settings = [setting for changed in ablation.apart.values() for setting in changed]
    return [
        setting.replace(".", " ") if setting.startswith("train.") else f"{setting.partition('.')[0]} "
        for setting in settings
    ]


def effect_table(study: StudyFrames, inference: Inference, found: Sequence[Effect]) -> Table | None:
    """One line for each effect: difference, interval, test, verdict; None without ablations."""
    if not found:
        return None
    groups = [str(group) for group in study.averages if str(group) != OVERALL]
    text, order = [], []
    for item in found:
        names = {"Ablation": item.ablation, "Factor": item.factor, "Change": item.change}
        overall = item.estimates.get(OVERALL)
        numbers = {
            "Difference": _points(overall),
            **{group: _points(item.estimates.get(group)) for group in groups},
            "p (Holm)": item.p_differs,
            "Detectable": math.nan if overall is None else overall.detectable(item.alpha) * 100,
            "n": math.nan if overall is None else float(overall.seeds),
        }
        shown = {
            "Difference": _shown(overall),
            **{group: _shown(item.estimates.get(group)) for group in groups},
            "p (Holm)": DASH if math.isnan(item.p_differs) else _p_value(item.p_differs),
            "Detectable": _number(numbers["Detectable"]),
            "n": DASH if overall is None else str(overall.seeds),
        }
        text.append({**names, **shown, "Verdict": item.says})
        order.append({**names, **numbers, "Verdict": item.says})
    caption = f"{study.name}: what the components do ({OVERALL})"
    return Table(
        "ablation", caption, pd.DataFrame(text), pd.DataFrame(order), _notes(study, inference, found), caution(study)
    )


def _notes(study: StudyFrames, inference: Inference, found: Sequence[Effect]) -> list[str]:
    notes = [
        "Difference: score (x100) with the change less score without it, with its 95 % interval, paired over seeds and "
        "examples. Where a component is left out, one that helps shows a negative difference. The variance between "
        "seeds is the effect's own or, where larger, that of all cells of the ablation (cells by seeds, residual).",
        f"Verdicts on {OVERALL}, adjusted by Holm's procedure over all lines of an ablation (family-wise error "
        f"{inference.alpha:g}); equivalent: shown to differ by less than {study.margin * 100:g} points; undecided: "
        "neither that nor a difference could be shown, which does not mean that the component does nothing. "
        "Detectable: the true difference that this design finds with probability 0.8.",
    ]
    if any(item.interaction for item in found):
        notes.append(
            "Factorial designs: effects are means over the levels of the other factors; lines with x are interactions, "
            "the difference of two differences: more (or less) than the sum of both changes, or the sum within the "
            "margin. Interactions of three and more factors are not shown."
        )
    if any(item.verdict is None for item in found):
        notes.append("A cell is missing: one of the rows has no completed run, or no seed that all of them have.")
    return notes


def _points(item: stats.Estimate | None) -> float:
    return math.nan if item is None else item.mean * 100


def _shown(item: stats.Estimate | None) -> str:
    if item is None:
        return DASH
    width = item.half_width() * 100
    return f"{item.mean * 100:+.2f}" + ("" if math.isnan(width) else f" ± {width:.2f}")


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else DASH


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
