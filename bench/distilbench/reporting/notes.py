"""What a reader must know before using a table: the footnotes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from distilbench.analysis.frame import BY_TYPE, OVERALL, StudyFrames, references
from distilbench.analysis.inference import Inference
from distilbench.records.design import TUNED, Benchmark
from distilbench.records.record import Record
from distilbench.records.schema import LEARNING_RATE

MACHINE = ("platform", "cpu", "threads", "device")
MOST_NAMED, MOST_IN_A_MARK = 8, 3
STATUSES = ("completed", "diverged", "failed", "missing")


def smoke_mark(study: StudyFrames) -> str | None:
    """The mark of a study with shortened runs; None when all runs are whole."""
    limits = sorted({int(limit) for limit in study.runs["limit"].dropna()})
    if not limits:
        return None
    return f"smoke run (--limit {', '.join(map(str, limits))}): not a result"


def caution(study: StudyFrames) -> str | None:
    """What stands before every table of a study whose rows are no results, or were not treated alike."""
    return "; ".join(filter(None, [smoke_mark(study), unequal_tuning(study), own_rates(study)])) or None


def unequal_tuning(study: StudyFrames) -> str | None:
    """The mark of a study in which some methods were tuned more than others; None where all had the same chance.

    A row at a method's own settings beside the tuned row of the same method is no inequality: it is another regime.
    """
    spent: dict[str, set[int]] = {}
    for record in study.records.values():
        if record.role == "method":
            trials = int(record.ledger["tuning_trials"])
            spent.setdefault(record.label.removesuffix(TUNED) if trials else record.label, set()).add(trials)
    most = {label: max(trials) for label, trials in spent.items()}
    if len(set(most.values())) < 2:
        return None
    parts = "; ".join(
        f"{trials}: {', '.join(n for n in most if most[n] == trials)}" for trials in sorted(set(most.values()))
    )
    return f"unequal tuning (trials: methods) {parts}"


def own_rates(study: StudyFrames) -> str | None:
    """The mark of a study in which rows have a learning rate that neither the study nor its tuning gave them."""
    found = {
        record.label: ", ".join(f"{rate:g}" for rate in rates)
        for record in study.records.values()
        if record.role == "method" and not record.ledger["tuning_trials"] and (rates := list(_rates(record)))
    }
    return (
        f"learning rates of their own: {some(f'{label} {rates}' for label, rates in found.items())}" if found else None
    )


def _rates(record: Record) -> Iterator[float]:
    """The learning rates that a row has for itself, one for each stage that has one."""
    for stage in [record.hyperparameters, *record.hyperparameters.get("stages", [])]:
        if LEARNING_RATE in stage:
            yield stage[LEARNING_RATE]


def some(texts: Iterable[str]) -> str:
    """The first few of some texts, in order, and how many more there are."""
    texts = sorted(texts)
    more = f" and {len(texts) - MOST_IN_A_MARK} more" if len(texts) > MOST_IN_A_MARK else ""
    return ", ".join(texts[:MOST_IN_A_MARK]) + more


def difference_notes(study: StudyFrames) -> list[str]:
    """What sets rows of different letters apart; nothing where all rows are comparable."""
    if not study.differences:
        return []
    parts = [
        f"{name}: {', '.join(f'[{letter}] {_short(value)}' for letter, value in values.items())}"
        for name, values in study.differences.items()
    ]
    apart = "; ".join(parts)
    return [f"Rows with different letters are not comparable and were not averaged; they differ in {apart}."]


def _short(value: str) -> str:
    text = value.strip('"')
    return text if len(text) <= 40 else f"{text[:12]}..."


def status_counts(study: StudyFrames) -> pd.DataFrame:
    """Rows x statuses: number of runs; `missing` counts the seeds that only other methods of the set have."""
    runs = study.runs
    counts = pd.crosstab(runs["key"], runs["status"]).reindex(columns=list(STATUSES), fill_value=0)
    methods = runs[runs["role"] == "method"]
    seeds = methods.groupby("letters")["seed"].nunique()
    letters = methods.groupby("key")["letters"].first()
    asked = letters.map(seeds).astype("int64") if len(methods) else pd.Series(dtype="int64")
    counts["missing"] = (asked - methods.groupby("key").size()).reindex(counts.index).fillna(0)
    return counts.astype(int)


def status_text(counts: pd.DataFrame) -> pd.Series[str]:
    """Rows of `status_counts` as text, e.g. '1/2 completed, 1/2 diverged'."""

    def text(row: pd.Series[int]) -> str:
        return ", ".join(f"{row[name]}/{row.sum()} {name}" for name in STATUSES if row[name])

    return counts.apply(text, axis=1)


def notes(study: StudyFrames) -> list[str]:
    """Footnotes of the score tables, the general ones first."""
    seeds = study.runs.loc[study.runs["status"] == "completed"].groupby("key").size()
    counts = f"{seeds.min()}" if seeds.nunique() == 1 else f"{seeds.min()} to {seeds.max()}" if len(seeds) else "0"
    return [
        f"± is the half-width of the 95 % interval of the mean over n seeds (here n = {counts}); {_covered(study)}",
        "Gap closed: (score - floor) / (ceiling - floor), floor = student before training, ceiling = teacher.",
        *difference_notes(study),
        *_incomplete(study),
        *_unequal_tasks(study),
        *_floors(study),
        *_machines(study),
    ]


def benchmark_notes(study: StudyFrames, benchmarks: Sequence[Benchmark]) -> list[str]:
    """How much of each benchmark is among a study's tasks: only the means over all of it, and no more, are its own."""
    return [_benchmark_note(study, benchmark) for benchmark in benchmarks]


