"""Writes one study's report: all of it or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.artefact import write_folder_atomically
from bench.record import Record
from bench.report import INDEX_FILE, tables
from bench.report.frame import Study, make_study, read_curves
from bench.report.prose import paragraph, settings_table
from bench.report.render import escape_latex, escape_markdown, to_latex, to_markdown


def write_report(records: Sequence[Record], folder: Path, target: Path) -> None:
    """Write page, tables and figures on `records`, whose curves lie below `folder`, to the folder `target`."""
    study = make_study(folder.name, records)
    curves = read_curves(study, folder)

    def write(out: Path) -> None:
        from bench.report.figures import draw_all
        from bench.report.page import to_page

        for name in ("tables", "figures"):
            (out / name).mkdir()
        _write_tables(study, out / "tables")
        captions = draw_all(study, curves, out / "figures")
        (out / INDEX_FILE).write_text(to_page(study, out / "figures", captions), encoding="utf-8")

    write_folder_atomically(target, write)


def _write_tables(study: Study, out: Path) -> None:
    made = [tables.main_table(study), tables.task_table(study), tables.cost_table(study), settings_table(study)]
    for table in made:
        (out / f"{table.name}.md").write_text(to_markdown(table), encoding="utf-8")
        (out / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
    text = paragraph(study)
    (out / "method_section.md").write_text(escape_markdown(text) + "\n", encoding="utf-8")
    (out / "method_section.tex").write_text(escape_latex(text) + "\n", encoding="utf-8")
    frames = {"main": tables.label_frame(study), "runs": tables.run_frame(study)}
    for name, frame in frames.items():
        frame.reset_index(names="run_id" if name == "runs" else "key").to_csv(out / f"{name}.csv", index=False)
    tables.score_frame(study).to_csv(out / "scores.csv", index=False)
