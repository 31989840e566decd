"""Puts a page together. The template escapes all that comes from records."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from distilbench.analysis.frame import StudyFrames, row_names
from distilbench.analysis.inference import Inference
from distilbench.core.escape import visible_lines
from distilbench.reporting.findings import alarms, compared
from distilbench.reporting.formats.render import Table
from distilbench.reporting.notes import caution
from distilbench.reporting.page import shown_tables
from distilbench.reporting.page.charts import DRAWN, chart_data
from distilbench.reporting.page.runs import run_table, shown_runs
from distilbench.reporting.page.shown_tables import ShownTable, data_uri, shown_table
from distilbench.reporting.page.summary import facts, found, lost_runs
from distilbench.reporting.prose import paragraph

SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js")
TITLES = {
    "scores": "Scores",
    "score_vs_cost": "Scores against cost",
    "differences": "Differences",
    "ranks": "Ranks",
    "ablation": "Ablation",
    "interactions": "Interactions",
    "best_of_k": "Best of k trials",
    "response": "Dev score over the budget",
    "information_plane": "Information plane",
    "layers": "Layers",
    "tasks": "Tasks",
    "seed_spread": "Seeds",
    "learning_curves": "Learning curves",
}
"""Headings of the figures; of one without, its name."""
SECTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Scores": (("figure scores", "table main"), ()),
    "Verdicts": (
        ("table verdict_matrix", "figure differences"),
        (
            *("figure ranks", "figure seed_spread"),
            *("table verdicts", "table power", "table error_rates", "table gate_error_rates"),
        ),
    ),
    "Ablation": (("figure ablation", "table ablation"), ("figure interactions",)),
    "Tuning": (("figure best_of_k",), ("table tuning", "table best_of_k")),
    "Tasks": (("table gap_by_task",), ("figure tasks", "table tasks")),
    "Costs": (("figure score_vs_cost",), ("table costs",)),
    "Training": (("figure response",), ("table response", "figure learning_curves")),
    "Vectors": ((), ("figure information_plane", "figure layers", "table vectors")),
}
"""Section -> what it shows, and what it folds; a part that no section names is folded under `REST`."""
REST = "Reproduction"
MAGNIFIED = 1.4
"""Figures have letters of 8 points."""


@dataclass(frozen=True)
class InlineFigure:
    """One figure, as drawn by matplotlib."""

    name: str
    title: str
    caption: str
    svg: Markup
    pdf: str | None
    """Data URI."""
    redrawn: bool
    """Whether the script draws it anew, so that a reader can ask it for values."""


@dataclass(frozen=True)
class PageSection:
    """One section, and its parts in order."""

    title: str
    shown: list[ShownTable | InlineFigure] = field(default_factory=list)
    folded: list[ShownTable | InlineFigure] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """The id by which links know it."""
        return self.title.lower()


def to_page(
    study: StudyFrames, inference: Inference, tables: Mapping[str, Table], folder: Path, captions: Mapping[str, str]
) -> str:
    """The whole page; `folder` holds the folders `tables` and `figures`, with an SVG for each name in `captions`."""
    figures = {name: _figure(folder / "figures", name, caption) for name, caption in captions.items()}
    parts = _parts(study, inference, tables, folder / "tables", figures)
    drawn = any(figure.redrawn for figure in figures.values())
    page = _environment().get_template("page.html.jinja")
    return page.render(
        study=study.name,
        caution=caution(study),
        alarms=[*alarms(study, inference), *filter(None, [lost_runs(study)])],
        compared=compared(study),
        facts=facts(study),
        found=found(study, inference),
        sections=_sections(parts),
        methods=_filtered(study),
        tasks=[(str(task), kind) for task, kind in study.tasks["type"].items()],
        runs=shown_runs(study),
        run_table=shown_table(run_table(study), study),
        settings=shown_table(tables["settings"], study, folder / "tables"),
        paragraph=paragraph(study),
        scripts=[Markup(_asset(name)) for name in SCRIPTS] if drawn else [],
        data=chart_data(study, inference) if drawn else None,
    )


def to_html(table: Table) -> str:
    """One table as the page has it, without its files."""
    parts = _environment().get_template("parts.html.jinja").module
    return str(getattr(parts, "table")(shown_table(table)))  # noqa: B009


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.globals.update(
        style=Markup(_asset("page.css")),
        script=Markup(_asset("charts.js") + _asset("page.js")),
        signs=shown_tables.SIGNS,
        formats={"csv": "CSV", "md": "Markdown", "tex": "LaTeX"},
        is_table=_is_table,
    )
    return environment


def _finalize(value: object) -> object:
    """What is not seen is written out, as everywhere."""
    return visible_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _is_table(part: object) -> bool:
    return isinstance(part, ShownTable)


def _asset(name: str) -> str:
    return resources.files("distilbench.reporting.page").joinpath(name).read_text(encoding="utf-8")


def _parts(
    study: StudyFrames,
    inference: Inference,
    tables: Mapping[str, Table],
    folder: Path,
    figures: Mapping[str, InlineFigure],
) -> dict[str, ShownTable | InlineFigure]:
    """All but the settings, which are shown with the paragraph on them."""
    parts: dict[str, ShownTable | InlineFigure] = {}
    for name, table in tables.items():
        if name == "main":
            parts["table main"] = shown_tables.main_on_page(study, inference, table, folder)
        elif name == "verdict_matrix":
            parts["table verdict_matrix"] = shown_tables.matrix_on_page(study, inference, table, folder)
        elif name != "settings":
            parts[f"table {name}"] = shown_table(table, study, folder)
    if heat := shown_tables.heat_on_page(study):
        parts["table gap_by_task"] = heat
    return parts | {f"figure {name}": figure for name, figure in figures.items()}


def _sections(parts: dict[str, ShownTable | InlineFigure]) -> list[PageSection]:
    named = {name for lists in SECTIONS.values() for names in lists for name in names}
    lists = {**SECTIONS, REST: ((), tuple(name for name in parts if name not in named))}
    made = [
        PageSection(title, *([parts[name] for name in names if name in parts] for names in both))
        for title, both in lists.items()
    ]
    return [section for section in made if section.shown or section.folded]


def _filtered(study: StudyFrames) -> list[tuple[int, str]]:
    """Place and name of the rows that a reader may hide."""
    places = shown_tables.names(study)
    return [(places[name], name) for name in row_names(study, "method").values()]


def _figure(folder: Path, name: str, caption: str) -> InlineFigure:
    """The SVG for use inside a page: no prologue, and ids that no other figure has."""
    svg = re.sub(r"^.*?(?=<svg)", "", (folder / f"{name}.svg").read_text(encoding="utf-8"), flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    label = Markup.escape(visible_lines(caption))
    # No larger than letters of a page's size, also where a figure is for one of two columns.
    points = re.search(r'width="([\d.]+)pt"', svg)
    widest = f' style="max-width: {float(points[1]) * MAGNIFIED:.0f}pt"' if points else ""
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}"{widest} ', 1)
    pdf = folder / f"{name}.pdf"
    return InlineFigure(
        name=name,
        title=TITLES.get(name, name.replace("_", " ").capitalize()),
        caption=caption,
        svg=Markup(svg),
        pdf=data_uri("application/pdf", pdf.read_bytes()) if pdf.is_file() else None,
        redrawn=name in DRAWN,
    )
