"""What a study is refused for before anything is trained."""

from __future__ import annotations

import torch

from distilbench.core.errors import UserError
from distilbench.runs.prepare.inputs import Inputs, no_ceiling
from distilbench.runs.prepare.prepared import stages_of
from distilbench.runs.prepare.teacher import Teacher
from distilbench.runs.prepare.texts import DevText, RowsText
from distilbench.study.rows import MethodEntry, Stage
from distilbench.training.stores.teacher_store import array_names
from distilbench_methods.base import Needs, UnsuitableError


def preflight(inputs: Inputs) -> None:
    """Raise `UserError` for methods that do not fit, and for tasks or text that are not there.

    What of the text is evaluation text is announced.
    """
    needs = check_methods(inputs)
    inputs.tasks()
    inputs.text.corpus  # noqa: B018
    if inputs.text.contamination is not None and len(inputs.text.contamination.rows):
        inputs.announce(str(inputs.text.contamination))
    if inputs.labelled is not None and any(one.candidates for one in needs):
        _look_at_labelled(inputs, inputs.labelled)
        check_scores(inputs)
    if not isinstance(inputs.teacher, Teacher):
        _check_vectors(inputs, needs)
    if inputs.dev is not None:
        if inputs.dev.removed:
            inputs.announce(
                f"{inputs.dev.removed} of {len(inputs.dev.text)} rows of dev are evaluation text and are left out"
            )
        _check_dev_ranks(inputs.dev)
        if inputs.study.train.checkpoint == "best-on-dev":
            _check_dev_is_apart(inputs, inputs.dev, "train.checkpoint best-on-dev", "set train.checkpoint to last")
        if inputs.study.tune is not None:
            _check_dev_is_apart(inputs, inputs.dev, "tune", "leave tune out")


def check_methods(inputs: Inputs) -> list[Needs]:
    """What the study's methods ask for.

    Raises `UserError` for methods that do not fit these models, and for sentences longer than the models take.
    """
    max_length, own = inputs.study.train.max_length, inputs.students.own
    models = {member.name: member.shape for member in inputs.teacher.members if isinstance(member, Teacher)}
    if own is not None:
        models[own.name] = inputs.students.shape
    for name, model in models.items():
        if max_length > model.max_positions:
            raise UserError(
                f"train.max_length {max_length} is more than the {model.max_positions} tokens that {name} takes; ask "
                "for less"
            )
    _check_sides(inputs)
    needs = []
    for entry in inputs.study.methods:
        try:
            stages = stages_of(inputs, entry)
        except UnsuitableError as error:
            raise UserError(f"method {entry.label} cannot run in this study: {error}") from None
        for stage, asked in stages:
            _check_columns(inputs, entry, stage, asked)
            needs.append(asked)
    return needs


def check_scores(inputs: Inputs) -> None:
    """Raise `UserError` for methods that cannot learn the scores that the labelled text has of its own."""
    if inputs.labelled is None or not inputs.labelled.request.spec.scores:
        return
    for entry in inputs.study.methods:
        for stage, needs in stages_of(inputs, entry):
            if not needs.teacher_scores:
                continue
            scores_RC = inputs.labelled.text.scores
            assert scores_RC is not None, "the text was read with its columns of scores"
            try:
                stage.build().check_scores(torch.from_numpy(scores_RC[:, : needs.candidates]))
            except UnsuitableError as error:
                raise UserError(f"method {entry.label} cannot run in this study: {error}") from None


def _check_vectors(inputs: Inputs, needs: list[Needs]) -> None:
    """Refuse texts that are read and have no vector."""
    for one in needs:
        if arrays := array_names(one):
            inputs.stores.open(inputs.source_of(one), tuple(arrays), inputs.study.train.signals)
    if (why := no_ceiling(inputs)) is not None:
        inputs.announce(f"no ceiling: {why}")


def _check_sides(inputs: Inputs) -> None:
    """Refuse prompts by names that neither model has."""
    study, members = inputs.study, inputs.teacher.members
    theirs = [member.reader for member in members if isinstance(member, Teacher)]
    readers = [inputs.students.reader, *theirs]
    known = sorted({name for reader in readers for name in reader.prompts})
    sections = {"labelled": study.labelled, "dev": study.dev}
    named = {"text.side": [study.text.side] if study.text.side else []} | {
        f"{key}.sides": spec.sides for key, spec in sections.items() if spec is not None
    }
    for key, sides in named.items():
        for side in sides:
            # Stored vectors may be of a side for which the student has no prompt.
            if side not in known and len(theirs) == len(members):
                there = f"theirs are {', '.join(known)}" if known else "they have none at all"
                raise UserError(
                    f"{key}: neither teacher nor student has a prompt {side!r} ({there}); name another, or leave it out"
                )


def _check_columns(inputs: Inputs, entry: MethodEntry, stage: Stage, needs: Needs) -> None:
    columns = inputs.labelled.columns if inputs.labelled else 0
    if needs.candidates and columns <= needs.candidates:
        there = f"labelled has {columns} columns" if columns else "the study has no labelled text"
        raise UserError(
            f"method {entry.label} ({stage.name}) learns from rows of {1 + needs.candidates} texts, but {there}; "
            "set labelled.source and labelled.columns"
        )


def _look_at_labelled(inputs: Inputs, labelled: RowsText) -> None:
    if labelled.pairs_seen:
        seen = ", ".join(f"{count} of {task}" for task, count in labelled.pairs_seen.items())
        inputs.announce(f"the labelled text holds test pairs: {seen}; its students are not zero-shot on these")


def _check_dev_ranks(dev: DevText) -> None:
    """Refuse pairs of which no order can be right or wrong: every score of theirs would be undefined."""
    gold_P = dev.dev_set.gold_P
    if len(set(gold_P.tolist())) < 2:
        spec = dev.request.spec
        whose = "scores" if spec.scores else "cosines of the teacher"
        raise UserError(
            f"dev.source: {spec.source} has no two pairs with different {whose}; there is nothing to rank, so give "
            "others"
        )


def _check_dev_is_apart(inputs: Inputs, dev: DevText, what: str, cure: str) -> None:
    """Refuse to choose weights or settings by pairs that the scores are made of."""
    from distilbench.evaluation.tasks.overlap import shared_pairs

    texts = list(dev.sentences())
    pairs = [(texts[first], texts[second]) for first, second in dev.dev_set.pairs_P2]
    for task in inputs.tasks():
        if shared := shared_pairs(task, pairs):
            raise UserError(
                f"{what}: {len(shared)} pairs of dev are also in the task {task.name}, such as {shared[0][0]!r} with "
                f"{shared[0][1]!r}; leave them out with dev.evaluation_text=remove, choose by other pairs, or {cure}"
            )
