"""What is given to the gate: a study's folder, a run's, or a model folder, which is scored first; and its drift."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from distilbench.core.errors import UserError
from distilbench.core.libraries import collector_at_rest, quiet
from distilbench.data.embedded.pinned import pinned_texts
from distilbench.gate.baseline import EXAMPLE_COLUMNS, Scores
from distilbench.gate.check import CheckLine
from distilbench.gate.drift import CLOSENESS, Vectors, drift, order_is_lost
from distilbench.records.frames import MEASURE, SIMILARITY
from distilbench.records.record import RECORD_FILE

if TYPE_CHECKING:
    from distilbench.study.sections.texts import TaskSpec
    from distilbench.study.sections.training import Precision

DRIFT = "Drift"
ORDER_SEED = 7
Encode = Callable[[list[str]], npt.NDArray[np.float32]]
"""Texts to their vectors [N, W], row by row."""


def is_model(folder: Path) -> bool:
    """Whether this is a model folder, not one of results."""
    named = any((folder / name).is_file() for name in ("modules.json", "config.json"))
    return named and not (folder / RECORD_FILE).is_file()


def load_libraries() -> None:
    """Import what embedding texts takes, for a candidate that will need it."""
    with collector_at_rest():
        import distilbench.data.tokenizer
        import distilbench.models.embed
        import distilbench.models.model_folder  # noqa: F401


@quiet()
def score_model(folder: Path, label: str, tasks: Mapping[TaskSpec, str], mirror: str | None, device: str) -> Scores:
    """Score a model folder on tasks, each with its precision.

    Scores that lie in the cache under the hash of its weights are used again.
    Raises `UserError` for models that cannot be loaded and task data that cannot be had, and `CollapseError`.
    """
    with collector_at_rest():
        from distilbench.core.machine import environment, settings
        from distilbench.evaluation.score import score
        from distilbench.evaluation.tasks.by_name import load_task
        from distilbench.evaluation.tasks.overlap import text_numbers
        from distilbench.models.model_folder import StoredModel

    chosen = settings(out=".", mirror=mirror, device=device)
    model = StoredModel(folder.resolve().name, folder)
    hashes = model.hashes()
    loaded = {spec: load_task(spec, chosen.mirror) for spec in tasks}
    in_precision = {task.name: tasks[spec] for spec, task in loaded.items()}
    results = [
        result
        for precision in dict.fromkeys(tasks.values())
        for result in score(
            model,
            [task for task in loaded.values() if in_precision[task.name] == precision],
            chosen.cache,
            chosen.device,
            cast("Precision", precision),
        )
    ]
    run = hashes["weights"][:16]
    values = [
        result.examples.assign(
            run=run, value=result.examples[SIMILARITY if SIMILARITY in result.examples else result.task.main_metric]
        )
        for result in results
    ]
    return Scores(
        runs=pd.DataFrame([{"label": label, "seed": 0, "batches": None, "weights": hashes["weights"]}], index=[run]),
        scores=pd.DataFrame([{result.task.name: result.metrics["main_score"] for result in results}], index=[run]),
        examples=pd.concat(values).reindex(columns=[*EXAMPLE_COLUMNS, MEASURE]),
        tasks={
            result.task.name: {
                "data_sha256": result.task.data_sha256,
                "main_metric": result.task.main_metric,
                "type": result.task.kind,
                "precision": in_precision[result.task.name],
            }
            for result in results
        },
        mteb=version("mteb"),
        limit=None,
        provenance={"model": {"name": model.name, **hashes}, "environment": environment(chosen.device)},
        example_texts=text_numbers(loaded.values()),
    )


def with_vectors(candidate: Scores, models: dict[str, Path], device: str) -> Scores:
    """The candidate with its models' vectors of the pinned texts, for blessing."""
    texts = pinned_texts()
    return replace(
        candidate, texts=texts, vectors={run: encoder_of(path, device)(texts) for run, path in models.items()}
    )


@quiet()
def encoder_of(folder: Path, device: str) -> Encode:
    """A model folder as a function of texts. Raises `UserError` for what cannot be loaded."""
    from distilbench.data.tokenizer import load_tokenizer
    from distilbench.models.embed import embed
    from distilbench.models.model_folder import load_encoder

    return partial(embed, load_encoder(folder).to(device), load_tokenizer(folder))


def models_of(runs: pd.DataFrame) -> dict[str, Path]:
    """Run -> model folder in the cache, for the first seed of each row whose model is there.

    Raises `UserError` for a model whose weights are not those that the record was made with.
    """
    from distilbench.core.machine import cache_folder
    from distilbench.models.model_folder import StoredModel

    models: dict[str, Path] = {}
    for _, rows in runs.sort_values("seed").groupby("label"):
        folders = {str(run): cache_folder() / "runs" / str(run) / "model" for run in rows.index}
        run = next((run for run, folder in folders.items() if folder.is_dir()), None)
        if run is None:
            continue
        if StoredModel(run, folders[run]).hashes()["weights"] != rows.at[run, "weights"]:
            raise UserError(f"{folders[run]} is not the model that run {run} was scored with; run the study again")
        models[run] = folders[run]
    return models


def drift_line(encode: Encode, label: str, baseline: Scores, *, same: bool) -> tuple[CheckLine, list[str]]:
    """The drift stage for one model: pass or regressed, and how close it is to the blessed model.

    `same`: whether the model claims to be the blessed one. Raises `UserError` when the baseline has no vectors for it.
    """
    blessed = baseline.vectors[_blessed_run(baseline, label)]
    order = np.random.default_rng(ORDER_SEED).permutation(len(baseline.texts))
    now = np.asarray(encode(baseline.texts))
    findings = drift(now, _in_order(encode, baseline.texts, order), blessed, same=same)
    near = [finding for finding in findings if finding.name in ("cosine", "neighbours")]
    notes = [f"Drift of {label}: {', '.join(f'{item.what} {item.value:.3g}' for item in near)}."] if near else []
    broken = [finding for finding in findings if not finding.holds]
    if not broken:
        return CheckLine(label, DRIFT, True, "pass"), notes
    reasons = [str(finding) for finding in broken]
    if now.shape == blessed.shape and np.isfinite(now).all() and order_is_lost(now, blessed):
        reasons.insert(0, "the vectors are the baseline's, in another order")
    if same and all(finding.holds for finding in findings if finding.name not in CLOSENESS):
        notes.append("If the model was changed on purpose, say so with --changed: then its scores decide.")
    return CheckLine(label, DRIFT, True, "regressed", reason="; ".join(reasons)), notes


def blessed_weights(baseline: Scores, label: str) -> str:
    """The hash of the weights that a row's blessed vectors are of."""
    return str(baseline.runs.loc[_blessed_run(baseline, label), "weights"])


def _blessed_run(baseline: Scores, label: str) -> str:
    for run in baseline.runs.index[baseline.runs["label"] == label]:
        if run in baseline.vectors:
            return str(run)
    raise UserError(f"the baseline has no vectors of {label} for the drift stage; bless it again with its models")


def _in_order(encode: Encode, texts: list[str], order: npt.NDArray[np.int64]) -> Vectors:
    again = np.asarray(encode([texts[place] for place in order]))
    if len(again) != len(texts):
        return again
    placed = np.empty_like(again)
    placed[order] = again
    return placed
