"""What a study found, in sentences derived from its verdicts, and what makes it mean nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from distilbench.analysis.frame import BY_TYPE, OVERALL, StudyFrames, of_metric, over_seeds, row_names
from distilbench.analysis.inference import Inference
from distilbench.records.record import Record
from distilbench.records.schema import CENTRED
from distilbench.reporting.notes import counted, smoke_mark, some
from distilbench.reporting.ranking import advice, machine, parameters_of

HEADS = {
    "isometry": "heads start as isometries",
    "torch": "heads start as torch has it",
    "released": "heads start as in each method's released code",
}
"""By `train.head_start`, which older records do not have."""


def compared(study: StudyFrames) -> str:
    """What was compared, in a sentence, from the records of the study's methods."""
    names = row_names(study, "method")
    records = [record for record in study.records.values() if record.role == "method"]
    if not records:
        return f"{len(study.records)} runs without a trained student."
    seeds = len({record.seed for record in records})
    parameters = sorted({f"{parameters_of(study, key) / 1e6:.2f}M" for key in names})
    budgets = sorted({f"{record.budget['amount']:g} {record.budget['currency']}" for record in records})
    heads = sorted({HEADS[start] for record in records if (start := record.train.get("head_start")) in HEADS})
    return (
        f"{counted(len(names), 'method')}, {_tuning(records)}, {counted(seeds, 'seed')}: teacher "
        f"{some({str(record.teacher['name']) for record in records})}, students of {some(parameters)} parameters, "
        f"{some(budgets)} of {some({str(record.text['source']) for record in records})}, "
        f"{counted(len(study.tasks), 'task')}; {'; '.join([*heads, some({machine(r.environment) for r in records})])}."
    )


def _tuning(records: Iterable[Record]) -> str:
    trials = sorted({int(record.ledger["tuning_trials"]) for record in records})
    return " and ".join("untuned" if count == 0 else f"tuned by {counted(count, 'training')} each" for count in trials)


def findings(study: StudyFrames, inference: Inference) -> list[str]:
    """What can be said of the methods on the mean over tasks, a sentence or two for each set that may be compared.

    Empty for smoke runs, and where no two rows were scored on the same examples.
    """
    if smoke_mark(study) or not inference.comparisons():
        return []
    names, letters = row_names(study, "method"), study.runs.groupby("key")["letters"].first()
    found = list[str]()
    for letter in dict.fromkeys(letters[list(names)]):
        scores = {key: inference.score(key, OVERALL) for key in names if letters[key] == letter}
        known = {key: score.mean for key, score in scores.items() if score is not None}
        ordered = sorted(known, key=lambda key: -known[key])
        found += _above_the_floor(study, inference, ordered)
        if len(ordered) > 1:
            found.append(f"On {OVERALL}: {advice(study, inference, ordered)[0]}")
            found += _order_when_centred(study, inference, ordered)
    return found


def _order_when_centred(study: StudyFrames, inference: Inference, ordered: list[str]) -> Iterator[str]:
    """Whether the order of some methods, best first, is another once the offset of their vectors is taken away."""
    centred = of_metric(study, CENTRED)
    if centred.empty or centred.isna().to_numpy().any():
        return
    means = over_seeds(study.runs, centred.mean(axis=1).to_frame("mean")).mean["mean"][ordered]
    shown = [
        (better, worse)
        for place, better in enumerate(ordered)
        for worse in ordered[place + 1 :]
        if inference.verdict(better, worse) == "better"
    ]
    turned = sum(bool(means[better] < means[worse]) for better, worse in shown)
    names, first = row_names(study, "method"), str(means.idxmax())
    if turned:
        yield (
            f"With centred vectors {names[first]} has the best mean, and of the {counted(len(shown), 'difference')} "
            f"shown here {turned} turn round: part of this order is an offset that all vectors of a model share."
        )


def _above_the_floor(study: StudyFrames, inference: Inference, keys: list[str]) -> Iterator[str]:
    """Which methods are shown to be better than the student before training on every task type, or on their mean."""
    names = row_names(study, "method")
    types = [str(group) for group in study.averages if group not in (OVERALL, BY_TYPE)] if len(study.tasks) > 1 else []
    for floor in row_names(study, "floor"):
        compared = [key for key in keys if inference.verdict(key, floor) is not None]
        better = [key for key in compared if all(inference.verdict(key, floor, at) == "better" for at in types)]
        where = " and ".join(types)
        if not (types and better):
            better, where = [key for key in compared if inference.verdict(key, floor) == "better"], OVERALL
        if len(compared) == 1:
            (key,), verdict = compared, inference.verdict(compared[0], floor)
            yield f"On {OVERALL}: {names[key]} against the student before training: {verdict}."
        # That none is better is an alarm.
        elif better:
            yield (
                f"{len(better)} of {len(compared)} methods are shown to be better than the student before training on "
                f"{where}: {', '.join(names[key] for key in better)}."
            )


def alarms(study: StudyFrames, inference: Inference) -> list[str]:
    """Why a comparison means nothing, or less than it seems, a sentence each; mostly empty."""
    found, letters = list[str](), study.runs.groupby("key")["letters"].first()
    means = dict(study.average.mean[OVERALL].dropna()) if OVERALL in study.averages else {}
    for floor in [key for key in row_names(study, "floor") if key in means]:
        alike = [key for key in means if letters[key] == letters[floor]]
        for ceiling in [key for key in row_names(study, "ceiling") if key in alike]:
            if means[ceiling] <= means[floor]:
                found.append(
                    f"The teacher ({means[ceiling] * 100:.2f}) is no better than the student before training "
                    f"({means[floor] * 100:.2f}) on {OVERALL}: there is nothing to distil that these tasks show. Take "
                    "another teacher, or other tasks."
                )
        methods = [key for key in row_names(study, "method") if key in alike]
        verdicts = {key: inference.verdict(key, floor) for key in methods}
        # Without examples, or seeds, nothing is shown of anything, and the means are all there is.
        shown = any(verdict is not None for verdict in verdicts.values())
        better = [verdict == "better" if shown else means[key] > means[floor] for key, verdict in verdicts.items()]
        if methods and not any(better):
            found.append(
                f"No method is {'shown to be ' if shown else ''}better than the student before training on {OVERALL}: "
                "their order says nothing of distillation. Train longer, or with another learning rate."
            )
    return [*found, *_untrained(study)]


def _untrained(study: StudyFrames) -> list[str]:
    """The schedule begins at a learning rate of 0, which is all that a single step has."""
    rows = study.runs["row"]
    still = [
        f"{rows.loc[run_id]} (seed {record.seed})"
        for run_id, record in study.records.items()
        if record.role == "method" and record.status == "completed" and record.ledger.get("steps") == 1
    ]
    if not still:
        return []
    return [
        f"Trained for one step, whose learning rate is 0: {some(still)}. These are students before training; give the "
        "budget more steps, or the batch fewer rows."
    ]
