"""What tuning found and brought: chosen settings, expected best of k trials, the gain over a method's own settings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from distilbench.analysis import stats
from distilbench.analysis.designs.best_of_k import curve
from distilbench.analysis.designs.effects import keys_of
from distilbench.analysis.frame import ALPHA, OVERALL, StudyFrames
from distilbench.analysis.inference import Inference
from distilbench.analysis.verdicts import Judgement
from distilbench.records.design import Trial, Tuned, Tuning
from distilbench.reporting.cells import (
    DASH,
    Cell,
    count_cell,
    decimal_cell,
    difference_cell,
    plus_minus,
    study_table,
)
from distilbench.reporting.formats.render import Table

TERA = 1e12


def tuning_tables(study: StudyFrames, inference: Inference, tuning: Tuning | None) -> list[Table]:
    """The trials and their gain, and the expected best of k; nothing where a study was not tuned."""
    if tuning is None or not tuning.methods:
        return []
    return [_gains(study, inference, tuning), _best(study, tuning)]


def _gains(study: StudyFrames, inference: Inference, tuning: Tuning) -> Table:
    contrasts = [_gain(study, inference, item) for item in tuning.methods]
    asked = [contrast for contrast in contrasts if contrast is not None]
    found = inference.judged(asked, [OVERALL], alike=True) if asked else None
    known = iter(zip(found[0].estimates, found[1], strict=True) if found else ())
    lines = []
    for item, contrast in zip(tuning.methods, contrasts, strict=True):
        [gain], [judgement] = next(known) if contrast is not None else ([None], [None])
        lines.append(_line(item, gain, judgement))
    notes = [
        f"{tuning.trials} {tuning.sampler} trials (Optuna {tuning.optuna}) for each method, each trained once for each "
        f"of the seeds {', '.join(map(str, tuning.seeds))} and scored on {tuning.dev} alone, which shares no pair with "
        "a task. No trial is stopped early. The final runs have other seeds; their ledger has the trainings spent.",
        f"Gain: {OVERALL} (x100) at the chosen settings less that at the method's own, paired over seeds and examples, "
        "with its interval; all intervals hold together, and the verdicts follow from them. Mean dev is what a single "
        "trial gives on average.",
    ]
    return study_table(study, "tuning", "what tuning found and brought", lines, notes)


def _line(item: Tuned, gain: stats.Estimate | None, judgement: Judgement | None) -> Mapping[str, Cell]:
    chosen, means = item.chosen, curve(item)[0]
    best = math.nan if chosen is None or chosen.score is None else chosen.score * 100
    return {
        "Method": item.label,
        "Chosen": _settings(chosen),
        "Trials": count_cell(len(item.trials)),
        "Distinct": count_cell(len({json.dumps(trial.hyperparameters, sort_keys=True) for trial in item.trials})),
        "Failed": count_cell(sum(trial.score is None for trial in item.trials)),
        "Mean dev": decimal_cell(float(means[0]) * 100 if len(means) else math.nan),
        "Best dev": decimal_cell(best),
        "TFLOPs": decimal_cell(sum(trial.flops for trial in item.trials) / TERA),
        "Gain": difference_cell(gain, judgement.alpha if judgement else ALPHA),
        "n": (DASH, math.nan) if gain is None else count_cell(gain.seeds),
        "Verdict": judgement.verdict if judgement else "not run",
    }


def _gain(study: StudyFrames, inference: Inference, item: Tuned) -> dict[str, float] | None:
    """The tuned row less the row at the method's own settings, where both were run."""
    keys = keys_of(study, [item.tuned, item.label], ["tuning trials"])
    weights = {keys[item.tuned]: 1.0, keys[item.label]: -1.0} if keys else None
    return weights if weights and inference.contrast(weights, OVERALL) is not None else None


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
    lines: list[Mapping[str, Cell]] = []
    for item in tuning.methods:
        best = list(zip(*curve(item), strict=True))
        points = {k: [100 * value for value in best[k - 1]] if k <= len(best) else [math.nan] * 2 for k in counts}
        cells = {f"k = {k}": (plus_minus(mean, spread), float(mean)) for k, (mean, spread) in points.items()}
        lines.append({"Method": item.label, **cells})
    notes = [
        "Expected best dev score (x100) of k of the trials, drawn without replacement, ± its standard deviation over "
        "such draws (Tang et al. 2020, after Dodge et al. 2019). A curve that still rises says that more trials would "
        "pay; where curves cross, the order of the methods depends on the number of trials. A trial that failed counts "
        "as the worst.",
    ]
    if tuning.sampler == "tpe":
        notes.append("Trials of tpe depend on earlier ones: read the curves as a description of these trials only.")
    return study_table(study, "best_of_k", "expected best dev score of k trials", lines, notes)
