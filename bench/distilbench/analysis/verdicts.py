"""Which differences are real: better, worse, equivalent, or undecided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from distilbench.analysis import stats

Verdict = Literal["better", "worse", "equivalent", "undecided"]
REVERSED: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Judgement:
    """What can be said of one of several differences that are tested together."""

    p_differs: float
    """Adjusted for all of them (Holm)."""
    p_within: float
    """Likewise, of the hypothesis that the difference is the margin or more."""
    verdict: Verdict
    alpha: float
    """What is left of the error for it at the first step of Holm's procedure."""


def judge(differences: Sequence[stats.Estimate], margin: float, alpha: float) -> list[Judgement]:
    """What can be said of each difference, with family-wise error `alpha`."""
    differs = stats.holm([item.p_differs() for item in differences])
    within = stats.holm([item.p_within(margin) for item in differences])
    return [
        Judgement(p_differs, p_within, _verdict(item.mean, p_differs, p_within, alpha), alpha / len(differences))
        for item, p_differs, p_within in zip(differences, differs, within, strict=True)
    ]


def _verdict(mean: float, p_differs: float, p_within: float, alpha: float) -> Verdict:
    if p_within < alpha:
        return "equivalent"
    if p_differs < alpha:
        return "better" if mean > 0 else "worse"
    return "undecided"


@dataclass(frozen=True)
class Comparison:
    """The difference between two rows on one column, one less other, and what can be said of it."""

    one: str
    other: str
    difference: stats.Estimate
    tested: stats.Estimate
    """The same with a variance between seeds that few of them have not made too small by chance: what is judged."""
    effect: float
    """Mean difference over its standard deviation between seeds (Cohen's d of paired values)."""
    improvement: float
    """Probability that a run of the one beats a run of the other on a task drawn at random."""
    p_differs: float
    """Adjusted for all comparisons of the column (Holm)."""
    p_within: float
    """Likewise, of the hypothesis that the difference is the margin or more."""
    verdict: Verdict
    alpha: float
    """What is left of the error for this comparison at the first step of Holm's procedure."""

    def turned(self) -> Comparison:
        """The other row less the one."""
        return replace(
            self,
            one=self.other,
            other=self.one,
            difference=stats.negated(self.difference),
            tested=stats.negated(self.tested),
            effect=-self.effect,
            improvement=1 - self.improvement,
            verdict=REVERSED.get(self.verdict, self.verdict),
        )
