"""The one message of each figure, in a sentence that is derived from verdicts, or from the means that are drawn."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

import numpy as np
import pandas as pd

from distilbench.analysis.designs.best_of_k import curve
from distilbench.analysis.designs.dev_curves import curves as dev_curves
from distilbench.analysis.designs.effects import effects
from distilbench.analysis.frame import OVERALL, median_costs, row_names
from distilbench.analysis.rankings import ranks as rank_intervals
from distilbench.analysis.verdicts import Verdict
from distilbench.reporting.figures.drawn import FigureData, scored_methods
from distilbench.reporting.figures.representation import planes
from distilbench.reporting.figures.scores import pareto_front, seed_deviations
from distilbench.reporting.figures.style import short, width
from distilbench.reporting.figures.verdicts import reference_of

CHARACTERS_PER_INCH = 15
LAST_PART = 0.25
"""Of the budget, over which the fall of a loss is told."""
Message = Callable[[FigureData], str | None]


def title(name: str, given: FigureData) -> str | None:
    """The message of figure `name`, in lines as long as the figure is wide; None where it has none."""
    message = MESSAGES[name](given) if name in MESSAGES else None
    return textwrap.fill(message, int(CHARACTERS_PER_INCH * width())) if message else None


def _scores(given: FigureData) -> str | None:
    methods = _alike(given)
    means = {key: score.mean for key in methods if (score := given.inference.score(key, OVERALL)) is not None}
    if len(means) < 2:
        return None
    first = max(means, key=lambda key: means[key])
    verdicts = {key: given.inference.verdict(first, key) for key in means if key != first}
    if None in verdicts.values():
        return None
    level = [key for key, verdict in verdicts.items() if verdict != "better"]
    if not level:
        return f"{methods[first]} is shown to be best on {OVERALL}"
    better = f"shown to be better than {len(verdicts) - len(level)} of {len(verdicts)} methods"
    return f"On {OVERALL}, {methods[first]} is {better}, not than {_named(methods, level)}"


def _differences(given: FigureData) -> str | None:
    methods = scored_methods(given.study)
    reference = reference_of(given, methods)
    verdicts = [given.inference.verdict(key, str(reference)) for key in methods if key != reference]
    found = Counter(verdict for verdict in verdicts if verdict is not None)
    parts = [
        f"{found[verdict]} {verdict}" for verdict in ("better", "worse", "equivalent", "undecided") if found[verdict]
    ]
    return f"On {OVERALL}, against {methods[reference]}: {', '.join(parts)}" if reference and parts else None


def _ranks(given: FigureData) -> str | None:
    places, names = rank_intervals(given.inference, OVERALL), row_names(given.study, "method")
    first = list(places.sort_values("rank").index[places.sort_values("rank")["low"] == 1])
    one = len(first) == 1
    return f"{names[first[0]]} has the first place" if one else f"The first place is open to {_named(names, first)}"


def _cost(given: FigureData) -> str | None:
    methods, study = scored_methods(given.study), given.study
    front = pareto_front(study, methods, median_costs(study)["seconds_train"])
    return f"The best mean for its training time: {_named(methods, front)}" if front else None


def _tasks(given: FigureData) -> str | None:
    methods = scored_methods(given.study)
    shares = given.study.gap.mean.reindex(list(methods))[list(given.study.tasks.index)].dropna(axis="columns") * 100
    if shares.empty:
        return None
    line, name = shares.iloc[0], methods[str(shares.index[0])]
    least, most = str(line.idxmin()), str(line.idxmax())
    return f"{name} closed {line[most]:.0f} % of the gap on {short(most)}, and {line[least]:.0f} % on {short(least)}"


def _seeds(given: FigureData) -> str | None:
    spread = seed_deviations(given.study).std().dropna()
    return f"Seeds move a method's mean by {_span(spread)} points (standard deviation)" if len(spread) else None


def _response(given: FigureData) -> str | None:
    lines = dev_curves(given.study).dropna(axis="columns") * 100
    if lines.shape[1] < 2:
        return None
    spent = lines.columns.to_numpy(dtype=float)
    before = lines.columns[int(np.abs(spent[:-1] / spent[-1] - 0.5).argmin())]
    gained = lines[lines.columns[-1]] - lines[before]
    return (
        f"From {float(str(before)) / spent[-1]:.0%} of the budget to its end, dev scores changed by "
        f"{_signed(gained, row_names(given.study, 'method'))} points"
    )


def _losses(given: FigureData) -> str | None:
    curves = given.curves.assign(key=given.curves["run_id"].map(given.study.runs["key"]))
    fallen = {key: fall for key, part in curves.groupby("key") if (fall := _last_fall(part)) is not None}
    names = {key: name for key, name in row_names(given.study, "method").items() if key in fallen}
    if not names:
        return None
    return f"In the last quarter of training, losses changed by {_signed(pd.Series(fallen)[list(names)], names, 0)} %"


def _last_fall(part: pd.DataFrame) -> float | None:
    """Percent by which the loss of a method's runs changed, from the eighth before the last quarter to the last one."""
    place = part["sentences"] / part.groupby("run_id")["sentences"].transform("max")
    half = LAST_PART / 2
    before = part["loss"][(place > 1 - LAST_PART - half) & (place <= 1 - LAST_PART)].median()
    after = part["loss"][place > 1 - half].median()
    return float(100 * (after / before - 1)) if before > 0 and after > 0 else None


