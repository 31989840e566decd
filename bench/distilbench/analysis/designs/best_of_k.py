"""What the best of several trials is expected to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import comb

import numpy as np

from distilbench.analysis.bootstrap import Array
from distilbench.records.design import Tuned


def best_of(scores: Sequence[float], k: int) -> tuple[float, float]:
    """Expected best of `k` of n scores drawn without replacement, and its standard deviation over such draws.

    With scores in rising order, the i-th is the best of C(i-1, k-1) of the C(n, k) draws: Tang et al. 2020,
    arXiv:2004.13705, eq. 4, an unbiased form of what Dodge et al. 2019, arXiv:1909.03004, eq. 1 take from draws with
    replacement. Raises `ValueError` unless 1 <= k <= n.
    """
    if not 1 <= k <= len(scores):
        raise ValueError(f"cannot draw {k} of {len(scores)} scores")
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    total = comb(len(ordered), k)
    weights = np.array([comb(place, k - 1) / total for place in range(len(ordered))])
    mean = float(weights @ ordered)
    return mean, math.sqrt(max(0.0, float(weights @ (ordered - mean) ** 2)))


def curve(tuned: Tuned) -> tuple[Array, Array]:
    """Expected best dev score of 1 to n trials, and its standard deviations; empty where no trial has a score.

    A trial that failed counts as one that did as badly as the worst.
    """
    there = [trial.score for trial in tuned.trials if trial.score is not None]
    if not there:
        return np.empty(0), np.empty(0)
    scores = [*there, *[min(there)] * (len(tuned.trials) - len(there))]
    best = np.array([best_of(scores, k) for k in range(1, len(scores) + 1)])
    return best[:, 0], best[:, 1]
