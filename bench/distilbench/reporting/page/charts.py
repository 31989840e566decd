"""What the page's own charts are drawn from: scores, costs, differences and dev scores, as plain JSON types.

Scores and differences are in points (x100). Methods are known by their place in the study's tables.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from distilbench.analysis.designs.dev_curves import dev_scores
from distilbench.analysis.frame import StudyFrames, median_costs
from distilbench.analysis.inference import Inference
from distilbench.core.escape import visible
from distilbench.reporting.figures.style import GREY, looks
from distilbench.reporting.tables.scores import flop_unit

SYMBOLS = {
    **{"o": "circle", "s": "square", "^": "triangle", "D": "diamond", "v": "wye", "P": "cross", "X": "star"},
    **{"<": "triangle2", ">": "diamond2", "p": "hexagon"},
}
"""Marker of the figures -> symbol of the charts."""
DRAWN = ("scores", "score_vs_cost", "differences", "response")
"""The figures that the page draws anew, so that a reader can ask them for values."""


def chart_data(study: StudyFrames, inference: Inference) -> dict[str, Any]:
    """All that the script draws; unknown numbers are None."""
    places = {str(key): place for place, key in enumerate(study.rows.index)}
    columns = [*map(str, study.averages), *(str(task) for task in study.tasks.index if len(study.tasks) > 1)]
    return {
        "study": visible(study.name),
        "margin": study.margin * 100,
        "rows": _rows(study),
        "columns": [{"name": visible(name), **_scores(study, places, name)} for name in columns],
        "costs": _costs(study, places),
        "pairs": {visible(name): pairs for name in columns if (pairs := _pairs(inference, places, name))},
        "response": _response(study, places),
    }


def _rows(study: StudyFrames) -> list[dict[str, Any]]:
    look = looks(study.runs)
    rows = []
    for key, row in study.rows.iterrows():
        colour, marker = look.get(str(key), (GREY, "o"))
        rows.append(
            {
                "name": visible(str(row["row"])),
                "role": row["role"],
                "colour": colour,
                "symbol": SYMBOLS[marker],
            }
        )
    return rows


def _scores(study: StudyFrames, places: dict[str, int], column: str) -> dict[str, Any]:
    """Place -> mean and half-width, and the score of each seed."""
    is_task = column in study.tasks.index
    summary, values = (study.score, study.scores) if is_task else (study.average, study.averages)
    runs = study.runs.loc[values.index].assign(value=values[column])
    seeds: dict[int, list[list[float | None]]] = {}
    for key, seed, value in zip(runs["key"], runs["seed"], runs["value"], strict=True):
        seeds.setdefault(places[str(key)], []).append([int(seed), _plain(value * 100)])
    means = {place: [*map(_plain, summary.percent(key, column))] for key, place in places.items()}
    return {"means": {place: pair for place, pair in means.items() if pair[0] is not None}, "seeds": seeds}


def _costs(study: StudyFrames, places: dict[str, int]) -> list[dict[str, Any]]:
    """Median, least and most of each cost over the completed seeds of the methods."""
    kinds = {"seconds_train": "Training time (s)", "student_flops": "Student compute"}
    found = []
    for name in (name for name in kinds if name in study.costs):
        label, divisor = kinds[name], 1.0
        if name.endswith("_flops"):
            unit, divisor = flop_unit(study.costs[name].max())
            label = f"{label} ({unit})"
        values = study.costs[name] / divisor
        by_key = values.groupby(study.runs["key"].reindex(values.index))
        spread = pd.DataFrame({"low": by_key.min(), "high": by_key.max()}).reindex(median_costs(study).index)
        spread.insert(0, "median", median_costs(study)[name] / divisor)
        trained = spread[study.rows["role"].reindex(spread.index) == "method"].dropna()
        found.append({"label": label, "values": {places[str(key)]: [*row] for key, row in trained.iterrows()}})
    return found


def _pairs(inference: Inference, places: dict[str, int], column: str) -> list[list[Any]]:
    """One place, the other, difference, half-width, verdict."""
    return [
        [places[item.one], places[item.other], *_points(item.difference.mean, item.half_width), item.verdict]
        for item in inference.comparisons(column)
    ]


def _response(study: StudyFrames, places: dict[str, int]) -> dict[str, Any]:
    """Place -> what was spent, and the mean, least and highest dev score."""
    frame = dev_scores(study)
    lines: dict[int, list[list[float | None]]] = {}
    spread = frame.groupby(["key", "spent"])["score"].agg(["mean", "min", "max"]).reset_index()
    for key, spent, *scores in spread.itertuples(index=False):
        lines.setdefault(places[str(key)], []).append([_plain(spent), *_points(*scores)])
    currency = next((str(r.budget["currency"]) for r in study.records.values() if r.role == "method"), "")
    return {"currency": visible(currency), "lines": lines}


def _points(*fractions: float) -> list[float | None]:
    return [_plain(value * 100) for value in fractions]


def _plain(value: float) -> float | None:
    """To more digits than are shown; None for what is no number."""
    return round(float(value), 5) if math.isfinite(value) else None
