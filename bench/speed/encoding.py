"""Vectors and scores, ours and theirs: the teacher over the text, and mteb's tasks."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from distilbench.data.corpus import open_corpus, write_corpus
from distilbench.data.tokenizer import load_tokenizer
from distilbench.evaluation.score import score
from distilbench.evaluation.tasks.by_name import Task, load_task
from distilbench.evaluation.tasks.profiles import expand
from distilbench.models.model_folder import StoredModel, load_encoder
from distilbench.study.sections.training import Precision
from distilbench.training.stores.teacher_store import FINAL, TeacherStore
from speed import rival
from speed.clock import Contestant, Race, Work, race
from speed.setting import Setting
from speed.training import DEFAULTS, OURS


def compare_teacher(setting: Setting) -> tuple[Race, float]:
    """The teacher's vector of every sentence; and the largest difference of an entry."""
    race(_encoders(setting.first(min(len(setting.sentences), setting.options.batch_size))), 1)
    found = race(_encoders(setting), setting.options.rounds)
    return found, float(np.abs(found.gave[OURS][-1] - found.gave[DEFAULTS][-1]).max())


def _encoders(setting: Setting) -> dict[str, Contestant]:
    folder, length = setting.teacher.folder, setting.max_length
    teacher = load_encoder(folder).requires_grad_(False).to(setting.device)
    model = rival.load(folder, setting.device)
    model.max_seq_length = length
    tokenizer = load_tokenizer(folder)

    def ours() -> Any:
        with TemporaryDirectory() as place:
            write_corpus(Path(place), setting.sentences, tokenizer, length)
            corpus = open_corpus(Path(place), "", "")
            rows = np.arange(len(corpus))
            store = TeacherStore(Path(place) / "signals" / "store", teacher, corpus, [FINAL])
            store.ensure(rows)
            return store.read(FINAL, rows).numpy().copy()

    return {OURS: lambda _: ours, DEFAULTS: lambda _: lambda: rival.encode(model, setting.sentences)}


def load_tasks(setting: Setting, names: tuple[str, ...]) -> list[Task]:
    """Tasks by name or profile, loaded once for both sides."""
    return [load_task(name, setting.settings.mirror) for name in expand(names)]


def compare_evaluation(setting: Setting, tasks: list[Task], precision: Precision) -> tuple[Race, float]:
    """Score the untrained student on some tasks; and the largest difference of a main score, as a fraction.

    What it has learnt does not change the time. Each of our rounds begins with an empty cache. Theirs is in fp32.
    """
    found = race(_evaluators(setting, tasks, precision), setting.options.rounds)
    ours, theirs = found.gave[OURS][-1], found.gave[DEFAULTS][-1]
    return found, max(abs(ours[task.name] - theirs[task.name]) for task in tasks)


def _evaluators(setting: Setting, tasks: list[Task], precision: Precision) -> dict[str, Contestant]:
    folder = setting.student_folder

    def ours() -> dict[str, float]:
        with TemporaryDirectory() as cache:
            found = score(StoredModel("student", folder), tasks, Path(cache), setting.device, precision)
        return {item.task.name: item.metrics["main_score"] for item in found}

    def theirs(_: int) -> Work:
        model = rival.load(folder, setting.device)
        return lambda: rival.plain_scores(model, [task.instance for task in tasks])

    return {OURS: lambda _: ours, DEFAULTS: theirs}
