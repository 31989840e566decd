"""The methods of a study that somebody may choose from, ranked: what is sure, what it costs, what to run next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from distilbench.analysis.frame import ALPHA, OVERALL, StudyFrames, median_costs, records_of, row_names
from distilbench.analysis.inference import Inference
from distilbench.reporting.cells import DASH, Cell, decimals, number, plus_minus, study_table
from distilbench.reporting.formats.render import Table
from distilbench.reporting.tables.verdicts import power_notes, seeds_to_settle


def rankings(study: StudyFrames, inference: Inference, keys: list[str]) -> Iterator[Table]:
    """One for each set of rows that may be compared."""
    letters = study.runs.groupby("key")["letters"].first()
    for letter in dict.fromkeys(letters[keys]):
        alike = [key for key in keys if letters[key] == letter and inference.score(key, OVERALL) is not None]
        if len(alike) > 1 and inference.comparisons():
            yield _ranking(study, inference, alike)


def latency_of(study: StudyFrames, key: str) -> float:
    """Milliseconds for one query, the median over seeds; not-a-number where no record states it."""
    return _over_seeds(study, key, "query_ms")


def parameters_of(study: StudyFrames, key: str) -> float:
    """Of the model that ships, with its head where the records know that."""
    counted = _over_seeds(study, key, "parameters")
    return float(records_of(study, key)[0].student["parameters"]) if math.isnan(counted) else counted


def _over_seeds(study: StudyFrames, key: str, name: str) -> float:
    values = [
        record.speed[name] for record in records_of(study, key) if record.status == "completed" and name in record.speed
    ]
    return median(values) if values else math.nan


def _ranking(study: StudyFrames, inference: Inference, keys: list[str]) -> Table:
    scores = {key: score for key in keys if (score := inference.score(key, OVERALL)) is not None}
    ordered = sorted(keys, key=lambda key: -scores[key].mean)
    lines = [_line(inference, key, place, ordered[0]) for place, key in enumerate(ordered, start=1)]
    notes = [
        *advice(study, inference, ordered),
        _where(study, ordered[0]),
        *_machines(study, keys),
        *power_notes(inference),
    ]
    return study_table(study, "advice", f"advice, by {OVERALL} (x100)", lines, notes)


def _line(inference: Inference, key: str, place: int, first: str) -> Mapping[str, Cell]:
    study, score = inference.study, inference.score(key, OVERALL)
    assert score is not None
    verdict = inference.verdict(key, first)
    seeds = _seeds(inference, key, first) if verdict == "undecided" else None
    costs, latency = median_costs(study), latency_of(study, key)
    cost = float(costs["seconds_train"][key]) if "seconds_train" in costs else math.nan
    return {
        "Place": place,
        "Method": row_names(study, "method")[key],
        "n": score.seeds,
        "Score": (plus_minus(score.mean * 100, score.half_width() * 100), score.mean),
        "Against the first": verdict or ("highest score" if key == first else "not compared"),
        "Seeds to settle": (DASH if verdict != "undecided" else str(seeds or "no number"), float(seeds or math.nan)),
        "Training (s)": (number(cost), cost),
        "Query (ms)": (decimals(latency, 1), latency),
    }


def _machines(study: StudyFrames, keys: list[str]) -> list[str]:
    """What the latencies hold for."""
    timed = [record for key in keys for record in records_of(study, key) if "query_ms" in record.speed]
    if not timed:
        return []
    machines = sorted({machine(record.environment) for record in timed})
    note = f"Query: median time for a sentence alone, tokenising included, on {' and on '.join(machines)}"
    mixed = "; rows of different machines are not to be compared in it" if len(machines) > 1 else ""
    return [f"{note}, whatever else that was doing{mixed}. Elsewhere it is another."]


def machine(environment: dict[str, Any]) -> str:
    """What a run ran on, in words."""
    on_cpu = f"{environment['cpu']} ({environment['threads']} threads)"
    return on_cpu if environment["device"] == "cpu" else str(environment["device"])


def _seeds(inference: Inference, one: str, other: str) -> int | None:
    """Seeds that would settle two rows, if their difference is the observed one; None where none would."""
    item = inference.comparison(one, other)
    return None if item is None else seeds_to_settle(item, inference.study.margin)


def advice(study: StudyFrames, inference: Inference, ordered: list[str]) -> list[str]:
    """Which of some rows, the best first, to take, and what to run next where that is open: sentences from verdicts."""
    names, (first, *others) = row_names(study, "method"), ordered
    open_ones = [key for key in others if inference.verdict(key, first) not in ("worse", "equivalent")]
    equal = [names[key] for key in others if inference.verdict(key, first) == "equivalent"]
    beaten = len(others) - len(open_ones) - len(equal)
    sure = f"family-wise error {ALPHA:g}"
    if not open_ones:
        also = f", equivalent within {study.margin * 100:g} points to {', '.join(equal)}" if equal else ""
        return [f"Take {names[first]}: better than {beaten} of {len(others)} others ({sure}){also}."]
    among = ", ".join(names[key] for key in [first, *open_ones])
    rest = f"; {beaten} of {len(others)} others are shown to be worse than {names[first]}" if beaten else ""
    also = f"; equivalent to it: {', '.join(equal)}" if equal else ""
    sentences = [f"Undecided between {among} ({sure}){rest}{also}."]
    needed = [_seeds(inference, key, first) for key in open_ones]
    reachable = [seeds for seeds in needed if seeds]
    if reachable:
        sentences.append(
            f"Run next: the same study with seeds={max(reachable)}, which would settle {len(reachable)} of "
            f"{len(needed)} if the true differences are those observed."
        )
    elif study.runs["seed"][study.runs["role"] == "method"].nunique() < 2:
        sentences.append("Run next: the same study with seeds=5; with one seed nothing can be shown.")
    if len(reachable) < len(needed):
        sentences.append("Where no number of seeds settles it, add tasks or examples, or take the cheaper one.")
    return sentences


def _where(study: StudyFrames, key: str) -> str:
    record = records_of(study, key)[0]
    tuned = record.ledger["tuning_trials"]
    return (
        f"This holds for the teacher {record.teacher['name']}, students of {parameters_of(study, key) / 1e6:.2f}M "
        f"parameters, {record.budget['amount']:g} {record.budget['currency']} of {record.text['source']} and the tasks "
        f"{', '.join(map(str, study.tasks.index))}; methods {f'tuned by {tuned} trainings' if tuned else 'not tuned'}. "
        "Nothing is said of other situations."
    )
