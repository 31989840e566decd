"""How dev scores answer to the budget, as a table: where curves cross, and what a target costs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from distilbench.analysis.designs.dev_curves import curves, reached
from distilbench.analysis.frame import StudyFrames, row_names
from distilbench.reporting.cells import DASH, decimals
from distilbench.reporting.formats.render import Table
from distilbench.reporting.tables.scores import TableBuilder


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
