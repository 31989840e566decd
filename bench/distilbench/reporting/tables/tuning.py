"""What tuning found and brought: chosen settings, expected best of k trials, the gain over a method's own settings."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from math import comb

import numpy as np
import pandas as pd

from distilbench.analysis import stats
from distilbench.analysis.bootstrap import Array
from distilbench.analysis.frame import OVERALL, StudyFrames
from distilbench.analysis.verdicts import Inference
from distilbench.records.design import Trial, Tuned, Tuning
from distilbench.reporting.notes import caution
from distilbench.reporting.render import Table
from distilbench.reporting.tables.effects import keys_of

DASH = "—"
TERA = 1e12


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
    found = np.array([best_of(scores, k) for k in range(1, len(scores) + 1)])
    return found[:, 0], found[:, 1]


def tuning_tables(study: StudyFrames, inference: Inference, tuning: Tuning | None) -> list[Table]:
    """The trials and their gain, and the expected best of k; nothing where a study was not tuned."""
    if tuning is None or not tuning.methods:
        return []
    return [_gains(study, inference, tuning), _best(study, tuning)]


def _gains(study: StudyFrames, inference: Inference, tuning: Tuning) -> Table:
    gains = [_gain(study, inference, item) for item in tuning.methods]
    there = [gain for gain in gains if gain is not None]
    differs = iter(stats.holm([gain.p_differs() for gain in there]))
    within = iter(stats.holm([gain.p_within(study.margin) for gain in there]))
    text, order = [], []
    for item, gain in zip(tuning.methods, gains, strict=True):
        chosen, means = item.chosen, curve(item)[0]
        failed = sum(trial.score is None for trial in item.trials)
        distinct = len({json.dumps(trial.hyperparameters, sort_keys=True) for trial in item.trials})
        best = math.nan if chosen is None or chosen.score is None else chosen.score * 100
        numbers: dict[str, float] = {
            "Trials": len(item.trials),
            "Distinct": distinct,
            "Failed": failed,
            "Mean dev": float(means[0]) * 100 if len(means) else math.nan,
            "Best dev": best,
            "TFLOPs": sum(trial.flops for trial in item.trials) / TERA,
            "Gain": math.nan if gain is None else gain.mean * 100,
            "n": math.nan if gain is None else gain.seeds,
        }
        verdict = "not run" if gain is None else inference.judge(gain, next(differs), next(within))
        shown = {name: DASH if math.isnan(value) else f"{value:.2f}" for name, value in numbers.items()}
        shown |= {name: DASH if math.isnan(numbers[name]) else f"{numbers[name]:g}" for name in (*_COUNTS, "n")}
        if gain is not None and not math.isnan(gain.half_width()):
            shown["Gain"] = f"{gain.mean * 100:+.2f} ± {gain.half_width() * 100:.2f}"
        text.append({"Method": item.label, "Chosen": _settings(chosen), **shown, "Verdict": verdict})
        order.append({"Method": item.label, "Chosen": _settings(chosen), **numbers, "Verdict": verdict})
    notes = [
        f"{tuning.trials} {tuning.sampler} trials (Optuna {tuning.optuna}) for each method, each trained once for each "
        f"of the seeds {', '.join(map(str, tuning.seeds))} and scored on {tuning.dev} alone, which shares no pair with "
        "a task. No trial is stopped early. The final runs have other seeds; their ledger has the trainings spent.",
        f"Gain: {OVERALL} (x100) at the chosen settings less that at the method's own, paired over seeds and examples, "
        "with its 95 % interval; verdicts adjusted by Holm's procedure over the methods. Mean dev is what a single "
        "trial gives on average.",
    ]
    caption = f"{study.name}: what tuning found and brought"
    return Table("tuning", caption, pd.DataFrame(text), pd.DataFrame(order), notes, caution(study))


_COUNTS = ("Trials", "Distinct", "Failed")


def _gain(study: StudyFrames, inference: Inference, item: Tuned) -> stats.Estimate | None:
    keys = keys_of(study, [item.tuned, item.label], ["tuning trials"])
    if keys is None or OVERALL not in inference.columns:
        return None
    return inference.contrast({keys[item.tuned]: 1.0, keys[item.label]: -1.0}, OVERALL)


def _settings(trial: Trial | None) -> str:
    if trial is None:
        return "no trial completed"
    parts = [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in trial.hyperparameters.items()
    ]
    return ", ".join(parts)


def _best(study: StudyFrames, tuning: Tuning) -> Table:
    counts = [2**power for power in range(20) if 2**power < tuning.trials] + [tuning.trials]
    text, order = [], []
    for item in tuning.methods:
        means, spreads = curve(item)
        places = {f"k = {k}": k - 1 for k in counts}
        numbers = {name: means[place] * 100 if place < len(means) else math.nan for name, place in places.items()}
        shown = {
            name: f"{means[place] * 100:.2f} ± {spreads[place] * 100:.2f}" if place < len(means) else DASH
            for name, place in places.items()
        }
        text.append({"Method": item.label, **shown})
        order.append({"Method": item.label, **numbers})
    notes = [
        "Expected best dev score (x100) of k of the trials, drawn without replacement, ± its standard deviation over "
        "such draws (Tang et al. 2020, after Dodge et al. 2019). A curve that still rises says that more trials would "
        "pay; where curves cross, the order of the methods depends on the number of trials. A trial that failed counts "
        "as the worst.",
    ]
    if tuning.sampler == "tpe":
        notes.append("Trials of tpe depend on earlier ones: read the curves as a description of these trials only.")
    caption = f"{study.name}: expected best dev score of k trials"
    return Table("best_of_k", caption, pd.DataFrame(text), pd.DataFrame(order), notes, caution(study))