def _benchmark_note(study: StudyFrames, benchmark: Benchmark) -> str:
    of_it = [task for task in study.tasks.index if task in benchmark.tasks]
    lacking = [task for task in benchmark.tasks if task not in of_it]
    out = [*(f"{task} ({why})" for task, why in benchmark.left_out.items()), *lacking]
    if out:
        more = f" and {len(out) - MOST_NAMED} more" if len(out) > MOST_NAMED else ""
        return (
            f"{len(of_it)} of the {benchmark.size} tasks of {benchmark.name} are scored, so no mean here is the "
            f"benchmark's; not scored: {', '.join(out[:MOST_NAMED])}{more}."
        )
    if len(of_it) < len(study.tasks):
        return (
            f"All {benchmark.size} tasks of {benchmark.name} are scored, and others too, so no mean over tasks here is "
            "the benchmark's."
        )
    means = " and ".join(str(mean) for mean in (OVERALL, BY_TYPE) if mean in study.averages)
    return f"The tasks are all {benchmark.size} of {benchmark.name}: {means} over them."


def _covered(study: StudyFrames) -> str:
    if study.half_widths is None or study.half_widths.scores.isna().all(axis=None):
        return "it covers seeds only, not the choice of examples, and is left out where n < 2."
    return (
        "it covers seeds (Student's t) and the choice of examples (bootstrap), holds for each score alone, and is left "
        "out for students with n < 2."
    )


def _incomplete(study: StudyFrames) -> list[str]:
    counts = status_counts(study)
    bad = counts.drop(columns="completed").sum(axis=1) > 0
    if not bad.any():
        return []
    parts = study.rows["row"].str.cat(status_text(counts), sep=": ")[bad.reindex(study.rows.index)]
    return [f"Only completed runs enter means, so a row that lost runs may look better than it is: {'; '.join(parts)}."]


def _unequal_tasks(study: StudyFrames) -> list[str]:
    lacking = study.scores.isna()
    lacks = [
        f"{_runs([study.records[str(run_id)]], study)} lacks {', '.join(map(str, lacking.columns[row]))}"
        for run_id, row in zip(lacking.index, lacking.to_numpy(), strict=True)
        if row.any()
    ]
    return [f"A dash stands for what not all completed runs of a row have: {'; '.join(lacks)}."] if lacks else []


def _floors(study: StudyFrames) -> list[str]:
    completed = [record for record in study.records.values() if record.status == "completed"]
    methods = [record for record in completed if record.role == "method"]
    sentences = []
    for role, name in (("floor", "a student before training"), ("ceiling", "a teacher")):
        without = [record for record in methods if not references(record, role, completed)]
        if without:
            sentences.append(
                f"No share of the gap for {_runs(without, study)}: {name} comparable with it was not evaluated."
            )
    other = []
    for record in methods:
        floors = [study.records[run_id] for run_id in references(record, "floor", completed)]
        if floors and floors[0].seed != record.seed:
            other.append(record)
    if other:
        sentences.append(f"The mean of the floor runs was used where the seed has none: {_runs(other, study)}.")
    return sentences


def _runs(records: list[Record], study: StudyFrames) -> str:
    names = study.runs["row"]
    return ", ".join(f"{names.loc[record.run_id]} (seed {record.seed})" for record in records)


def _machines(study: StudyFrames) -> list[str]:
    seen = {name: {str(record.environment[name]) for record in study.records.values()} for name in MACHINE}
    mixed = [f"{name} ({', '.join(sorted(values))})" for name, values in seen.items() if len(values) > 1]
    return [f"Seconds are not comparable, the runs differ in {'; '.join(mixed)}."] if mixed else []


def overlap_note(inference: Inference) -> str:
    """How much of the examples share texts, and what that does to the errors."""
    found = inference.overlap
    if found is None:
        return (
            "Which examples share texts is not known, so that errors take them to be independent; running the study "
            "again writes that, and trains nothing."
        )
    wider = ", ".join(f"{name} {ratio:.2f}" for name, ratio in found.widening.items())
    return (
        f"Of {found.examples} examples, {found.repeated} stand in the tasks more than once and {found.sharing} share a "
        "text with another; errors over examples count what these cause together"
        + (f" (for differences of two rows, times what independent examples would give: {wider})." if wider else ".")
    )


def counted(number: int, noun: str) -> str:
    """A number of things, in words: `1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
