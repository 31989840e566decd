from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from distilbench.analysis import stats
from distilbench.analysis.frame import over_seeds


def over_seeds_of(*values: float) -> tuple[float, float, float]:
    """Mean, standard deviation and half-width of one row with a run for each value."""
    ids = [f"run-{place}" for place in range(len(values))]
    summary = over_seeds(pd.DataFrame({"key": "row"}, index=ids), pd.DataFrame({"score": values}, index=ids))
    return tuple(frame.at["row", "score"] for frame in (summary.mean, summary.sd, summary.half_width))  # type: ignore[return-value]


def test_mean_and_sample_sd_by_hand() -> None:
    mean, sd, _ = over_seeds_of(1.0, 2.0, 6.0)
    assert mean == 3.0
    assert sd == pytest.approx(np.sqrt((4 + 1 + 9) / 2))


def test_half_width_uses_student_t() -> None:
    # t(2, 0.975) = 4.302653 in every printed table; sd = 1, n = 3.
    assert over_seeds_of(1.0, 2.0, 3.0)[2] == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)


def test_no_interval_below_two_runs() -> None:
    mean, *errors = over_seeds_of(1.0)
    assert mean == 1.0 and np.isnan(errors).all()


def test_a_missing_value_is_not_averaged_away() -> None:
    assert np.isnan(over_seeds_of(1.0, np.nan)).all()


def test_gap_share() -> None:
    score, floor, ceiling = np.array([0.5, 0.1, 0.9]), np.full(3, 0.2), np.full(3, 0.8)

    np.testing.assert_allclose(stats.gap_share(score, floor, ceiling), [0.5, -1 / 6, 7 / 6])


def test_no_gap_share_when_the_ceiling_is_not_above_the_floor() -> None:
    assert np.isnan(stats.gap_share(np.array([0.5]), np.array([0.6]), np.array([0.6]))).all()


def test_chi_squared_is_scipys_to_the_last_digit() -> None:
    freedom = np.concatenate([np.arange(1, 200), np.random.default_rng(0).uniform(0.1, 50, 200)])
    middle = chi2.median(freedom)
    assert (stats.chi2_median(freedom) == middle).all()
    assert (stats.chi2_density(middle, freedom) == chi2.pdf(middle, freedom)).all()
