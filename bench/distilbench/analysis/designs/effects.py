"""What ablations found: effects of factors and their interactions, paired over seeds and examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from math import prod

from distilbench.analysis import stats
from distilbench.analysis.comparable import conflicts, settings_of
from distilbench.analysis.frame import OVERALL, StudyFrames, records_of
from distilbench.analysis.inference import Inference
from distilbench.analysis.verdicts import Judgement, Verdict
from distilbench.records.design import Ablation, AblationRow

TIMES = " x "


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
    judgement: Judgement | None = None
    """Of the overall score, among all effects of the ablation; None where a cell is missing."""

    @property
    def verdict(self) -> Verdict | None:
        """What can be said of the overall score; None where a cell is missing."""
        return self.judgement.verdict if self.judgement else None


def effects(inference: Inference, ablations: Sequence[Ablation]) -> list[Effect]:
    """All effects of all ablations with their verdicts on the overall score; nothing where it cannot be compared."""
    if OVERALL not in inference.columns:
        return []
    return [effect for ablation in ablations for effect in _judged(inference, ablation)]


def _judged(inference: Inference, ablation: Ablation) -> list[Effect]:
    study, asked = inference.study, list(_asked(ablation))
    whole = keys_of(study, [cell.label for cell in ablation.cells], changed_settings(ablation))
    keys = [whole or keys_of(study, list(item.labels), changed_settings(ablation)) for item in asked]
    cells = list(dict.fromkeys(key for of_effect in keys if of_effect for key in of_effect.values()))
    columns = [column for column in map(str, study.averages) if column in inference.columns]
    weighted = [
        {of_effect[label]: weight for label, weight in item.labels.items()}
        for item, of_effect in zip(asked, keys, strict=True)
        if of_effect
    ]
    if not weighted:
        return asked
    found, judged = inference.judged(weighted, columns, beside=cells, alike=True)
    lines = iter(zip(found.estimates, judged, strict=True))
    return [
        _with_estimates(item, columns, *next(lines)) if known else item for item, known in zip(asked, keys, strict=True)
    ]


def _with_estimates(
    item: Effect, columns: list[str], estimates: list[stats.Estimate | None], judged: list[Judgement | None]
) -> Effect:
    known = {column: found for column, found in zip(columns, estimates, strict=True) if found is not None}
    judgement = judged[columns.index(OVERALL)]
    return item if judgement is None else replace(item, estimates=known, judgement=judgement)


def _asked(ablation: Ablation) -> Iterator[Effect]:
    """The effects that a design is for, with the weights of its cells: alone and, of factorial ones, by twos."""
    if ablation.design != "factorial":
        base = ablation.cells[0]
        for cell in ablation.cells[1:]:
            for factor, level in cell.levels.items():
                change = f"{ablation.factors[factor][0]} → {level}"
                yield Effect(ablation.name, factor, change, _sum([(cell, 1.0), (base, -1.0)]))
        return
    for together in (1, 2):
        for factors in combinations(ablation.factors, together):
            for levels in product(*(ablation.factors[factor][1:] for factor in factors)):
                yield _crossed(ablation, dict(zip(factors, levels, strict=True)))


def _crossed(ablation: Ablation, levels: dict[str, str]) -> Effect:
    """What it does that some factors are at these levels and not at their first: the difference, or that of two."""
    changes = {factor: (level, ablation.factors[factor][0]) for factor, level in levels.items()}
    weighted = []
    for chosen in product(*changes.values()):
        cells = with_levels(ablation, dict(zip(levels, chosen, strict=True)))
        sign = prod(1.0 if at == level else -1.0 for at, level in zip(chosen, levels.values(), strict=True))
        weighted += [(cell, sign / len(cells)) for cell in cells]
    change = TIMES.join(f"{reference} → {level}" for level, reference in changes.values())
    return Effect(ablation.name, TIMES.join(levels), change, _sum(weighted), interaction=len(levels) > 1)


def with_levels(ablation: Ablation, levels: dict[str, str]) -> list[AblationRow]:
    """The cells that have some levels, whatever their others."""
    return [cell for cell in ablation.cells if levels.items() <= cell.levels.items()]


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
        keys = {
            label: next((key for key in fitting if _comparable(study, first, key, apart)), None)
            for label, fitting in candidates.items()
        }
        if all(keys.values()):
            return {label: str(key) for label, key in keys.items()}
    return None


def _comparable(study: StudyFrames, one: str, other: str, apart: Sequence[str]) -> bool:
    mine, theirs = (settings_of(records_of(study, key)[0]) for key in (one, other))
    sections = tuple(name for name in apart if name.endswith(" "))
    return all(name in apart or name.startswith(sections) for name in conflicts(mine, theirs))


def changed_settings(ablation: Ablation) -> list[str]:
    """What the cells of an ablation may differ in. A changed student or text differs in its size and hash too."""
    settings = [setting for changed in ablation.apart.values() for setting in changed]
    return [
        setting.replace(".", " ") if setting.startswith("train.") else f"{setting.partition('.')[0]} "
        for setting in settings
    ]
