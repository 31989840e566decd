"""Estimates over seeds. Pure functions on arrays; R stands for the runs of one row."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Array = npt.NDArray[np.float64]

LEVEL = 0.95


def mean(values_R: Array) -> float | None:
    """Arithmetic mean; None without values, not-a-number when one of them is missing."""
    return float(values_R.mean()) if len(values_R) else None


def sample_sd(values_R: Array) -> float | None:
    """Standard deviation with divisor R - 1; None when R < 2."""
    return float(values_R.std(ddof=1)) if len(values_R) > 1 else None


def half_width(values_R: Array, level: float = LEVEL) -> float | None:
    """Half of the Student-t interval of the mean, t(R - 1) * sd / sqrt(R); None when R < 2."""
    sd = sample_sd(values_R)
    if sd is None:
        return None
    count = len(values_R)
    return float(stdtrit(count - 1, (1 + level) / 2)) * sd / math.sqrt(count)


def gap_share(score: Array, floor: Array, ceiling: Array) -> Array:
    """Share of the way from `floor` to `ceiling` that `score` has come; not-a-number unless ceiling > floor.

    The arrays have one shape. Below 0: worse than the floor. Above 1: better than the ceiling.
    """
    gap = np.where(ceiling > floor, ceiling - floor, np.nan)
    return np.asarray((score - floor) / gap, dtype=np.float64)
