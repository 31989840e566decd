"""The page of a study: one file that needs nothing beside it; every text from a record is escaped."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from distilbench.analysis.frame import OVERALL, StudyFrames
from distilbench.analysis.inference import Inference
from distilbench.core.escape import escape_html
from distilbench.records.record import Record
from distilbench.reporting.cells import Cell, decimal_cell, number, study_table
from distilbench.reporting.findings import alarms, compared, findings
from distilbench.reporting.formats.render import Table, to_html
from distilbench.reporting.notes import caution
from distilbench.reporting.prose import paragraph

DETAILS = (
    "hyperparameters",
    "scores",
    "ledger",
    "response",
    "vectors",
    "speed",
    "contamination",
    "budget",
    "text",
    "train",
    "student",
    "teacher",
    "identity",
    "environment",
)
SECTIONS = {
    "Scores": ("table main", "figure scores"),
    "Verdicts": (
        "table verdict_matrix",
        "figure differences",
        "figure ranks",
        "figure seed_spread",
        "table verdicts",
        "table power",
        "table error_rates",
        "table gate_error_rates",
    ),
    "Ablation": ("table ablation", "figure ablation", "figure interactions"),
    "Tuning": ("table tuning", "figure best_of_k", "table best_of_k"),
    "Tasks": ("figure tasks", "table tasks"),
    "Vectors": ("table vectors", "figure information_plane", "figure layers"),
    "Costs": ("figure score_vs_cost", "table costs"),
    "Training": ("figure response", "table response", "figure learning_curves"),
}
"""What the page shows before the runs and the settings, as far as it is there."""


def to_page(
    study: StudyFrames, inference: Inference, tables: Mapping[str, Table], figures: Path, captions: dict[str, str]
) -> str:
    """The whole page; `figures` holds one SVG for each name in `captions`."""
    drawn = {name: _figure(figures / f"{name}.svg", name, caption) for name, caption in captions.items()}
    parts = {f"table {name}": to_html(table) for name, table in tables.items()}
    parts |= {f"figure {name}": svg for name, svg in drawn.items()}
    shown = {title: [parts[name] for name in names if name in parts] for title, names in SECTIONS.items()}
    ledger = [table for name, table in parts.items() if name.startswith("table reproduction")]
    shown |= {"Reproduction": ledger} if ledger else {}
    shown["Runs"] = [to_html(_run_table(study)), *(_run(study, record) for record in study.records.values())]
    shown["Settings"] = [f"<p>{escape_html(paragraph(study))}</p>", parts["table settings"]]
    body = "".join(_section(title, parts) for title, parts in shown.items() if parts)
    links = "".join(f'<a href="#{title.lower()}">{title}</a>' for title, parts in shown.items() if parts)
    title = escape_html(study.name)
    mark = caution(study)
    banner = "".join(
        f'<p class="{kind}">{escape_html(text)}</p>'
        for kind, texts in (
            ("mark", [mark] if mark else []),
            ("mark", alarms(study, inference)),
            ("compared", [compared(study)]),
            ("finding", findings(study, inference)),
        )
        for text in texts
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title} - distilbench</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>\n"
        f"<header><h1>{title}</h1>{banner}<nav>{links}</nav></header>\n<main>\n{body}</main>\n"
        f"<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return resources.files("distilbench.reporting").joinpath(name).read_text(encoding="utf-8")


def _section(title: str, parts: Sequence[str]) -> str:
    return f'<section id="{title.lower()}"><h2>{title}</h2>\n{"".join(parts)}\n</section>\n'


def _figure(path: Path, name: str, caption: str) -> str:
    """The SVG of `path` for use inside a page: no prologue, and ids that no other figure has."""
    svg = re.sub(r"^.*?(?=<svg)", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape_html(caption)}" ', 1)
    return (
        f'<figure class="chart"><div class="card">{svg}</div><figcaption>{escape_html(caption)}</figcaption></figure>\n'
    )


def _run_table(study: StudyFrames) -> Table:
    overall, seconds = study.averages[OVERALL] * 100, study.costs.get("seconds_train", pd.Series(dtype="float64"))
    lines: list[Mapping[str, Cell]] = [
        {
            "Method": run["row"],
            "Seed": (str(run["seed"]), run["seed"]),
            "Status": run["status"],
            OVERALL: decimal_cell(overall.get(run_id, math.nan)),
            "Training (s)": (number(seconds.get(run_id, math.nan)), seconds.get(run_id, math.nan)),
            "Run": str(run_id),
        }
        for run_id, run in study.runs.iterrows()
    ]
    return study_table(study, "runs", "every run", lines, [])


def _run(study: StudyFrames, record: Record) -> str:
    row = study.runs["row"].loc[record.run_id]
    summary = escape_html(f"{row}, seed {record.seed}: {record.status}")
    error = f'<p class="error">{escape_html(record.error)}</p>' if record.error else ""
    details = {name: getattr(record, name) for name in DETAILS}
    details["response"] = {f"{row['share']:.4g} of the budget": row["score"] for row in record.response}
    parts = "".join(_values(name, values) for name, values in details.items())
    return f"<details><summary>{summary} <code>{escape_html(record.run_id)}</code></summary>{error}{parts}</details>\n"


def _values(title: str, values: dict[str, Any]) -> str:
    if not values:
        return ""
    rows = "".join(
        f"<dt>{escape_html(str(key))}</dt><dd>{escape_html(_plain(value))}</dd>" for key, value in values.items()
    )
    return f"<h3>{title}</h3><dl>{rows}</dl>"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(part)}" for key, part in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)
