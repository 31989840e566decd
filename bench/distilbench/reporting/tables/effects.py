"""What ablations found, as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from distilbench.analysis.designs.effects import Effect
from distilbench.analysis.frame import ALPHA, OVERALL, StudyFrames
from distilbench.analysis.inference import Inference
from distilbench.analysis.verdicts import Verdict
from distilbench.reporting.cells import DASH, Cell, decimal_cell, difference_cell, p_value, study_table
from distilbench.reporting.formats.render import Table

INTERACTION: dict[Verdict, str] = {
    "better": "more than the sum",
    "worse": "less than the sum",
    "equivalent": "the sum",
    "undecided": "undecided",
}


def effect_table(study: StudyFrames, inference: Inference, effects: Sequence[Effect]) -> Table | None:
    """One line for each effect: difference, interval, test, verdict; None without ablations."""
    if not effects:
        return None
    groups = [str(group) for group in study.averages if str(group) != OVERALL]
    lines = [_line(item, groups) for item in effects]
    return study_table(
        study, "ablation", f"what the components do ({OVERALL})", lines, _notes(study, inference, effects)
    )


def _line(item: Effect, groups: list[str]) -> Mapping[str, Cell]:
    judged, overall = item.judgement, item.estimates.get(OVERALL)
    unknown, alpha = (DASH, math.nan), judged.alpha if judged else ALPHA
    return {
        "Ablation": item.ablation,
        "Factor": item.factor,
        "Change": item.change,
        "Difference": difference_cell(overall, alpha),
        **{group: difference_cell(item.estimates.get(group), alpha) for group in groups},
        "p (adjusted)": (p_value(judged.p_differs), judged.p_differs) if judged else unknown,
        "Detectable": decimal_cell(overall.detectable(judged.alpha) * 100) if judged and overall else unknown,
        "n": (str(overall.seeds), float(overall.seeds)) if overall else unknown,
        "Verdict": _verdict(item),
    }


def _verdict(item: Effect) -> str:
    if item.verdict is None:
        return "a cell is missing"
    return INTERACTION[item.verdict] if item.interaction else item.verdict


def _notes(study: StudyFrames, inference: Inference, effects: Sequence[Effect]) -> list[str]:
    notes = [
        "Difference: score (x100) with the change less score without it, paired over seeds and examples, with an "
        f"interval: all intervals of an ablation hold together with {1 - ALPHA:.0%} confidence. Where a "
        "component is left out, one that helps shows a negative difference. The variance between seeds is half the "
        "effect's own and half what the cells of the ablation vary by in the middle.",
        f"Verdicts on {OVERALL} follow from the intervals; equivalent: shown to differ by less than "
        f"{study.margin * 100:g} points; undecided: "
        "neither that nor a difference could be shown, which does not mean that the component does nothing. "
        "Detectable: the true difference that this design finds with probability 0.8.",
    ]
    if any(item.interaction for item in effects):
        notes.append(
            "Factorial designs: effects are means over the levels of the other factors; lines with x are interactions, "
            "the difference of two differences: more (or less) than the sum of both changes, or the sum within the "
            "margin. Interactions of three and more factors are not shown."
        )
    if any(item.verdict is None for item in effects):
        notes.append("A cell is missing: one of the rows has no completed run, or no seed that all of them have.")
    return notes
