"""Both stages of the gate: drift in seconds, then the scores. The command line and the pytest plug-in come here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from distilbench.analysis.frame import OVERALL
from distilbench.core.errors import UserError, one_of
from distilbench.core.libraries import collector_at_rest
from distilbench.evaluation.collapse import CollapseError
from distilbench.evaluation.tasks.profiles import expand
from distilbench.gate.baseline import Scores, read_baseline, scores_of, scores_to_bless
from distilbench.gate.candidate import (
    Encode,
    blessed_weights,
    drift_line,
    encoder_of,
    is_model,
    load_libraries,
    models_of,
    score_model,
    with_vectors,
)
from distilbench.gate.check import CheckLine, CheckResult, check, confirmed, wanted_tasks
from distilbench.gate.history import Blessing, replace_baseline
from distilbench.gate.judging.committed import unexplained
from distilbench.gate.slices import read_list, with_list
from distilbench.gate.tasks import name_of
from distilbench.study.sections.texts import TaskSpec

STOPPED = "The drift stage stopped the candidate; its tasks were not scored."
NOT_EMBEDDED = "{} was not looked at for drift: its model is not in the cache."


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """How to check; `margin` and `alpha` as of `distilbench.gate.check.check`."""

    margin: float = 0.005
    alpha: float = 0.05
    tasks: tuple[TaskSpec, ...] = ()
    """Only these; all of the baseline's where it is empty. See `distilbench.gate.tasks.given_tasks`."""
    row: str | None = None
    """The baseline's row that a model folder is checked against; not needed where there is one."""
    changed: bool = False
    """The model was changed on purpose: drift is measured, and fails only what no sound model does."""
    drift: bool = False
    """Look at the models of a results folder, too."""
    mirror: str | None = None
    device: str = "auto"
    confirm: Path | None = None
    """Results of the same code on other seeds: a regression counts only if they show it, too."""
    accept_regression: str | None = None
    """Why a candidate that is shown to be worse may become the baseline."""
    slices: Path | None = None
    """A list of examples that are to be rows of their own: see `distilbench.gate.slices.read_list`."""


def bless_candidate(folder: Path, baseline: Path, options: CheckOptions) -> Blessing:
    """Write a candidate as the baseline, with the user's slices, unless it is shown to be worse than the one there.

    Raises `UserError` for a model folder without tasks to score it on.
    """
    if is_model(folder):
        if not options.tasks:
            raise UserError(f"{folder} is a model folder: name the tasks to score it on with --tasks")
        load_libraries()
        label, in_full = options.row or folder.resolve().name, dict.fromkeys(expand(options.tasks), "fp32")
        try:
            scores = score_model(folder, label, in_full, options.mirror, options.device)
        except CollapseError as error:
            raise UserError(f"{folder} cannot be scored: {error}") from None
        models = {str(scores.runs.index[0]): folder}
    else:
        _refuse_row(folder, options)
        scores = scores_to_bless(folder)
        models = models_of(scores.runs) if options.drift else {}
    scores = _with_slices(scores, options)
    if models:
        scores = with_vectors(scores, models, _device(options))
    how = (options.margin, options.alpha, options.accept_regression)
    blessing = replace_baseline(scores, baseline, str(folder), *how, as_models=is_model(folder))
    lacking = "It has no vectors, so there is no drift stage; --drift adds them from models in the cache"
    return blessing if models else replace(blessing, notes=[*blessing.notes, lacking])


def check_candidate(folder: Path, baseline: Path, options: CheckOptions) -> CheckResult:
    """Check a model folder, a study's folder or a run's against a baseline.

    Raises `UserError` for what cannot be read, and for a model folder where it is not clear what it stands for.
    """
    blessed = _with_slices(read_baseline(baseline), options)
    if is_model(folder):
        result = _check_model(folder, blessed, options)
    else:
        _refuse_row(folder, options)
        scores = scores_of(folder)
        drifts = _drift_of_runs(scores, blessed, options) if options.drift else ([], [])
        result = _staged(*drifts, options, lambda: _check_runs(scores, blessed, options))
    return replace(result, notes=[*result.notes, *unexplained(baseline)])


def _refuse_row(folder: Path, options: CheckOptions) -> None:
    if options.row is not None:
        raise UserError(
            f"--row says what a model folder stands for, and {folder} has records with rows of their own; leave it out"
        )


def _staged(
    lines: list[CheckLine], notes: list[str], options: CheckOptions, scored: Callable[[], CheckResult]
) -> CheckResult:
    """The drift stage, and the scores unless that stopped the candidate."""
    if any(line.verdict != "pass" for line in lines):
        return CheckResult("regressed", lines, options.margin, options.alpha, [*notes, STOPPED])
    result = scored()
    return replace(result, lines=[*lines, *result.lines], notes=[*notes, *result.notes])


