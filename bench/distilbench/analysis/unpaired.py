"""The difference of two sides whose seeds are not paired, each source of variance counted once. Pure functions.

Shapes: S runs of a side, B resamples of the examples.
"""

from __future__ import annotations

from dataclasses import replace

from distilbench.analysis import stats
from distilbench.analysis.bootstrap import Array


def estimate_apart(one_S: Array, one_SB: Array, other_S: Array, other_SB: Array) -> stats.Estimate:
    """As `distilbench.analysis.stats.estimate_apart`, less what both of its parts hold.

    How a run varies with the examples on its own account is in the variance between the runs of a side, and again in
    that of the resampled difference, which therefore gives it up. A side of one run is taken to vary as the other does.
    """
    found = stats.estimate_apart(one_S, one_SB, other_S, other_SB)
    own = [_own_variance(side) for side in (one_SB, other_SB) if len(side) > 1]
    if not own:
        return found
    twice = own[0] / len(one_S) + own[-1] / len(other_S)
    return replace(found, example_variance=max(0.0, found.example_variance - twice))


def _own_variance(replicates_SB: Array) -> float:
    """Variance over examples of a run that it does not share with the others of its side."""
    seeds = len(replicates_SB)
    of_each = float(replicates_SB.var(axis=1, ddof=1).mean())
    of_mean = float(replicates_SB.mean(axis=0).var(ddof=1))
    # of_each = shared + own, of_mean = shared + own / seeds.
    return max(0.0, (of_each - of_mean) * seeds / (seeds - 1))
