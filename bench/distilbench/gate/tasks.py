"""What a candidate is to be scored on: tasks of mteb by name, and the user's own data by path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distilbench.core.errors import UserError, shown
from distilbench.evaluation.tasks.profiles import expand
from distilbench.evaluation.tasks.subsets import full_name
from distilbench.study.sections.texts import OwnTask, PartOfTask, TaskSpec

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")


def given_tasks(wanted: Sequence[str], study: str | None = None, root: Path = Path()) -> tuple[TaskSpec, ...]:
    """Tasks as somebody types them, and those of a study.

    A path, below `root` where it is relative, is a task of the user's own data, under the name of its file or folder.
    Raises `UserError` for a path that is not there, or that gives no name for a task.
    """
    specs: list[TaskSpec] = [_own(text, root) if _is_path(text, root) else text for text in wanted]
    if study is not None:
        from distilbench.study.study_file import load_study

        specs += load_study(study).tasks
    return tuple(expand(specs))


def name_of(spec: TaskSpec) -> str:
    """What a task is called in a baseline. Raises `UserError` for one whose subsets are chosen by language."""
    if isinstance(spec, PartOfTask):
        if spec.languages is not None:
            raise UserError(f"tasks: {spec.name}: name its subsets, and not languages, to check it")
        return full_name(spec.name, spec.subsets or (), spec.splits or ())
    return spec if isinstance(spec, str) else spec.name


def _is_path(text: str, root: Path) -> bool:
    # No task of mteb has a slash in its name, and a folder of its name may be there by chance.
    return text.endswith(TABLES) or "/" in text or (root / text / "qrels").is_dir()


def _own(text: str, root: Path) -> OwnTask:
    path = root / text
    if not path.exists():
        raise UserError(f"--tasks: {shown(text)} is not there; give a table of pairs, or a BEIR folder")
    try:
        return OwnTask(name=path.resolve().name.removesuffix(path.suffix if path.is_file() else ""), source=str(path))
    except ValueError:
        raise UserError(
            f"--tasks: {shown(text)} gives no name for a task; rename it to letters, digits, dots, dashes and "
            "underscores, or name it in a study and give --study"
        ) from None
