"""The Python interface. It is imported by way of `distilbench`; everything in it is thin over the rooms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distilbench.core.errors import UserError, one_of
from distilbench.records.record import Record, read_study

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from distilbench.analysis.verdicts import Inference
    from distilbench.conformance import Outcome as ConformanceResult
    from distilbench.gate.check import CheckResult
    from distilbench.reporting.figures.drawn import FigureData
    from distilbench.study.study import Study
    from distilbench_methods.base import Method

PathLike = str | Path


def load_study(name_or_path: PathLike, *overrides: str, limit: int | None = None, **changes: Any) -> Study:
    """A shipped study by its name, or one from a YAML file, with some of its keys changed.

    `overrides` are `"key=value"`, as on the command line: `"budget.sentences=5000"`. `changes` take the place of whole
    keys: `seeds=5`, `methods=["mse", "ibkd"]`. `limit` makes a smoke run of at most so many sentences, pairs and
    queries. Raises `UserError` that names the file and the key.
    """
    from distilbench.study.study_file import load_study

    return load_study(str(name_or_path), overrides=list(overrides), limit=limit, changes=changes)


def run(
    study: Study | PathLike,
    *,
    out: PathLike = "results",
    mirror: PathLike | None = None,
    device: str = "auto",
    jobs: int | None = None,
    threads: int | None = None,
    gpu_share: float = 1.0,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    checkpoint_seconds: float = 15.0,
    progress: bool = True,
) -> Results:
    """Train, score and record what is missing of a study, and return its results.

    The options are those of `distilbench run`. Records go to `out/<study>`, and a study that was interrupted goes on
    where it was. `progress` writes a line for each run, and shows a bar in a terminal or a notebook. A run that fails
    is a record with status `failed`, and does not stop the others. With `jobs`, a script must guard its main part by
    `if __name__ == "__main__":`. Raises `UserError` for what the study cannot do, before anything is trained.
    """
    from distilbench.core.quiet import quiet_libraries

    quiet_libraries()
    from distilbench.core.machine import settings
    from distilbench.runs.engines import EngineOptions
    from distilbench.runs.progress import ProgressBar, Watch
    from distilbench.runs.study_run import run_study
    from distilbench.study.study import Study

    asked = study if isinstance(study, Study) else load_study(study)
    chosen = settings(out=out, mirror=mirror, device=device, checkpoint_seconds=checkpoint_seconds)
    options = EngineOptions(jobs=jobs, threads=threads, gpu_share=gpu_share, engine=engine, address=address)
    finished = run_study(asked, chosen, options, ProgressBar(asked.name) if progress else Watch())
    return read_results(chosen.out / finished[0].record.study)


def read_results(folder: PathLike, *, margin: float = 0.5) -> Results:
    """The results of one study: the folder with its records, `results/<study>`.

    Two rows that differ by less than `margin` points count as equivalent. Raises `UserError` for a folder without
    records, or with damaged ones.
    """
    from distilbench.reporting import study_folders

    folders = study_folders(Path(folder))
    if len(folders) > 1 or folders[0] != Path(folder).resolve():
        raise UserError(f"{folder} holds several studies; name one: {', '.join(str(path) for path in folders)}")
    return Results(folders[0], read_study(folders[0]), margin=margin)


def report(
    results: Results | PathLike, out: PathLike = "reports", *, margin: float = 0.5, reference: str | None = None
) -> list[Path]:
    """Write tables, figures and a page for a study, or for each study in a folder of them; the paths of the pages.

    `margin` is in points; `reference` is the label of the row that others are drawn against, or unset the best.
    """
    from distilbench.reporting import ReportOptions, build

    folder = results.folder if isinstance(results, Results) else Path(results)
    return build(folder, Path(out), ReportOptions(margin=margin / 100, reference=reference))


def check(
    candidate: Results | PathLike, baseline: PathLike, *, margin: float = 0.5, alpha: float = 0.05, **options: Any
) -> CheckResult:
    """Hold results, a run's folder or a model folder against a blessed baseline: `verdict`, `lines`, `exit_code`.

    `margin` is the drop to tolerate, in points; `alpha` the error of each claim; `options` are the fields of
    `distilbench.gate.run.CheckOptions`: tasks, row, changed, drift, mirror, device, confirm, slices.
    """
    from distilbench.core.quiet import quiet_libraries

    quiet_libraries()
    from distilbench.gate.run import CheckOptions, check_candidate

    folder = candidate.folder if isinstance(candidate, Results) else Path(candidate)
    return check_candidate(folder, Path(baseline), CheckOptions(margin=margin / 100, alpha=alpha, **options))


def conform(method: str | type[Method], **hyperparameters: Any) -> list[ConformanceResult]:
    """Check that a method keeps its contract: what each check asked, its `status`, and why it failed.

    `method` is a registered name or a class, registered or not. Raises `UserError` for an unknown name, and for a
    method that cannot be made with these hyperparameters.
    """
    from distilbench.core.quiet import quiet_libraries

    quiet_libraries()
    from distilbench.conformance import conform as run_checks
    from distilbench.conformance.listing import named

    try:
        if isinstance(method, str):
            return run_checks(*named(method, hyperparameters))
        return run_checks(method, hyperparameters)
    except ValueError as error:
        raise UserError(" ".join(str(error).split())) from None


class Results:
    """The records of one study, and what can be said of them. Made by `run` and `read_results`."""

    def __init__(self, folder: Path, records: Sequence[Record], *, margin: float = 0.5) -> None:
        """`margin`: the difference in points below which two rows count as equivalent."""
        self.folder, self.records, self._margin = folder, list(records), margin

    @property
    def name(self) -> str:
        """The study's name."""
        return self.records[0].study

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One line a value: row, role, seed, task, metric, value, of the completed runs.

        `value` is in the metric's own unit, as mteb has it; `main_score` is the metric that a task is ranked by.
        """
        import pandas as pd

        values = [
            (record.label, record.role, record.seed, task, metric, value)
            for record in self.records
            if record.status == "completed"
            for task, metrics in record.scores.items()
            for metric, value in metrics.items()
        ]
        return pd.DataFrame(values, columns=["row", "role", "seed", "task", "metric", "value"])

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One line a run: run_id, row, role, method, seed, status, error."""
        import pandas as pd

        names = ("run_id", "label", "role", "method", "seed", "status", "error")
        values = [[getattr(record, name) for name in names] for record in self.records]
        return pd.DataFrame(values, columns=["run_id", "row", *names[2:]])

    @cached_property
    def costs(self) -> pd.DataFrame:
        """One line a value: row, role, seed, cost, value, of all that the ledger of each run counts.

        Counts are numbers, `seconds_<part>` seconds, `..._bytes` bytes and `..._flops` FLOPs.
        """
        import pandas as pd

        values = [
            (record.label, record.role, record.seed, name, float(value))
            for record in self.records
            for name, value in _flat(record.ledger).items()
        ]
        return pd.DataFrame(values, columns=["row", "role", "seed", "cost", "value"])

    def compare(self, reference: str | None = None, column: str = "Overall") -> pd.DataFrame:
        """What can be said of the difference between two rows: of all pairs, or of each row and a reference.

        `column` is a task, a task type or `Overall`. Columns: row, other, points (the row's score less the other's,
        x100), low and high (its 95 % interval, not-a-number where one seed leaves it unknown), p_differs and p_within
        (adjusted), verdict: better, worse, equivalent or undecided. Raises `UserError` for an unknown row or column.
        """
        import pandas as pd

        study, inference = self._inferred
        names = {str(key): str(label) for key, label in study.rows["row"].items()}
        labels = {str(key): str(label) for key, label in study.rows["label"].items()}
        if reference is not None and reference not in labels.values():
            raise UserError(one_of("row", reference, labels.values()))
        if column not in inference.columns:
            raise UserError(one_of("column", column, inference.columns))
        lines = []
        for item in inference.comparisons(column):
            one, other, points = item.one, item.other, 100 * item.difference.mean
            if reference is not None and reference == labels[one]:
                one, other, points = other, one, -points
            elif reference not in (None, labels[other]):
                continue
            half = 100 * item.difference.half_width()
            verdict = inference.verdict(one, other, column)
            interval = (points, points - half, points + half)
            lines.append([names[one], names[other], *interval, item.p_differs, item.p_within, verdict])
        columns = ["row", "other", "points", "low", "high", "p_differs", "p_within", "verdict"]
        return pd.DataFrame(lines, columns=columns)

    @property
    def plots(self) -> list[str]:
        """The figures that can be asked for; a study need not have data for each."""
        from distilbench.reporting.figures.all_figures import FIGURES

        return list(FIGURES)

    def plot(self, name: str = "scores", *, reference: str | None = None) -> Figure:
        """One figure of the report. Raises `UserError` for an unknown name, and where there is nothing to draw."""
        from distilbench.reporting.figures.all_figures import FIGURES
        from distilbench.reporting.figures.style import styled

        if name not in FIGURES:
            raise UserError(one_of("figure", name, FIGURES))
        _, draw = FIGURES[name]
        with styled(name):
            figure = draw(self._drawn(reference))
        if figure is None:
            raise UserError(f"{self.name} has nothing to draw for {name}")
        return figure

    def __repr__(self) -> str:
        states = self.runs["status"].value_counts()
        told = ", ".join(f"{count} {status}" for status, count in states.items())
        rows = self.runs.loc[self.runs["role"] == "method", "row"].nunique()
        seeds = self.runs.loc[self.runs["role"] == "method", "seed"].nunique()
        tasks = self.scores["task"].nunique()
        return f"Results of {self.name}: {rows} methods x {seeds} seeds, {tasks} tasks; runs: {told}"

    def _drawn(self, reference: str | None) -> FigureData:
        from distilbench.analysis.frame import read_curves
        from distilbench.records.design import read_design
        from distilbench.reporting.figures.drawn import FigureData

        study, inference = self._inferred
        return FigureData(study, read_curves(study, self.folder), inference, read_design(self.folder), reference)

    @cached_property
    def _inferred(self) -> tuple[Any, Inference]:
        from distilbench.analysis.frame import make_study
        from distilbench.reporting.write import with_errors

        return with_errors(make_study(self.name, self.records, self._margin / 100), self.folder)


def _flat(ledger: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a ledger by name; `seconds` by part."""
    seconds = {f"seconds_{part}": value for part, value in ledger["seconds"].items()}
    return {name: value for name, value in {**ledger, **seconds}.items() if isinstance(value, int | float)}
