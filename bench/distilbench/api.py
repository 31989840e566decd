"""The Python interface: the functions that `import distilbench` offers, thin over the rooms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from distilbench.reporting.results import Results, read_results

if TYPE_CHECKING:
    from distilbench.conformance import ConformanceResult
    from distilbench.gate.check import CheckResult
    from distilbench.study.study import Study
    from distilbench_methods.base import Method

PathLike = str | Path
Class = TypeVar("Class", bound="type[Method]")


def load_study(name_or_path: PathLike, /, *overrides: str, **changes: Any) -> Study:
    """Read a study: a YAML file, or one that comes with distilbench, by its name.

    `changes` take the place of whole keys: `seeds=5`, `budget={"steps": 100}`, `limit=256` for a smoke run.
    `overrides` change parts, as on the command line: `"train.batch_size=64"`. Raises `UserError` that names the file
    and the key.
    """
    from distilbench.study.study_file import load_study

    return load_study(str(name_or_path), overrides=list(overrides), changes=changes)


def run(
    study: Study | PathLike,
    *,
    out: PathLike = "results",
    mirror: PathLike | None = None,
    device: str = "auto",
    limit: int | None = None,
    checkpoint_seconds: float = 15.0,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    gpu_share: float = 1.0,
    log: str | Sequence[str] = (),
    log_dir: PathLike = "logs",
    progress: bool = True,
) -> Results:
    """Train, score and record what is missing of a study, and return its results.

    The options are those of `distilbench run`. Records go to `out/<study>`; a study that was interrupted goes on where
    it was, and rows that were run before with other settings are among the results, marked by a letter. `limit` makes a
    smoke run of at most so many sentences, pairs and queries. `jobs` is how many trainings run at a time, each in its
    own process. `log` names trackers ("tensorboard", "wandb", "mlflow", "trackio") that show curves, ledgers and scores
    as they come, with files in `log_dir`.

    `progress` writes a line for each run to stderr, and shows a bar in a terminal and, where ipywidgets is
    installed, in a notebook.

    A run that fails is a record with status `failed`, and does not stop the others. Raises `UserError` for what the
    study cannot do, before anything is trained.
    """
    from distilbench.core.libraries import quiet
    from distilbench.core.machine import settings
    from distilbench.runs.engines import EngineOptions
    from distilbench.runs.progress import ProgressBar, Watch

    wanted = _wanted(study, limit)
    chosen = settings(
        out=out,
        mirror=mirror,
        device=device,
        checkpoint_seconds=checkpoint_seconds,
        trackers=(log,) if isinstance(log, str) else log,
        log_folder=log_dir,
    )
    options = EngineOptions(jobs=jobs, threads=threads, gpu_share=gpu_share, engine=engine, address=address)
    if (jobs or 1) > 1 or engine != "local":
        _refuse_registered(wanted)
    with quiet():
        from distilbench.runs.study_run import run_study

        finished = run_study(wanted, chosen, options, ProgressBar(wanted.name) if progress else Watch())
    return read_results(chosen.out / finished[0].record.study)


def _wanted(study: Study | PathLike, limit: int | None) -> Study:
    from distilbench.study.study import Study
    from distilbench.study.study_file import check_study

    shorter = {} if limit is None else {"limit": limit}
    if not isinstance(study, Study):
        return load_study(study, **shorter)
    return check_study(study.model_copy(update=shorter))


def _refuse_registered(study: Study) -> None:
    from distilbench.core.errors import UserError
    from distilbench_methods import registered

    used = {stage.name for entry in study.methods for stage in entry.stages} & registered()
    if used:
        raise UserError(
            f"other processes do not know {', '.join(sorted(used))}, which this one has registered; run without jobs "
            "and on the local engine, or install the method as a package"
        )


def report(
    results: Results | PathLike,
    out: PathLike = "reports",
    *,
    margin: float = 0.5,
    reference: str | None = None,
    layout: Literal["one-column", "two-column"] = "one-column",
    columns: Sequence[str] = (),
    digits: int | None = None,
) -> list[Path]:
    """Write tables, figures and a page to `out/<study>`, for one study or each in a folder of them; the pages' paths.

    Rows that differ by less than `margin` points (x100) count as equivalent; `reference` is the label of the row that
    others are drawn against, the best unless set; `layout` that of the page which LaTeX tables and figures are for, and
    `columns` those of the main table in LaTeX, all but costs unless set, with at most `digits` decimals. Raises
    `UserError` for results that cannot be read, for a column that the table does not have, and where `out` holds
    something else.
    """
    from distilbench.reporting import ReportOptions, build

    options = ReportOptions(
        margin=margin / 100, reference=reference, layout=layout, columns=tuple(columns), digits=digits
    )
    return build(_folder(results), Path(out), options)


def check(
    candidate: Results | PathLike,
    baseline: PathLike,
    *,
    margin: float = 0.5,
    alpha: float = 0.05,
    tasks: Sequence[str] = (),
    row: str | None = None,
    changed: bool = False,
    drift: bool = False,
    confirm: Results | PathLike | None = None,
    slices: PathLike | None = None,
    mirror: PathLike | None = None,
    device: str = "auto",
) -> CheckResult:
    """Hold results, one run's folder or a model folder against a blessed baseline.

    The options are those of `distilbench check`; `margin` is the drop to tolerate, in points (x100). The answer has
    `verdict`, `exit_code` (0 pass or improved, 1 regressed, 3 could not tell), `notes`, and `lines`, one for each row
    and column; `pandas.DataFrame(answer.lines)` is a table of them. Raises `UserError` for what cannot be read, and
    for a model where it is not clear which row of the baseline it stands for.
    """
    from distilbench.gate.run import CheckOptions, check_candidate

    options = CheckOptions(
        margin=margin / 100,
        alpha=alpha,
        tasks=tuple(tasks),
        row=row,
        changed=changed,
        drift=drift,
        mirror=None if mirror is None else str(mirror),
        device=device,
        confirm=None if confirm is None else _folder(confirm),
        slices=None if slices is None else Path(slices),
    )
    return check_candidate(_folder(candidate), Path(baseline), options)


def register(method: Class) -> Class:
    """Let the studies of this process name a class of your own, as in `methods=["mse", "nearest"]`; also a decorator.

    The class lives in a file that can be imported, whose content is part of the identity of its runs. Other processes
    do not know it: with `jobs`, on Ray and on the command line, a method comes from an installed package. Raises
    `UserError` for what is no method, for a class without such a file, and for a name that another class has.
    """
    from distilbench.core.errors import UserError
    from distilbench_methods import register

    try:
        register(method)
    except ValueError as error:
        raise UserError(str(error)) from None
    return method


def conform(method: str | type[Method], /, **hyperparameters: Any) -> list[ConformanceResult]:
    """Check that a method keeps its contract: for each check its name, what it asks, a `status` and an `explanation`.

    `method` is a name, or a class, registered or not. Raises `UserError` for an unknown name, and for a method that
    cannot be made with these hyperparameters.
    """
    from distilbench.conformance.listing import outcomes_of

    return outcomes_of(method, hyperparameters)


def _folder(results: Results | PathLike) -> Path:
    return results.folder if isinstance(results, Results) else Path(results)
