"""What a study is refused for before anything is trained."""

from __future__ import annotations

from distilbench.core.errors import UserError
from distilbench.data import labelled as labelled_texts
from distilbench.data.corpus import texts_of
from distilbench.runs.workbench import Workbench
from distilbench.study.rows import MethodEntry, Stage
from distilbench_methods.base import Needs, UnsuitableError


def check(bench: Workbench) -> None:
    """Raise `UserError` for methods that do not fit, and for tasks or text that are not there.

    What of the text is evaluation text is announced.
    """
    check_methods(bench)
    bench.tasks  # noqa: B018
    bench.corpus  # noqa: B018
    if bench.contamination is not None and len(bench.contamination.rows):
        bench.announce(str(bench.contamination))
    if bench.wants_labelled:
        bench.labelled  # noqa: B018
        if bench.pairs_seen:
            seen = ", ".join(f"{count} of {task}" for task, count in bench.pairs_seen.items())
            bench.announce(f"the labelled text holds test pairs: {seen}; its students are not zero-shot on these")
    bench.dev  # noqa: B018
    if bench.study.train.checkpoint == "best-on-dev":
        _check_dev_is_apart(bench, "train.checkpoint best-on-dev", "set train.checkpoint to last")
    if bench.study.tune is not None:
        _check_dev_is_apart(bench, "tune", "leave tune out")


def _check_dev_is_apart(bench: Workbench, what: str, cure: str) -> None:
    """Refuse to choose weights or settings by pairs that the scores are made of."""
    from distilbench.evaluation.tasks.overlap import shared_pairs

    dev = list(texts_of(bench.settings.cache, bench.dev_key))
    pairs = [(dev[first], dev[second]) for first, second in bench.dev.pairs_P2] if bench.dev else []
    for task in bench.tasks:
        if found := shared_pairs(task, pairs):
            raise UserError(
                f"{what}: {len(found)} pairs of dev are also in the task {task.name}, such as {found[0][0]!r} with "
                f"{found[0][1]!r}; choose by other pairs, or {cure}"
            )


def check_methods(bench: Workbench) -> None:
    """Raise `UserError` for methods that do not fit these models, and for sentences longer than the models take."""
    if bench.study.train.max_length > bench.teacher.max_positions:
        raise UserError(
            f"train.max_length {bench.study.train.max_length} is more than the {bench.teacher.max_positions} tokens "
            f"that {bench.teacher_model.name} takes; ask for less"
        )
    for entry in bench.study.methods:
        try:
            stages = bench.stages(entry)
        except UnsuitableError as error:
            raise UserError(f"method {entry.label} cannot run in this study: {error}") from None
        for stage, needs in stages:
            _check_columns(bench, entry, stage, needs)


def _check_columns(bench: Workbench, entry: MethodEntry, stage: Stage, needs: Needs) -> None:
    have = labelled_texts.columns_of(bench.study.labelled) if bench.study.labelled else 0
    if needs.candidates and have <= needs.candidates:
        there = f"labelled has {have} columns" if have else "the study has no labelled text"
        raise UserError(
            f"method {entry.label} ({stage.name}) learns from rows of {1 + needs.candidates} texts, but {there}; "
            "set labelled.source and labelled.columns"
        )
