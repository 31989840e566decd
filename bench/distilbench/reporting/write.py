"""Writes one study's report: all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from distilbench.analysis.designs.effects import effects
from distilbench.analysis.error_rates import ErrorRates
from distilbench.analysis.frame import HalfWidths, StudyFrames, make_study
from distilbench.analysis.inference import Inference
from distilbench.analysis.rankings import gap_half_widths, half_widths, interquartile_means
from distilbench.core.escape import escape_latex, escape_markdown
from distilbench.core.sealed import write_folder_atomically
from distilbench.records.design import Design, read_design
from distilbench.records.example_texts import of_data, read_example_texts
from distilbench.records.frames import read_curves, read_examples
from distilbench.records.record import Record, read_study
from distilbench.reporting import INDEX_FILE, ReportOptions
from distilbench.reporting.formats.latex import to_latex
from distilbench.reporting.formats.render import Table, to_json, to_markdown, with_columns, with_digits, write_csv
from distilbench.reporting.notes import benchmark_notes, overlap_note
from distilbench.reporting.prose import paragraph, settings_table
from distilbench.reporting.reproduction.ledger import reproduction_tables
from distilbench.reporting.tables import error_rates
from distilbench.reporting.tables import scores as tables
from distilbench.reporting.tables.budgets import budget_table, siblings
from distilbench.reporting.tables.effects import effect_table
from distilbench.reporting.tables.response import response_table
from distilbench.reporting.tables.tuning import tuning_tables
from distilbench.reporting.tables.vectors import vector_table
from distilbench.reporting.tables.verdicts import (
    emphasis,
    power_notes,
    power_table,
    verdict_matrix,
    verdict_table,
    weighting_notes,
)


def write_report(records: Sequence[Record], folder: Path, target: Path, options: ReportOptions) -> None:
    """Write page, tables and figures on `records`, whose curves lie below `folder`, to the folder `target`."""
    study, inference = with_errors(make_study(folder.name, records, options.margin), folder)
    curves = read_curves(records, folder)
    beside = [
        with_errors(make_study(path.name, read_study(path), options.margin), path)[0] for path in siblings(folder)
    ]
    design = read_design(folder)
    made = _tables(study, inference, design, beside, error_rates.read(folder, study))
    if gate := error_rates.read_gate(folder, study):
        made |= {(table := error_rates.gate_table(study, gate)).name: table}

    printed = made | {"main": _on_paper(made["main"], study, options)}
    in_latex = {name: to_latex(table, options.layout) for name, table in printed.items()}

    def write(out: Path) -> None:
        from distilbench.reporting.figures.all_figures import draw_all
        from distilbench.reporting.figures.drawn import FigureData
        from distilbench.reporting.page.assemble import to_page

        for name in ("tables", "figures"):
            (out / name).mkdir()
        _write_tables(study, made, out / "tables", in_latex)
        write_planes(study, out / "tables")
        given = FigureData(study, curves, inference, design, options.reference)
        captions = draw_all(given, out / "figures", options.layout)
        (out / INDEX_FILE).write_text(to_page(study, inference, made, out, captions), encoding="utf-8")

    write_folder_atomically(target, write)


def with_errors(study: StudyFrames, folder: Path) -> tuple[StudyFrames, Inference]:
    """The study with intervals over seeds and examples, and what can be said of its differences."""
    completed = [study.records[str(run_id)] for run_id in study.scores.index]
    data = {(task, facts["data_sha256"]) for record in completed for task, facts in record.tasks.items()}
    texts = of_data(read_example_texts(folder), data)
    inference = Inference.of(study, read_examples(completed, folder), texts=texts if len(texts) else None)
    if not inference.columns:
        return study, inference
    return replace(study, half_widths=HalfWidths(half_widths(inference), gap_half_widths(inference))), inference


def _tables(
    study: StudyFrames,
    inference: Inference,
    design: Design,
    beside: Sequence[StudyFrames],
    rates: Sequence[ErrorRates],
) -> dict[str, Table]:
    averages = {tables.average_heading(group): str(group) for group in study.averages}
    further = [
        *benchmark_notes(study, design.benchmarks),
        *weighting_notes(study, inference),
        *power_notes(inference),
        *([overlap_note(inference)] if inference.columns else []),
        *error_rates.note(rates),
    ]
    made = [
        emphasis(tables.main_table(study, further), study, inference, averages),
        tables.task_table(study, interquartile_means(inference) if inference.columns else None),
        tables.cost_table(study),
        settings_table(study),
    ]
    if inference.comparisons():
        made += [make(study, inference) for make in (verdict_matrix, verdict_table, power_table)]
        made += [error_rates.table(study, rates)] if rates else []
    optional = [
        effect_table(study, inference, effects(inference, design.ablations)),
        response_table(study),
        budget_table(study, beside),
        vector_table(study),
    ]
    made += [table for table in optional if table is not None]
    made += tuning_tables(study, inference, design.tuning)
    # The published tables that compare with ours are of STS tasks.
    verdicts = {(item.one, item.other): item.verdict for item in inference.comparisons("STS")}
    made += reproduction_tables(study, verdicts or None)
    return {table.name: table for table in made}


def _on_paper(main: Table, study: StudyFrames, options: ReportOptions) -> Table:
    """The main table as it is asked for; or without its costs, for which a line has no room, and which have a table."""
    costs = set(tables.cost_table(study).text)
    left = [str(name) for name in main.text if name == "Method" or name not in costs]
    chosen = with_columns(main, options.columns or left)
    return chosen if options.digits is None else with_digits(chosen, options.digits)


def _write_tables(study: StudyFrames, made: Mapping[str, Table], out: Path, in_latex: Mapping[str, str]) -> None:
    for table in made.values():
        (out / f"{table.name}.md").write_text(to_markdown(table), encoding="utf-8")
        (out / f"{table.name}.tex").write_text(in_latex[table.name], encoding="utf-8")
        (out / f"{table.name}.json").write_text(to_json(table), encoding="utf-8")
        if table.name in ("verdicts", "power", "ablation", "tuning", "best_of_k"):
            write_csv(table.order, out / f"{table.name}.csv")
    text = paragraph(study)
    (out / "method_section.md").write_text(escape_markdown(text) + "\n", encoding="utf-8")
    (out / "method_section.tex").write_text(escape_latex(text) + "\n", encoding="utf-8")
    frames = {"main": tables.label_frame(study), "runs": tables.run_frame(study)}
    for name, frame in frames.items():
        write_csv(frame.reset_index(names="run_id" if name == "runs" else "key"), out / f"{name}.csv")
    write_csv(tables.score_frame(study), out / "scores.csv")


def write_planes(study: StudyFrames, out: Path) -> None:
    """The means that the information plane is drawn from, as CSV, where any run has a place on it."""
    from distilbench.reporting.figures.representation import planes

    if len(places := planes(study)):
        write_csv(places, out / "information_plane.csv")
