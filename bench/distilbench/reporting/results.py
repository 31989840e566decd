"""The records of one study as tidy frames, verdicts and figures, for Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from distilbench.core.errors import UserError, one_of
from distilbench.core.escape import escape_html, visible
from distilbench.records.record import Record, read_study
from distilbench.reporting import Layout, study_folders, tidy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from distilbench.analysis.frame import StudyFrames
    from distilbench.analysis.inference import Inference
    from distilbench.reporting.figures.drawn import FigureData

MARGIN, AVERAGE = 0.5, "Mean (Task)"
"""Points (x100) below which two rows count as equivalent."""


def read_results(folder: str | Path) -> Results:
    """Read the records of one study, which `run` leaves in `results/<study>`.

    Raises `UserError` for a folder without records or with several studies, and for a damaged record.
    """
    folders = study_folders(Path(folder))
    if len(folders) > 1:
        names = ", ".join(str(path) for path in folders)
        raise UserError(f"{folder} holds {len(folders)} studies; read one of them: {names}")
    return Results(folders[0], read_study(folders[0]))


class Results:
    """The records of one study, and what can be said of them. `run` and `read_results` make it.

    In all frames `row` is the name of a row in the report's tables: a method's label, `ceiling (teacher)` and so on;
    rows that were run under different settings have a letter each, as in `mse [a]`.
    """

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        """`folder` is the study's; curves and scored examples are read from there when they are needed."""
        self.folder = folder
        self.records = list(records)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.folder.name

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One line for each value of the completed runs, in the metric's own unit: 0.75, not 75.

        Columns: row (str), role (str: ceiling, method, reference or floor), seed (int64; 0 where none matters),
        task (str), metric (str, by mteb's name; `main_score` is what a task is ranked by), value (float64).
        """
        return tidy.scores(self._study)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One line for each run, whatever became of it.

        Columns: run_id (str), row (str), role (str), method (str), seed (int64), status (str: completed, diverged or
        failed), error (str; missing where there is none).
        """
        return tidy.runs(self._study)

    @cached_property
    def costs(self) -> pd.DataFrame:
        """One line for each entry of the ledgers of the completed runs.

        Columns: row (str), role (str), seed (int64), cost (str: `sentences`, `student_flops`, `seconds_train`,
        `peak_memory_bytes` and so on, the unit in its name or a count), value (float64).
        """
        return tidy.costs(self._study)

    def compare(self, reference: str | None = None, *, column: str = AVERAGE, margin: float = MARGIN) -> pd.DataFrame:
        """The report's verdicts: of each row against `reference` (its name or label), or of all pairs of rows.

        `column` is a task, a type of tasks, `Mean (Task)` or `Mean (TaskType)`. `margin` is in points (x100): rows that
        are shown to differ by less are equivalent. The teacher is not compared.

        Columns: row (str), other (str), points (float64: the row's score less the other's, x100), low and high
        (float64: its interval, which holds together with those of all pairs and averages, or pairs and tasks, with
        95 % confidence; not-a-number where one seed leaves it unknown), p_differs and p_within (float64: p-values of no
        difference, and of one beyond the margin, adjusted for the same pairs), verdict
        (str: better, worse, equivalent or undecided). Raises `UserError` for an unknown row or column, and where there
        is nothing to compare.
        """
        return tidy.verdicts(*self._judged(margin), reference, column)

    @cached_property
    def plots(self) -> list[str]:
        """Names of the report's figures that there is data for."""
        from distilbench.reporting.figures.all_figures import FIGURES

        data = self._figure_data(None, MARGIN)
        return [name for name, kind in FIGURES.items() if kind.draw(data) is not None]

    def plot(
        self, name: str, *, reference: str | None = None, margin: float = MARGIN, layout: Layout = "one-column"
    ) -> Figure:
        """One of the report's figures; a notebook shows it, and `savefig` writes it.

        `reference` is the label of the row that others are drawn against, the best unless set; `margin` is in points.
        `layout` two-column sizes it for one of two columns (3.4 inches), in letters like those of Times.
        Raises `UserError` for an unknown name or reference, and for a figure that there is no data for.
        """
        from distilbench.reporting.figures.all_figures import FIGURES, draw
        from distilbench.reporting.figures.style import styled

        if name not in FIGURES:
            raise UserError(one_of("figure", name, FIGURES))
        with styled(name, layout):
            figure = draw(name, self._figure_data(reference, margin))
            if figure is None:
                raise UserError(f"{self.name} has no data for the figure {name}: it needs {FIGURES[name].needs}")
            # Ticks are made when they are drawn, and would be in the style of that moment.
            figure.draw_without_rendering()
        return figure

    def __repr__(self) -> str:
        return visible(f"Results of {self.name}: {self._summary()}")

    def _repr_html_(self) -> str:
        return f"Results of <b>{escape_html(self.name)}</b>: {escape_html(self._summary())}"

    def _summary(self) -> str:
        methods = self.runs[self.runs["role"] == "method"]
        tasks = self._study.tasks.index
        parts = [_counted(methods["row"].nunique(), "method"), _counted(methods["seed"].nunique(), "seed")]
        states = ", ".join(f"{count} {status}" for status, count in self.runs["status"].value_counts().items())
        return f"{' x '.join(parts)}, {_counted(len(tasks), 'task')} ({', '.join(tasks)}); runs: {states}"

    def _figure_data(self, reference: str | None, margin: float) -> FigureData:
        from distilbench.records.design import read_design
        from distilbench.records.frames import read_curves
        from distilbench.reporting.figures.drawn import FigureData

        study, inference = self._judged(margin)
        return FigureData(study, read_curves(self.records, self.folder), inference, read_design(self.folder), reference)

    @cached_property
    def _study(self) -> StudyFrames:
        from distilbench.analysis.frame import make_study

        return make_study(self.name, self.records)

    @cached_property
    def _resampled(self) -> tuple[StudyFrames, Inference]:
        from distilbench.reporting.write import with_errors

        return with_errors(self._study, self.folder)

    def _judged(self, margin: float) -> tuple[StudyFrames, Inference]:
        study, inference = self._resampled
        study = replace(study, margin=margin / 100)
        return study, replace(inference, study=study)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