def _check_runs(scores: Scores, blessed: Scores, options: CheckOptions) -> CheckResult:
    result = _check(scores, blessed, options)
    if options.confirm is None or result.verdict != "regressed":
        return result
    return confirmed(result, _check(_other_seeds(options.confirm, scores), blessed, options))


def _check(scores: Scores, blessed: Scores, options: CheckOptions, *, as_models: bool = False) -> CheckResult:
    names = [name_of(spec) for spec in options.tasks]
    return check(scores, blessed, options.margin, options.alpha, names, as_models=as_models)


def _with_slices(side: Scores, options: CheckOptions) -> Scores:
    return side if options.slices is None else replace(side, examples=with_list(side, read_list(options.slices)))


def _other_seeds(folder: Path, scores: Scores) -> Scores:
    """The runs to confirm by. Raises `UserError` where they are some of those that are to be confirmed."""
    other = scores_of(folder)
    if common := sorted(_seeds(other) & _seeds(scores)):
        raise UserError(f"--confirm: {folder} has the seeds {common} of the candidate; give runs of other seeds")
    return other


def _seeds(scores: Scores) -> set[int]:
    return {*scores.runs["seed"], *(run.seed for run in scores.lost)}


def _check_model(folder: Path, blessed: Scores, options: CheckOptions) -> CheckResult:
    label = row_of(blessed, options.row)
    only, lines = _row(blessed, label), []
    notes = ["The baseline has no vectors, so there was no drift stage."]
    load_libraries()
    if blessed.vectors:
        encode = encoder_of(folder, _device(options))
        line, notes = drift_line(encode, label, blessed, same=not options.changed)
        lines = [line]

    def scored() -> CheckResult:
        with collector_at_rest():
            from distilbench.evaluation.tasks.by_name import is_known

        given = {name_of(spec): spec for spec in options.tasks}
        names = wanted_tasks(only, list(given))
        as_blessed = {given.get(name, name): only.tasks[name]["precision"] for name in names}
        if nameless := [spec for spec in as_blessed if isinstance(spec, str) and not is_known(spec)]:
            raise UserError(
                f"{nameless[0]} is not a task of mteb but of your own data; give its file with --tasks, or --study"
            )
        try:
            scores = score_model(folder, label, as_blessed, options.mirror, options.device)
        except CollapseError as error:
            line = CheckLine(label, OVERALL, True, "regressed", reason=str(error))
            return CheckResult("regressed", [line], options.margin, options.alpha, [])
        return _check(scores, only, options, as_models=True)

    return _staged(lines, notes, options, scored)


def check_encoder(encode: Encode, baseline: Path, options: CheckOptions) -> CheckResult:
    """The drift stage for whatever turns texts into vectors: a server's client, an exported graph, a quantised model.

    Raises `UserError` for a baseline without vectors.
    """
    blessed = read_baseline(baseline)
    line, notes = drift_line(encode, row_of(blessed, options.row), blessed, same=not options.changed)
    return CheckResult(line.verdict, [line], options.margin, options.alpha, notes)


def row_of(blessed: Scores, row: str | None) -> str:
    """The row of a baseline that a single model stands for. Raises `UserError` where it is not clear."""
    labels = sorted(set(map(str, blessed.runs["label"])))
    if row is not None and row not in labels:
        raise UserError(f"--row: {one_of('row', row, labels)}")
    if row is None and len(labels) > 1:
        raise UserError(f"say which row of the baseline the model stands for with --row: {', '.join(labels)}")
    return row or labels[0]


def _row(blessed: Scores, label: str) -> Scores:
    runs = blessed.runs[blessed.runs["label"] == label]
    examples = blessed.examples[blessed.examples["run"].isin(runs.index)]
    return replace(blessed, runs=runs, scores=blessed.scores.loc[runs.index], examples=examples)


def _drift_of_runs(scores: Scores, blessed: Scores, options: CheckOptions) -> tuple[list[CheckLine], list[str]]:
    labels, models = scores.runs["label"].map(str), models_of(scores.runs)
    lines, notes = [], [NOT_EMBEDDED.format(label) for label in sorted(set(labels) - set(labels[list(models)]))]
    for run, folder in models.items():
        label = labels[run]
        if label not in set(blessed.runs["label"]):
            continue
        same = blessed_weights(blessed, label) == scores.runs.at[run, "weights"]
        line, more = drift_line(encoder_of(folder, _device(options)), label, blessed, same=same)
        lines.append(line)
        notes += more
    return lines, notes


def _device(options: CheckOptions) -> str:
    from distilbench.core.machine import choose_device

    return choose_device(options.device)
