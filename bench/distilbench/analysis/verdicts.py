"""Which differences are real: better, worse, equivalent, or undecided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from distilbench.analysis import stats
from distilbench.analysis.simultaneous import Family

Verdict = Literal["better", "worse", "equivalent", "undecided"]
REVERSED: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Judgement:
    """What can be said of one of several differences that are judged together."""

    p_differs: float
    """Adjusted for all of them: how often the largest statistic of equal methods would be as large."""
    p_within: float
    """Likewise, of the hypothesis that the difference is the margin or more."""
    verdict: Verdict
    alpha: float
    """Error of a single two-sided test with the family's critical value."""


def judge(items: Sequence[stats.Estimate], family: Family, margin: float) -> list[Judgement]:
    """What can be said of differences of a family: all of it follows from their simultaneous intervals."""
    means = np.array([item.mean for item in items])
    known = [
        np.array([getattr(item, name) for item in items]) for name in ("seed_variance", "freedom", "example_variance")
    ]
    room = margin - np.abs(means)
    differs = stats.normal_deviate(means, *known) if items else means
    within = stats.normal_deviate(np.maximum(room, 0), *known) if items else means
    return [
        _judgement(item, family, float(far), float(inside) if space > 0 else None)
        for item, far, inside, space in zip(items, differs, within, room, strict=True)
    ]


def _judgement(item: stats.Estimate, family: Family, differs: float, within: float | None) -> Judgement:
    if stats.is_exactly_zero(item):
        return Judgement(1.0, 0.0, "equivalent", family.single_alpha)
    p_differs = family.adjusted(differs)
    p_within = 1.0 if within is None else family.adjusted(within)
    return Judgement(p_differs, p_within, _verdict(item.mean, p_differs, p_within, family.alpha), family.single_alpha)


def _verdict(mean: float, p_differs: float, p_within: float, alpha: float) -> Verdict:
    if p_within <= alpha:
        return "equivalent"
    if p_differs <= alpha:
        return "better" if mean > 0 else "worse"
    return "undecided"


@dataclass(frozen=True)
class Comparison:
    """The difference between two rows on one column, one less other, and what can be said of it."""

    one: str
    other: str
    difference: stats.Estimate
    effect: float
    """Difference over the standard deviation of a difference between seeds (Cohen's d of paired values)."""
    improvement: float
    """Probability that a run of the one beats a run of the other on a task drawn at random."""
    p_differs: float
    """Adjusted for all comparisons of the family."""
    p_within: float
    """Likewise, of the hypothesis that the difference is the margin or more."""
    verdict: Verdict
    alpha: float
    """Error of a single two-sided test with the family's critical value."""
    diverged: tuple[int, int] = (0, 0)
    """Runs of each row that diverged, and are not in the difference."""

    @property
    def half_width(self) -> float:
        """Half of the simultaneous interval: all intervals of the family hold together."""
        return self.difference.half_width(1 - self.alpha) if self.alpha > 0 else math.nan

    def turned(self) -> Comparison:
        """The other row less the one."""
        return replace(
            self,
            one=self.other,
            other=self.one,
            difference=stats.negated(self.difference),
            effect=-self.effect,
            improvement=1 - self.improvement,
            verdict=REVERSED.get(self.verdict, self.verdict),
            diverged=self.diverged[::-1],
        )


def without_survivors(verdict: Verdict, diverged: tuple[int, int]) -> Verdict:
    """What is left of a verdict where runs diverged: those that did not are no fair sample of their row.

    A row that loses more runs than the other is neither better than it nor equivalent.
    """
    one, other = diverged
    spoilt = (verdict == "equivalent" and one != other) or (verdict == "better" and one > other)
    return "undecided" if spoilt or (verdict == "worse" and other > one) else verdict
