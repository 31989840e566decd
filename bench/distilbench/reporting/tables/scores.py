"""The tables of a study, and the same numbers unrounded for other programs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from distilbench.analysis.frame import BY_TYPE, OVERALL, SeedSummary, StudyFrames, median_costs, of_metric, over_seeds
from distilbench.records.schema import CENTRED, MEAN_LENGTH
from distilbench.reporting.cells import DASH, number, plus_minus
from distilbench.reporting.formats.render import Table
from distilbench.reporting.notes import caution, difference_notes, notes, status_counts, status_text

MIB = 2.0**20
FLOP_UNITS = {"PFLOPs": 1e15, "TFLOPs": 1e12, "GFLOPs": 1e9, "MFLOPs": 1e6}
LEDGER = {
    "steps": "Steps",
    "sentences": "Sentences",
    "tokens": "Tokens",
    "epochs": "Epochs",
    "student_passes": "Student passes",
    "student_flops": "Student",
    "teacher_sentences_stored": "Teacher sentences, stored",
    "teacher_sentences_online": "Teacher sentences, online",
    "teacher_flops_stored": "Teacher stored",
    "teacher_flops_online": "Teacher online",
    "extra_parameters": "Extra parameters",
    "state_bytes": "State (MiB)",
    "peak_memory_bytes": "Peak memory (MiB)",
    "seconds_setup": "Setup (s)",
    "seconds_data": "Data (s)",
    "seconds_teacher": "Teacher (s)",
    "seconds_train": "Training (s)",
    "seconds_evaluation": "Evaluation (s)",
    "seconds_checkpoint": "Checkpoints (s)",
    "tuning_trials": "Tuning trials",
    "micro_batch": "Micro-batch",
    "out_of_memory": "Out of memory",
}
"""Ledger entry -> heading; FLOPs get their unit behind it."""
IQM_NOTE = (
    "IQM: mean of the middle half of all scores of a row's runs and tasks (Agarwal et al. 2021), less moved by one odd "
    "task than the average; its interval is resampled over runs and examples."
)
MAIN_COSTS = ("seconds_train", "student_flops", "sentences", "student_passes")


class TableBuilder:
    """Grows the columns of one table, row for row as `study.rows` has them, or some of these rows."""

    def __init__(self, study: StudyFrames, keys: pd.Index | None = None) -> None:
        self._study = study
        self._keys = study.rows.index if keys is None else keys
        self._text, self._order = pd.DataFrame(index=self._keys), pd.DataFrame(index=self._keys)
        self.add("Method", study.rows["row"], study.rows["row"])

    def add(self, heading: str, text: pd.Series[str], order: pd.Series[float] | pd.Series[str]) -> None:
        """A column as shown, and what it is sorted by; both by row."""
        self._text[heading] = text.reindex(self._keys)
        self._order[heading] = order.reindex(self._keys)

    def add_estimate(self, heading: str, estimate: SeedSummary, column: str, digits: int) -> None:
        """A column of mean ± half-width, x100; a dash without a mean, no ± without an interval."""
        self.add_spread(heading, estimate.mean[column], estimate.half_width[column], digits)

    def add_spread(self, heading: str, mean: pd.Series[float], half_width: pd.Series[float], digits: int) -> None:
        """Likewise, of fractions that are given by row."""
        mean, width = mean.reindex(self._keys) * 100, half_width.reindex(self._keys) * 100
        shown = [plus_minus(*pair, digits) for pair in zip(mean, width, strict=True)]
        self.add(heading, pd.Series(shown, index=mean.index), mean)

    def add_cost(self, name: str, cost: pd.DataFrame) -> None:
        """A column of one ledger entry, in its unit."""
        heading, divisor = LEDGER.get(name, name), 1.0
        values = cost[name] if name in cost else pd.Series(np.nan, index=cost.index)
        if name.endswith("_flops") and name in LEDGER:
            unit, divisor = flop_unit(cost.filter(like="_flops").max().max())
            heading = f"{heading} {unit}"
        elif name.endswith("_bytes"):
            divisor = MIB
        values = values / divisor
        self.add(heading, values.map(number), values)

    def table(self, name: str, caption: str, notes: list[str]) -> Table:
        """What has been added."""
        return Table(name, f"{self._study.name}: {caption}", self._text, self._order, notes, caution(self._study))


def average_heading(group: object) -> str:
    """How the tables head the average of a group."""
    return str(group) if group in (OVERALL, BY_TYPE) else f"{group} average"


def main_table(study: StudyFrames, further_notes: Sequence[str] = ()) -> Table:
    """Averages with intervals, share of the gap closed, and what a run cost."""
    builder = TableBuilder(study)
    for group in study.averages:
        builder.add_estimate(average_heading(group), study.average, str(group), 2)
    builder.add_estimate("Gap closed (%)", _methods_only(study, study.gap), OVERALL, 1)
    further_notes = [*further_notes, *_add_centred(builder, study)]
    counts = status_counts(study)
    builder.add("n", counts["completed"].map(str), counts["completed"])
    status = status_text(counts)
    builder.add("Status", status, status)
    cost = median_costs(study)
    for name in MAIN_COSTS:
        builder.add_cost(name, cost)
    return builder.table(
        "main", "scores (x100; means) and costs (medians) over completed seeds", [*notes(study), *further_notes]
    )


def _add_centred(builder: TableBuilder, study: StudyFrames) -> list[str]:
    """The mean over tasks of centred scores and the length of the mean vector; returns what they are."""
    centred = of_metric(study, CENTRED)
    tasks = centred.columns[centred.notna().any()]
    if not len(tasks):
        return []
    for heading, values, factor, decimals in (
        ("Centred", centred, 100, 2),
        ("Mean vector", of_metric(study, MEAN_LENGTH), 1, 2),
    ):
        mean = values[tasks].mean(axis=1, skipna=False).to_frame("mean")
        order = over_seeds(study.runs, mean).mean["mean"] * factor
        builder.add(heading, order.map(lambda value, d=decimals: DASH if pd.isna(value) else f"{value:.{d}f}"), order)
    of = "" if len(tasks) == len(study.tasks) else f" of {', '.join(map(str, tasks))}"
    return [
        f"Centred: mean over tasks{of} with the mean of each task's vectors taken from them before the cosine; Mean "
        "vector: how long that mean of unit vectors is, 0 for vectors in all directions, 1 for vectors in one."
    ]


def task_table(study: StudyFrames, interquartile_means: pd.DataFrame | None = None) -> Table:
    """Main score of each task, and the interquartile mean over runs and tasks where it is given (mean, half_width)."""
    builder, further = TableBuilder(study), []
    for task, metric in study.tasks["metric"].items():
        builder.add_estimate(f"{task} ({metric})", study.score, str(task), 2)
    if interquartile_means is not None and len(study.tasks) > 1:
        builder.add_spread("IQM", interquartile_means["mean"], interquartile_means["half_width"], 2)
        further = [IQM_NOTE]
    return builder.table("tasks", "main score of each task (x100)", [*notes(study), *further])


def cost_table(study: StudyFrames) -> Table:
    """All entries of the ledger."""
    builder, cost = TableBuilder(study), median_costs(study)
    for name in [*LEDGER, *sorted(set(map(str, cost)) - set(LEDGER))]:
        builder.add_cost(name, cost)
    notes = [
        "Medians over completed seeds. Every run alone is in runs.csv.",
        "Stored teacher signals were computed once and shared by all runs; online ones were computed for this run.",
    ]
    return builder.table("costs", "what a run cost", [*notes, *difference_notes(study)])


def run_frame(study: StudyFrames) -> pd.DataFrame:
    """One row per run, unrounded: identity, status, main scores, averages, shares of the gap, ledger."""
    parts: list[pd.DataFrame | pd.Series] = [
        study.scores.add_prefix("score:"),
        study.averages.add_prefix("average:"),
        study.gaps[list(study.averages)].add_prefix("gap_closed:"),
        study.costs.convert_dtypes(),
    ]
    return study.runs.drop(columns="key").convert_dtypes().join(parts)


def label_frame(study: StudyFrames) -> pd.DataFrame:
    """One row per row of the main table, unrounded: mean, sd, half-width of averages and gap; median costs."""
    counts = status_counts(study)
    frame = study.rows.join(study.runs.groupby("key")["limit"].first()).join(counts)
    for kind, estimate in (("average", study.average), ("gap_closed", study.gap)):
        for group in study.averages:
            for statistic in ("mean", "sd", "half_width"):
                frame[f"{kind}:{group}:{statistic}"] = getattr(estimate, statistic)[group]
    return frame.join(median_costs(study))


def score_frame(study: StudyFrames) -> pd.DataFrame:
    """One row per run and task, unrounded."""
    long = study.scores.reset_index().melt(id_vars="run_id", var_name="task", value_name="score").dropna()
    return long.join(study.runs[["row", "label", "seed"]], on="run_id").join(study.tasks, on="task")


def flop_unit(largest: float) -> tuple[str, float]:
    """The largest unit in which `largest` is at least 1, and its size."""
    return next((item for item in FLOP_UNITS.items() if largest >= item[1]), ("MFLOPs", 1e6))


def _methods_only(study: StudyFrames, estimate: SeedSummary) -> SeedSummary:
    """Without the intervals of floor and ceiling, whose share is 0 and 1 by definition."""
    methods = study.rows["role"] == "method"
    return SeedSummary(estimate.mean, estimate.sd, estimate.half_width.where(methods.reindex(estimate.mean.index)))