def _plane(given: FigureData) -> str | None:
    last = planes(given.study).sort_values("share").groupby("key").last()["hsic_teacher"].dropna()
    names = row_names(given.study, "method")
    if last.empty:
        return None
    first = str(last.idxmax())
    return f"{names[first]}'s vectors depend most on the teacher's (normalised HSIC {last[first]:.2f})"


def _layers(given: FigureData) -> str | None:
    ends: dict[str, list[float]] = {}
    for run_id, record in given.study.records.items():
        if record.role == "method" and len(matrix := record.vectors.get("layers", [])) > 1:
            ends.setdefault(str(given.study.runs.at[run_id, "key"]), []).append(float(matrix[-1][-1]))
    means, names = (
        pd.Series({key: float(np.mean(values)) for key, values in ends.items()}),
        row_names(given.study, "method"),
    )
    if len(means) < 2 or means.isna().any():
        return None
    most, least = str(means.idxmax()), str(means.idxmin())
    return (
        f"The last layer is most like the teacher's last in {names[most]} (CKA {means[most]:.2f}), least in "
        f"{names[least]} ({means[least]:.2f})"
    )


def _ablation(given: FigureData) -> str | None:
    judged = [item.judgement.verdict for item in effects(given.inference, given.design.ablations) if item.judgement]
    found = Counter(judged)
    parts = [
        f"{found[verdict]} {verdict}" for verdict in ("better", "worse", "equivalent", "undecided") if found[verdict]
    ]
    return f"Of {len(judged)} changes: {', '.join(parts)}" if parts else None


def _best_of_k(given: FigureData) -> str | None:
    tuned = given.design.tuning.methods if given.design.tuning else []
    means = {item.label: curve(item)[0] for item in tuned}
    left = pd.Series(
        {label: 100 * (line[-1] - line[(len(line) - 1) // 2]) for label, line in means.items() if len(line) > 1}
    )
    return f"The second half of the trials is worth {_span(left)} points of dev score" if len(left) else None


def _named(names: Mapping[str, str], keys: Sequence[str], most: int = 4) -> str:
    """The names of rows, in this order, or their number where that would be a long list."""
    return ", ".join(short(names[key]) for key in keys) if len(keys) <= most else f"{len(keys)} of them"


def _counts(found: Counter[Verdict]) -> str:
    return ", ".join(f"{found[verdict]} {verdict}" for verdict in get_args(Verdict) if found[verdict])


def _span(values: pd.Series[float], digits: int = 2) -> str:
    low, high = f"{values.min():.{digits}f}", f"{values.max():.{digits}f}"
    return low if low == high else f"{low} to {high}"


def _signed(values: pd.Series[float], names: Mapping[str, str], digits: int = 1) -> str:
    """The least and the most of them, with the rows that they are of."""
    ends = [(str(values.idxmin()), values.min()), (str(values.idxmax()), values.max())]
    parts = [f"{value:+.{digits}f} ({short(names[key])})" for key, value in ends]
    return parts[0] if len(values) == 1 else " to ".join(parts)


def _alike(given: FigureData) -> dict[str, str]:
    """The methods, where all may be compared with each other; none otherwise."""
    methods, letters = scored_methods(given.study), given.study.runs.groupby("key")["letters"].first()
    return methods if letters[list(methods)].nunique() == 1 else {}


MESSAGES: dict[str, Message] = {
    "scores": _scores,
    "score_vs_cost": _cost,
    "differences": _differences,
    "ranks": _ranks,
    "ablation": _ablation,
    "best_of_k": _best_of_k,
    "response": _response,
    "information_plane": _plane,
    "layers": _layers,
    "tasks": _tasks,
    "seed_spread": _seeds,
    "learning_curves": _losses,
}
