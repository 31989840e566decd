"""What can be said of all rows at once: errors of every score, who leads, and ranks."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from distilbench.analysis import stats
from distilbench.analysis.frame import records_of, references
from distilbench.analysis.inference import CONSTANT_ROLES, SEED, Inference

FEWEST_SEEDS = 3
"""With which a method may be marked as the best."""


def half_widths(inference: Inference) -> pd.DataFrame:
    """Rows x columns: half of each score's interval; not-a-number where one seed leaves it unknown."""
    widths = {}
    for key in map(str, inference.study.rows.index):
        scores = {column: inference.score(key, column) for column in inference.columns}
        widths[key] = {column: np.nan if item is None else item.half_width() for column, item in scores.items()}
    return pd.DataFrame.from_dict(widths, orient="index", columns=list(inference.columns), dtype="float64")


def gap_half_widths(inference: Inference) -> pd.DataFrame:
    """Rows x columns: half of the interval of the share of the gap closed, by the delta method.

    Not-a-number where the row has no floor and ceiling, or one seed leaves it unknown.
    """
    study, widths = inference.study, {}
    completed = [study.records[str(run_id)] for run_id in study.scores.index]
    for key in map(str, study.rows.index):
        record = next((record for record in records_of(study, key) if record.status == "completed"), None)
        ends = [references(record, role, completed) for role in ("floor", "ceiling")] if record else [[], []]
        floor, ceiling = (str(study.runs.at[runs[0], "key"]) if runs else None for runs in ends)
        if floor and ceiling and key not in (floor, ceiling):
            found = {column: _gap_half_width(inference, key, floor, ceiling, column) for column in inference.columns}
            widths[key] = found
    return pd.DataFrame.from_dict(widths, orient="index", columns=list(inference.columns), dtype="float64")


def _gap_half_width(inference: Inference, key: str, floor: str, ceiling: str, column: str) -> float:
    scores = [inference.score(row, column) for row in (key, floor, ceiling)]
    means = [item.mean for item in scores if item is not None]
    if len(means) < 3 or means[2] <= means[1]:
        return np.nan
    share, gap = (means[0] - means[1]) / (means[2] - means[1]), means[2] - means[1]
    found = inference.contrast({key: 1 / gap, floor: (share - 1) / gap, ceiling: -share / gap}, column)
    return np.nan if found is None else found.half_width()


def interquartile_means(inference: Inference) -> pd.DataFrame:
    """Rows x (mean, half_width): interquartile mean over runs and tasks, with its 95 % bootstrap interval.

    Agarwal et al. 2021, arXiv:2108.13264; but runs are resampled for all tasks at once, since one model is scored
    on all of them. Half-widths are not-a-number with one seed; empty when no task can be compared.
    """
    rng, means, scores = np.random.default_rng(SEED), {}, inference.scores
    for key, role in inference.study.rows["role"].items():
        places = scores.index.get_indexer(pd.Index(list(inference.runs(str(key)).values())))
        if not len(places) or scores.empty:
            continue
        runs_TSB = np.stack([inference.resampled[str(task)][places] for task in scores])
        drawn_SB = rng.integers(0, len(places), size=runs_TSB.shape[1:])
        resampled_TSB = np.take_along_axis(runs_TSB, drawn_SB[None], axis=1)
        means_B = stats.interquartile_mean(resampled_TSB.reshape(-1, runs_TSB.shape[2]))
        low, high = np.quantile(means_B, [0.025, 0.975])
        known = len(places) > 1 or role in CONSTANT_ROLES
        mean = stats.interquartile_mean(scores.iloc[places].to_numpy(dtype=np.float64).ravel())
        means[key] = {"mean": float(mean), "half_width": (high - low) / 2 if known else np.nan}
    return pd.DataFrame.from_dict(means, orient="index", columns=["mean", "half_width"], dtype="float64")


def leaders(inference: Inference, column: str) -> dict[str, Literal["best", "second"]]:
    """The method that is better than all others, and the one that is better than all but that one, if any.

    With fewer than three seeds nothing is: the error of two is known too badly for the best of many pairs.
    """
    rows = inference.study.rows
    left = [str(key) for key in rows.index[rows["role"] == "method"]]
    leading: dict[str, Literal["best", "second"]] = {}
    places: tuple[Literal["best", "second"], ...] = ("best", "second")
    for place in places:
        ahead = [one for one in left if all(_is_ahead(inference, one, x, column) for x in left if x != one)]
        if len(left) < 2 or not ahead:
            break
        leading[ahead[0]] = place
        left.remove(ahead[0])
    return leading


def _is_ahead(inference: Inference, one: str, other: str, column: str) -> bool:
    item = inference.comparison(one, other, column)
    return item is not None and item.verdict == "better" and item.difference.seeds >= FEWEST_SEEDS


def ranks(inference: Inference, column: str) -> pd.DataFrame:
    """Methods x (rank, low, high): place by mean score, and the places that the verdicts leave open.

    Those are a confidence set: a row has at least the rank of one more than there are rows that are better than it
    (Mogstad, Romano, Shaikh & Wilhelm 2024, doi:10.1093/restud/rdad006). Of the largest set of rows that are
    comparable with each other; empty where they were not compared.
    """
    scores = {key: item.mean for key in largest_set(inference) if (item := inference.score(key, column)) is not None}
    frame = pd.DataFrame(columns=["rank", "low", "high"], dtype="float64")
    if len(scores) < 2 or not inference.comparisons(column):
        return frame
    frame["rank"] = pd.Series(scores).rank(ascending=False)
    for key in scores:
        verdicts = [inference.verdict(key, other, column) for other in scores if other != key]
        frame.loc[key, ["low", "high"]] = 1 + verdicts.count("worse"), len(scores) - verdicts.count("better")
    return frame


def largest_set(inference: Inference) -> list[str]:
    """The largest set of methods that were run under the same settings, the first of equals."""
    study = inference.study
    rows = study.runs[study.runs["role"] == "method"].drop_duplicates("key").set_index("key")
    methods = [str(key) for key in study.rows.index if key in rows.index]
    sets = [[key for key in methods if rows.at[key, "letters"] == letters] for letters in rows["letters"].unique()]
    return max(sets, key=len, default=[])
