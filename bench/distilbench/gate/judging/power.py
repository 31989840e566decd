"""Which drop the judge would find, and within which margin it would pass a candidate that is as good.

A line has regressed when its statistic is beyond the critical value of its family, and the margin is not ruled out. So
both count here: a drop that is shown, and shown to be less than the margin, passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.special import ndtr, ndtri

from distilbench.analysis import stats
from distilbench.gate.judging.columns import ALL_ROWS, ColumnDifference
from distilbench.gate.judging.family import Families, families_of, kind_of, with_means


@dataclass(frozen=True)
class Power:
    """Of one line."""

    detectable: float | None
    """The drop, a fraction, that is found with probability `distilbench.analysis.stats.POWER`; None where none is."""
    critical: float | None
    """What the statistic of a drop must exceed, as a standard normal deviate."""


def powers(items: Sequence[ColumnDifference], families: Families, margin: float, alpha: float) -> list[Power]:
    """Of judged items; where both sides agree to the last digit, that of a check with fresh seeds."""
    critical = {kind: families.critical(kind, alpha) for kind in set(map(kind_of, items))}
    if any(item.difference.error == 0 for item in items):
        # Of all rows: in a check with fresh seeds none is paired.
        fresh = with_means([_with_fresh_seeds(item) for item in items if item.label != ALL_ROWS])
        of_fresh = families_of(fresh)
        critical_of_fresh = {kind: of_fresh.critical(kind, alpha) for kind in set(map(kind_of, fresh))}
    found = []
    for item in items:
        kind = kind_of(item)
        if item.difference.error == 0:
            found.append(_power(item.same_code, critical_of_fresh.get(kind, math.inf), margin, alpha))
        else:
            found.append(_power(item.difference, critical[kind], margin, alpha))
    return found


def _with_fresh_seeds(item: ColumnDifference) -> ColumnDifference:
    return replace(item, difference=item.same_code, spread=item.fresh, paired=False)


def _power(difference: stats.Estimate, critical: float, margin: float, alpha: float) -> Power:
    if not math.isfinite(critical) or not math.isfinite(difference.error) or difference.error == 0:
        return Power(None, None)
    return Power(detectable(difference, critical, margin, alpha), critical)


def detectable(difference: stats.Estimate, critical: float, margin: float, alpha: float) -> float:
    """The drop that is found with that probability. `critical` as of `Power`."""
    shown = _quantile(difference, float(ndtr(critical)))
    not_ruled_out = margin - _quantile(difference, 1 - alpha)
    return max(shown, not_ruled_out) + _quantile(difference, stats.POWER)


def margin_needed(difference: stats.Estimate, critical: float | None, alpha: float) -> float:
    """The smallest margin within which what has not changed passes, and a drop of which is found, each with that
    probability. Without a `critical` value, for a line that stands alone."""
    single = float(ndtri(1 - alpha))
    share = float(ndtr(max(single if critical is None else critical, single)))
    return _quantile(difference, share) + _quantile(difference, stats.POWER)


def _quantile(difference: stats.Estimate, share: float) -> float:
    """Of the difference's error."""
    return difference.half_width(2 * share - 1)
