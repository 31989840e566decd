"""Estimates, tests and power. Pure functions on arrays; R stands for the runs of one row, S for seeds, B for resamples.

A score varies with the seed and with the choice of examples, and so does a difference between two methods, which is
paired over both. Seeds are few: their part of the variance is taken from the seeds themselves and referred to
Student's t. Examples are many: their part is taken from a bootstrap over them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

Array = npt.NDArray[np.float64]

LEVEL = 0.95
POWER = 0.8
"""Probability with which a design should find a difference that is there."""
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its error."""

    mean: float
    seeds: int
    seed_variance: float
    """Of the mean: the part that more seeds make smaller. Not-a-number with one seed."""
    example_variance: float
    """Of the mean: the part that only more examples make smaller."""
    seed_freedom: float | None = None
    """Degrees of freedom of the seeds' part, where more than these seeds went into it; unset: seeds - 1."""

    @property
    def error(self) -> float:
        """Standard error of the mean over seeds and examples."""
        return math.sqrt(self.seed_variance + self.example_variance)

    @property
    def freedom(self) -> float:
        """Degrees of freedom (Satterthwaite 1946): infinite for the examples' part."""
        if self.seed_variance == 0:
            return math.inf
        of_seeds = self.seeds - 1 if self.seed_freedom is None else self.seed_freedom
        return of_seeds * (1 + self.example_variance / self.seed_variance) ** 2

    def half_width(self, level: float = LEVEL) -> float:
        """Half of the confidence interval."""
        return _t_quantile((1 + level) / 2, self.freedom) * self.error

    def p_above(self, bound: float) -> float:
        """One-sided p-value of the hypothesis that the true value is at most `bound`.

        1 where one seed leaves the error unknown.
        """
        if math.isnan(self.error):
            return 1.0
        if self.error == 0:
            return float(self.mean <= bound)
        return 1 - _t_share((self.mean - bound) / self.error, self.freedom)

    def p_below(self, bound: float) -> float:
        """One-sided p-value of the hypothesis that the true value is at least `bound`; likewise."""
        return negated(self).p_above(-bound)

    def p_differs(self) -> float:
        """Two-sided p-value of the hypothesis that the true value is 0."""
        return min(1.0, 2 * min(self.p_above(0), self.p_below(0)))

    def p_within(self, margin: float) -> float:
        """p-value of the hypothesis that the true value is `margin` or more away from 0 (two one-sided tests)."""
        return max(self.p_above(-margin), self.p_below(margin))

    def steadied(self, variance: float, freedom: float, *, alike: bool = True) -> Estimate:
        """With a variance between seeds that is pooled over several differences in the place of a smaller own one.

        Few seeds often give too small a variance by chance. Where all are `alike` in what they vary by, a larger own
        one is chance too, and has the pooled one's degrees of freedom; otherwise it has its own, so that a difference
        that varies more than the others is not helped by them.
        """
        if not freedom or (self.seed_variance >= variance and not alike):
            return self
        return replace(self, seed_variance=max(self.seed_variance, variance), seed_freedom=freedom)

    def detectable(self, alpha: float, power: float = POWER) -> float:
        """The smallest true difference that a two-sided test at level `alpha` finds with probability `power`."""
        return (_t_quantile(1 - alpha / 2, self.freedom) + _t_quantile(power, self.freedom)) * self.error

    def seeds_needed(self, difference: float, alpha: float, power: float = POWER) -> int | None:
        """Seeds with which a true difference would be found; None when `MOST_SEEDS` are not enough."""

        def is_found(seeds: int) -> bool:
            return with_seeds(self, seeds).detectable(alpha, power) <= abs(difference)

        if not is_found(MOST_SEEDS):
            return None
        return bisect_left(range(MOST_SEEDS), True, lo=2, key=is_found)


def is_exactly_zero(item: Estimate) -> bool:
    """Whether both sides of a difference agree to the last digit, with every seed and on every example."""
    return item.mean == item.seed_variance == item.example_variance == 0


def negated(item: Estimate) -> Estimate:
    """The difference the other way round."""
    return replace(item, mean=-item.mean)


def with_seeds(item: Estimate, seeds: int) -> Estimate:
    """What would be expected of another number of seeds."""
    freedom = None if item.seed_freedom is None else item.seed_freedom * (seeds - 1) / (item.seeds - 1)
    return replace(item, seeds=seeds, seed_variance=item.seed_variance * item.seeds / seeds, seed_freedom=freedom)


def estimate(values_S: Array, replicates_SB: Array) -> Estimate:
    """Mean over seeds of values whose bootstrap replicates over examples are given, the same examples for all seeds.

    The variance between seeds also holds that of the interaction of seeds with examples, and so does the bootstrap
    variance of their mean; it is counted once. One seed has no variance between seeds.
    """
    seeds = len(values_S)
    of_mean = float(replicates_SB.mean(axis=0).var(ddof=1))
    if seeds < 2:
        return Estimate(float(values_S.mean()), seeds, math.nan, of_mean)
    of_each = float(replicates_SB.var(axis=1, ddof=1).mean())
    shared = max(0.0, (of_each - of_mean) / (seeds - 1))
    between = float(values_S.var(ddof=1)) / seeds
    return Estimate(float(values_S.mean()), seeds, between, max(0.0, of_mean - shared))


