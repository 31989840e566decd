"""How dev scores answer to the budget: the curve of each method, and what a target costs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from distilbench.analysis.frame import StudyFrames, row_names


def dev_scores(study: StudyFrames) -> pd.DataFrame:
    """The looks at students in training: key, share of the budget, spent of the binding currency, score."""
    looks = [
        (study.runs.at[run_id, "key"], row["share"], row[record.budget["currency"]], row["score"])
        for run_id, record in study.records.items()
        for row in record.response
        if row["score"] is not None
    ]
    return pd.DataFrame(looks, columns=["key", "share", "spent", "score"])


def curves(study: StudyFrames) -> pd.DataFrame:
    """Methods x what was spent of the binding currency: mean dev score over the seeds that have it, as a fraction.

    Empty when no run was watched, or when budgets differ in their currency.
    """
    if len({record.budget["currency"] for record in study.records.values() if record.response}) != 1:
        return pd.DataFrame()
    frame = dev_scores(study)
    spent = frame.groupby("share")["spent"].mean()
    means = frame.pivot_table(index="key", columns="share", values="score", aggfunc="mean").rename(columns=dict(spent))
    # One step can reach several small shares at once.
    return means.loc[:, ~means.columns.duplicated(keep="last")].reindex(
        [key for key in row_names(study, "method") if key in means.index]
    )


def reached(curve: pd.Series[float], target: float) -> float:
    """Where a curve first reaches a score, on a straight line over the logarithm; infinite where it never does."""
    if curve.iloc[0] >= target:
        return float(str(curve.index[0]))
    for (before, low), (after, high) in pairwise(zip(map(float, map(str, curve.index)), curve, strict=True)):
        if low < target <= high:
            share = (target - low) / (high - low)
            return float(np.exp(np.log(before) + share * np.log(after / before)))
    return float("inf")
