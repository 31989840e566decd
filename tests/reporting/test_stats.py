from __future__ import annotations

import numpy as np
import pytest

from distilbench.analysis import stats


def test_mean_and_sample_sd_by_hand() -> None:
    values = np.array([1.0, 2.0, 6.0])

    assert stats.mean(values) == 3.0
    assert stats.sample_sd(values) == pytest.approx(np.sqrt((4 + 1 + 9) / 2))


def test_half_width_uses_student_t() -> None:
    # t(2, 0.975) = 4.302653 in every printed table; sd = 1, n = 3.
    assert stats.half_width(np.array([1.0, 2.0, 3.0])) == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)


def test_no_interval_below_two_runs() -> None:
    assert stats.half_width(np.array([1.0])) is None
    assert stats.sample_sd(np.array([])) is None
    assert stats.mean(np.array([])) is None


def test_a_missing_value_is_not_averaged_away() -> None:
    assert np.isnan(stats.mean(np.array([1.0, np.nan])) or 0.0)


def test_gap_share() -> None:
    score, floor, ceiling = np.array([0.5, 0.1, 0.9]), np.full(3, 0.2), np.full(3, 0.8)

    np.testing.assert_allclose(stats.gap_share(score, floor, ceiling), [0.5, -1 / 6, 7 / 6])


def test_no_gap_share_when_the_ceiling_is_not_above_the_floor() -> None:
    assert np.isnan(stats.gap_share(np.array([0.5]), np.array([0.6]), np.array([0.6]))).all()
