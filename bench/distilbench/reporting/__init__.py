"""Tables, figures and a page about finished runs. Reads records only; the heavy imports wait until they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distilbench.core.errors import UserError
from distilbench.records.record import RECORD_FILE, Record, read_study, run_folders

if TYPE_CHECKING:
    from distilbench.reporting.formats.render import Table

INDEX_FILE = "index.html"
Layout = Literal["one-column", "two-column"]


@dataclass(frozen=True)
class ReportOptions:
    """What the user may choose about a report."""

    margin: float = 0.005
    """The difference below which two methods count as equivalent, as a fraction."""
    reference: str | None = None
    """Label of the row that others are drawn against; unset, the first of the tables."""
    layout: Layout = "one-column"
    """Of the page that LaTeX tables and figures are for."""
    columns: tuple[str, ...] = ()
    """Columns of the main table in LaTeX, in this order; all but those of the cost table unless set."""
    digits: int | None = None
    """Most decimals of the main table in LaTeX; those of the page unless set."""


def build(results: Path, out: Path, options: ReportOptions = ReportOptions()) -> list[Path]:
    """Write `out/<study>/` for one study's folder, or for every study in a folder of such folders.

    Returns the paths of the pages. Raises `UserError` when there is nothing to report, a record is damaged, or `out`
    cannot take the report; every record is read before the first file is written.
    """
    studies = {folder: read_study(folder) for folder in study_folders(results)}
    targets = {folder: out / folder.name for folder in studies}
    for folder, target in targets.items():
        _refuse_foreign_folder(folder, target)
    from distilbench.reporting.write import write_report

    try:
        for folder, records in studies.items():
            write_report(records, folder, targets[folder], options)
    except OSError as error:
        raise UserError(f"the report cannot be written to {out} ({error}); choose another folder") from error
    return [target / INDEX_FILE for target in targets.values()]


def summary(records: Sequence[Record], folder: Path) -> tuple[Table, list[str]]:
    """The main table of one study's records, with training seconds as its only cost; and what it found, a line each.

    The examples of the runs lie below `folder`. Reasons why the comparison means little come first.
    """
    from distilbench.analysis.frame import make_study
    from distilbench.records.design import read_design
    from distilbench.reporting.findings import alarms, findings
    from distilbench.reporting.notes import benchmark_notes
    from distilbench.reporting.tables.scores import MAIN_COSTS, main_table
    from distilbench.reporting.write import with_errors

    if not records:
        raise UserError("there are no records to show; run the study first")
    study, inference = with_errors(make_study(records[0].study, records), folder)
    table = main_table(study, benchmark_notes(study, read_design(folder).benchmarks))
    others = list(table.text.columns)[len(table.text.columns) - len(MAIN_COSTS) + 1 :]
    shown = replace(table, text=table.text.drop(columns=others), order=table.order.drop(columns=others))
    return shown, [*alarms(study, inference), *findings(study, inference)]


def power(results: Path, delta: float | None, options: ReportOptions = ReportOptions()) -> list[Table]:
    """What each study's design can find, and the seeds that would settle its pairs; see `power_table`."""
    from distilbench.analysis.frame import make_study
    from distilbench.reporting.tables.verdicts import power_table
    from distilbench.reporting.write import with_errors

    tables = []
    for folder in study_folders(results):
        study, inference = with_errors(make_study(folder.name, read_study(folder), options.margin), folder)
        if not inference.comparisons():
            raise UserError(f"{folder} has no two rows with the same scored examples; there is nothing to compare")
        tables.append(power_table(study, inference, delta))
    return tables


def error_rates(
    results: Path,
    studies: int,
    *,
    methods: int | None = None,
    seeds: int | None = None,
    equal_variances: bool = False,
    resampled: bool = False,
    options: ReportOptions = ReportOptions(),
) -> list[Table]:
    """How often the verdicts of each study are wrong, in so many studies simulated from its records.

    What is found is kept beside the records, and shown in the report. `methods` and `seeds` unset are the study's own.
    """
    from distilbench.analysis.frame import make_study
    from distilbench.reporting.tables import error_rates as rates
    from distilbench.reporting.write import with_errors

    tables = []
    for folder in study_folders(results):
        study, inference = with_errors(make_study(folder.name, read_study(folder), options.margin), folder)
        design = {"equal_variances": equal_variances, "resampled": resampled}
        rates.keep(folder, study, found := rates.measure(study, inference, studies, design, methods, seeds))
        tables.append(rates.table(study, [found]))
    return tables


def study_folders(results: Path) -> list[Path]:
    """The study's folder, or those of the studies in it. Raises `UserError` where there are no records."""
    if not results.is_dir():
        raise UserError(f"the results folder {results} does not exist; run a study first or name another folder")
    results = results.resolve()
    children = [path for path in sorted(results.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    folders = [path for path in (results, *children) if run_folders(path)]
    if not folders:
        expected = f"<run>/{RECORD_FILE} or <study>/<run>/{RECORD_FILE}"
        raise UserError(f"{results} holds no records ({expected}); run a study first or name another folder")
    return folders[:1] if folders[0] == results else folders


def _refuse_foreign_folder(folder: Path, target: Path) -> None:
    """A report replaces what lies at `target`, so that may only be an older report."""
    if target.resolve() == folder or target.resolve() in folder.parents:
        raise UserError(f"the report would replace the records in {folder}; choose another output folder")
    if target.is_dir() and any(target.iterdir()) and not (target / INDEX_FILE).is_file():
        raise UserError(f"{target} exists and is not a report; choose another output folder")
