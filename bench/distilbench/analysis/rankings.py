"""What can be said of all rows at once: errors of every score, who leads, and ranks."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from distilbench.analysis import stats
from distilbench.analysis.inference import CONSTANT, SEED, Inference

FEWEST_SEEDS = 3
"""With which a method may be marked as the best."""


def half_widths(inference: Inference) -> pd.DataFrame:
    """Rows x columns: half of each score's interval; not-a-number where one seed leaves it unknown."""
    widths = {}
    for key in map(str, inference.study.rows.index):
        scores = {column: inference.score(key, column) for column in inference.columns}
        widths[key] = {column: np.nan if item is None else item.half_width() for column, item in scores.items()}
    return pd.DataFrame.from_dict(widths, orient="index", columns=list(inference.columns), dtype="float64")


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
        known = len(places) > 1 or role in CONSTANT
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
    """Methods x (mean, low, high): rank by score over resampled seeds and examples, with 95 % intervals.

    Of the largest set of rows that are comparable with each other, those that have all the seeds; empty where
    there are none, or seeds too few to resample.
    """
    runs = {key: inference.runs(key, column) for key in _largest_set(inference)}
    seeds = sorted(set().union(*runs.values()))
    whole = [key for key, mine in runs.items() if len(mine) == len(seeds)]
    frame = pd.DataFrame(columns=["mean", "low", "high"], dtype="float64")
    if column not in inference.columns or len(seeds) < 2 or not whole:
        return frame
    values = np.stack([inference.values([runs[key][seed] for seed in seeds], column)[1] for key in whole])
    rng = np.random.default_rng(SEED)
    weights_SB = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), values.shape[2]).T
    scores_MB = (values * weights_SB).sum(axis=1)
    ranks_MB = pd.DataFrame(-scores_MB).rank().to_numpy()
    frame["mean"] = pd.Series(ranks_MB.mean(axis=1), index=whole)
    frame["low"], frame["high"] = np.quantile(ranks_MB, [0.025, 0.975], axis=1)
    return frame


def _largest_set(inference: Inference) -> list[str]:
    """The methods of the letter that most of them have, the first of equals."""
    study = inference.study
    rows = study.runs[study.runs["role"] == "method"].drop_duplicates("key").set_index("key")
    methods = [str(key) for key in study.rows.index if key in rows.index]
    sets = [[key for key in methods if rows.at[key, "letters"] == letters] for letters in rows["letters"].unique()]
    return max(sets, key=len, default=[])
