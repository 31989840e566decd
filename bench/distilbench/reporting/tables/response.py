"""How dev scores answer to the budget: the curve of each method, where curves cross, and what a target costs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from distilbench.analysis.frame import StudyFrames, row_names
from distilbench.reporting.cells import DASH, decimals
from distilbench.reporting.render import Table
from distilbench.reporting.tables.scores import TableBuilder


def curves(study: StudyFrames) -> pd.DataFrame:
    """Methods x what was spent of the binding currency: mean dev score over the seeds that have it, as a fraction.

    Empty when no run was watched, or when budgets differ in their currency.
    """
    currencies = {str(record.budget["currency"]) for record in study.records.values() if record.response}
    if len(currencies) != 1:
        return pd.DataFrame()
    (currency,) = currencies
    rows = [
        {"key": study.runs.at[run_id, "key"], "share": row["share"], "spent": row[currency], "score": row["score"]}
        for run_id, record in study.records.items()
        for row in record.response
        if row["score"] is not None
    ]
    frame = pd.DataFrame(rows, columns=["key", "share", "spent", "score"])
    spent = frame.groupby("share")["spent"].mean()
    means = frame.pivot_table(index="key", columns="share", values="score", aggfunc="mean").rename(columns=dict(spent))
    # One step can reach several small shares at once.
    return means.loc[:, ~means.columns.duplicated(keep="last")].reindex(
        [key for key in row_names(study, "method") if key in means.index]
    )


def response_table(study: StudyFrames) -> Table | None:
    """Dev scores at each share of the budget, and the spending at which a method reaches the median of the last."""
    means = curves(study)
    if means.empty:
        return None
    currency = next(str(record.budget["currency"]) for record in study.records.values() if record.response)
    target = float(means.iloc[:, -1].median())
    builder = TableBuilder(study, means.index)
    for spent, scores in (means * 100).items():
        builder.add(f"{spent:,.0f}", scores.map(decimals), scores)
    at_target = pd.Series({key: reached(row, target) for key, row in means.iterrows()})
    builder.add("To the target", at_target.map(lambda at: DASH if not np.isfinite(at) else f"{at:,.0f}"), at_target)
    notes = [
        f"Mean dev scores (x100) over seeds by {currency} spent; they are not charged to the budget, and no task is in "
        "them. The learning rate falls over the whole budget, so an early score is not that of a shorter run.",
        f"To the target: {currency} at which the mean reaches {target * 100:.2f}, the median of the last column, read "
        "off a straight line over the logarithm.",
        *crossings(study, means, currency),
    ]
    return builder.table("response", "dev score over the budget", notes)


def reached(curve: pd.Series[float], target: float) -> float:
    """Where a curve first reaches a score, on a straight line over the logarithm; infinite where it never does."""
    if curve.iloc[0] >= target:
        return float(str(curve.index[0]))
    for (before, low), (after, high) in pairwise(zip(map(float, map(str, curve.index)), curve, strict=True)):
        if low < target <= high:
            share = (target - low) / (high - low)
            return float(np.exp(np.log(before) + share * np.log(after / before)))
    return float("inf")


def crossings(study: StudyFrames, means: pd.DataFrame, currency: str) -> list[str]:
    """Where the order of two methods' means changes for the last time, in a sentence; nothing where none does."""
    names, sentences = row_names(study, "method"), []
    for place, (one, mine) in enumerate(means.iterrows()):
        for other, theirs in list(means.iterrows())[place + 1 :]:
            gap = (mine - theirs).dropna()
            # Read backwards, the last crossing is the first.
            at = reached(gap[::-1] * -np.sign(gap.iloc[-1]), 0.0) if len(gap) > 1 else float("inf")
            if np.isfinite(at) and np.sign(gap.iloc[-1]) != 0:
                winner, loser = (one, other) if gap.iloc[-1] > 0 else (other, one)
                sentences.append(f"{names[str(winner)]} passes {names[str(loser)]} at about {at:,.0f}")
    return [f"Curves cross for the last time, in {currency}: {'; '.join(sentences)}."] if sentences else []
