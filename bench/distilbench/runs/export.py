"""A run's model as a folder of its own, with a card that says what it scored: what `distilbench export` writes."""

from __future__ import annotations

import shutil
from pathlib import Path

from distilbench.core.errors import UserError
from distilbench.core.escape import escape_markdown
from distilbench.core.sealed import damage, undisturbed, write_folder_atomically
from distilbench.data.stored_model import weights_sha256
from distilbench.records.record import Record, read_run
from distilbench.runs.sharing.card import complete_card
from distilbench.runs.trained import MODEL_FOLDER

CITATION = "distilbench, a benchmark of text-embedding distillation"


def export_run(run: Path, out: Path, cache: Path, *, onnx: bool = False) -> Path:
    """Copy the model of a run's folder, `results/<study>/<run_id>`, to `out`, with its card completed.

    `onnx` adds the model as an ONNX graph. Raises `UserError` when the record or the model is not there, or is not what
    it was, when `out` is taken, and as `distilbench.models.onnx_export.write_onnx` does.
    """
    record = read_run(run)
    if record.role == "ceiling":
        raise UserError(f"{run} is the teacher's row, which trains no model; choose another run")
    stored = cache / "runs" / record.run_id
    if not (stored / MODEL_FOLDER).is_dir():
        raise UserError(f"the model of {run} is not in the cache {cache}; run the study {record.study} again")
    if found := undisturbed(stored, lambda: damage(stored), lambda fault: fault is None):
        raise UserError(f"the model in {stored} is damaged: {found}; run the study {record.study} again")
    if weights_sha256(stored / MODEL_FOLDER) != record.identity.get("weights"):
        raise UserError(f"the model in {stored} is not the one that {run} was scored with; run the study again")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is taken; choose another folder")

    def write(folder: Path) -> None:
        shutil.copytree(stored / MODEL_FOLDER, folder, dirs_exist_ok=True)
        card = folder / "README.md"
        text = complete_card(card.read_text(encoding="utf-8"), record, run)
        card.write_text(text + scores_and_source(record), encoding="utf-8")
        if onnx:
            from distilbench.models.onnx_export import write_onnx

            write_onnx(folder)

    write_folder_atomically(out, write)
    return out


def scores_and_source(record: Record) -> str:
    """The part of a card that is known after training: scores x100, what was spent, and whom to cite."""
    rows = "\n".join(
        f"| {escape_markdown(task)} | {escape_markdown(str(record.tasks[task]['main_metric']))} | "
        f"{100 * scores['main_score']:.2f} |"
        for task, scores in record.scores.items()
    )
    smoke = "\nA smoke run: text and tasks were shortened, so these are no results.\n" if record.limit else ""
    spent = f"{record.ledger['sentences']:,} sentences in {record.ledger['steps']:,} steps"
    return (
        f"\n## Scores\n{smoke}\n| Task | Metric | x100 |\n|---|---|---|\n{rows}\n\n"
        f"Scored with mteb {escape_markdown(str(record.environment['mteb']))} by {CITATION}; trained on {spent}, "
        f"seed {record.seed}.\n\n"
        f"## Citation\n\n{_sources(record)}\n"
    )


def _sources(record: Record) -> str:
    import distilbench_methods

    names = [name for name in record.method.split("+") if name in distilbench_methods.registry()]
    return (
        "\n".join(
            f"- {escape_markdown(name)}: {escape_markdown(distilbench_methods.load(name).source)}" for name in names
        )
        or "- no method: it was not trained"
    )