def estimate_apart(one_S: Array, one_SB: Array, other_S: Array, other_SB: Array) -> Estimate:
    """Difference of two means over seeds that are not paired, on the same examples.

    How a run varies with the examples on its own account is in the variance between the runs of a side, and again in
    that of the resampled difference, which therefore gives it up. A side of one run is taken to vary as the other does;
    where both have one, only the two models themselves are compared, and seeds have no part in it.
    """
    difference_B = one_SB.mean(axis=0) - other_SB.mean(axis=0)
    value, counts = float(one_S.mean() - other_S.mean()), (len(one_S), len(other_S))
    several = [(side_S, side_SB) for side_S, side_SB in ((one_S, one_SB), (other_S, other_SB)) if len(side_S) > 1]
    if not several:
        return fixed(value, difference_B)
    first, last = (float(side_S.var(ddof=1)) for side_S, _ in (several[0], several[-1]))
    between = first / counts[0] + last / counts[1]
    if len(several) == 1 or between == 0:
        freedom = float(max(counts) - 1)
    else:
        parts = zip((first, last), counts, strict=True)
        freedom = between**2 / sum((variance / n) ** 2 / (n - 1) for variance, n in parts)
    own = [_own_variance(side_SB) for _, side_SB in several]
    twice = own[0] / counts[0] + own[-1] / counts[1]
    return Estimate(value, round(freedom) + 1, between, max(0.0, float(difference_B.var(ddof=1)) - twice))


def _own_variance(replicates_SB: Array) -> float:
    """Variance over examples of a run that it does not share with the others of its side."""
    seeds = len(replicates_SB)
    of_each = float(replicates_SB.var(axis=1, ddof=1).mean())
    of_mean = float(replicates_SB.mean(axis=0).var(ddof=1))
    # of_each = shared + own, of_mean = shared + own / seeds.
    return max(0.0, (of_each - of_mean) * seeds / (seeds - 1))


def residual_variance(values_KS: Array) -> tuple[float, float]:
    """Variance of K rows over S seeds that neither row nor seed explains, and its degrees of freedom.

    These are (K-1)(S-1) where every row has every seed; what a row lacks is not-a-number.
    """
    there_KS = np.isfinite(values_KS)
    row_N, seed_N = np.nonzero(there_KS)
    effects = np.hstack([np.eye(len(values_KS))[row_N], np.eye(values_KS.shape[1])[seed_N]])
    values_N = values_KS[there_KS]
    fitted, _, rank, _ = np.linalg.lstsq(effects, values_N, rcond=None)
    freedom = float(len(values_N) - rank)
    return float(((values_N - effects @ fitted) ** 2).sum()) / freedom if freedom else math.nan, freedom


def fixed(value: float, replicates_B: Array) -> Estimate:
    """The score of a model that no seed changes."""
    return Estimate(value, 1, 0.0, float(replicates_B.var(ddof=1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979): those below alpha may all be rejected with family-wise error alpha."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1)
    return [float(value) for value in adjusted]


def improvement(one_ST: Array, other_ST: Array) -> float:
    """Probability that a run of the one beats a run of the other on a task drawn at random; ties count half.

    Agarwal et al. 2021, arXiv:2108.13264: the Mann-Whitney statistic averaged over tasks.
    """
    above = one_ST[:, None] - other_ST[None, :]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def interquartile_mean(values_NB: Array) -> Array:
    """Mean of the middle half of N values, those at the quartiles in part, [B] (Agarwal et al. 2021)."""
    ordered_NB = np.sort(values_NB, axis=0)
    edges = np.arange(len(ordered_NB) + 1) / len(ordered_NB)
    weights_N = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    return np.asarray(np.tensordot(weights_N / weights_N.sum(), ordered_NB, axes=1))


def sample_sd(values_RC: Array) -> Array:
    """Standard deviation of each of C columns with divisor R - 1, [C]; not-a-number when R < 2."""
    several = len(values_RC) > 1
    return np.asarray(values_RC.std(axis=0, ddof=1) if several else np.full(values_RC.shape[1], np.nan))


def half_width(values_RC: Array, level: float = LEVEL) -> Array:
    """Half of the Student-t interval of each column's mean, t(R - 1) * sd / sqrt(R), [C]; not-a-number when R < 2."""
    count = len(values_RC)
    return _t_quantile((1 + level) / 2, count - 1) * sample_sd(values_RC) / math.sqrt(count)


def gap_share(score: Array, floor: Array, ceiling: Array) -> Array:
    """Share of the way from `floor` to `ceiling` that `score` has come; not-a-number unless ceiling > floor.

    The arrays have one shape. Below 0: worse than the floor. Above 1: better than the ceiling.
    """
    gap = np.where(ceiling > floor, ceiling - floor, np.nan)
    return np.asarray((score - floor) / gap, dtype=np.float64)


def _t_quantile(share: float, freedom: float) -> float:
    return float(stdtrit(min(freedom, 1e9), share))


def _t_share(value: float, freedom: float) -> float:
    return float(stdtr(min(freedom, 1e9), value))
