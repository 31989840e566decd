"""The front matter of a card, which the Hub reads: from which model this one is, and what it scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from distilbench.records.record import MTEB_FOLDER, Record

MARK = "---\n"
DATA_SET = "hub:"
"""What a text's source begins with where it is a data set of the Hub."""


def complete_card(text: str, record: Record, run: Path) -> str:
    """A card of `distilbench.models.export.model_card` with what is known after training in its front matter.

    `base_model` and `datasets` are stated where they are of the Hub, scores (x100) where the run was no smoke run.
    """
    _, front, rest = text.split(MARK, 2)
    stated = yaml.safe_load(front)
    data = ModelCardData(
        **stated,
        base_model=_base_model(record),
        datasets=_data_sets(record),
        model_name=f"{record.study}-{record.label}-seed-{record.seed}",
        eval_results=None if record.limit is not None else _scores(record, run) or None,
    )
    return f"{MARK}{data.to_yaml()}\n{MARK}{rest}"


def _base_model(record: Record) -> str | None:
    """The model whose weights the student began with. Models of folders have names without an owner."""
    name = str(record.student.get("name", record.teacher["name"]))
    return name if _is_of_the_hub(name) else None


def _data_sets(record: Record) -> list[str] | None:
    sources = record.text["source"]
    listed = sources if isinstance(sources, list) else [sources]
    names = [source.removeprefix(DATA_SET) for source in map(str, listed) if source.startswith(DATA_SET)]
    return [name for name in names if _is_of_the_hub(name)] or None


def _is_of_the_hub(name: str) -> bool:
    owner, _, rest = name.partition("/")
    return bool(owner and rest) and not set(rest) & set("/ +") and not name.startswith((".", "~"))


def _scores(record: Record, run: Path) -> list[EvalResult]:
    return [_score(task, record, run) for task in record.scores]


def _score(task: str, record: Record, run: Path) -> EvalResult:
    facts = record.tasks[task]
    path = run / MTEB_FOLDER / f"{task}.json"
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    splits = list(result.get("scores", ()))
    subsets = {scores["hf_subset"] for split in splits for scores in result["scores"][split]}
    return EvalResult(
        task_type=str(facts["type"]),
        dataset_type=task,
        dataset_name=task,
        dataset_config=subsets.pop() if len(subsets) == 1 else None,
        dataset_split=splits[0] if len(splits) == 1 else None,
        dataset_revision=result.get("dataset_revision"),
        metric_type=str(facts["main_metric"]),
        metric_value=round(100 * record.scores[task]["main_score"], 2),
    )
