"""One step of every row on a few sentences, and an export, before anything is paid for.

What a training, an export or the loading of what was exported would stumble over is said then, and not after hours.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from distilbench.core.cache import find_or_make, is_there
from distilbench.core.errors import UserError
from distilbench.core.hashes import PROTOCOL, key_of
from distilbench.core.sealed import disk_trouble
from distilbench.data.corpus import Corpus, open_corpus, write_corpus
from distilbench.data.labelled import LabelledText, Text
from distilbench.data.tokenizer import TextReader
from distilbench.evaluation.vectors.representation import sample
from distilbench.models.embed import embed
from distilbench.models.export import export
from distilbench.models.model_folder import load_encoder
from distilbench.records.record import dump_json
from distilbench.runs.prepare.identity import code_hashes
from distilbench.runs.prepare.inputs import Inputs, shared_tokens
from distilbench.runs.prepare.prepared import stages_of
from distilbench.runs.prepare.teacher import Teacher
from distilbench.runs.prepare.vector_teacher import AnyTeacher, JoinedTeacher, VectorTeacher
from distilbench.runs.trained import put_on
from distilbench.study.budget import Budget, Ledger
from distilbench.study.rows import MethodEntry
from distilbench.training.job import TrainingJob
from distilbench.training.loop import train
from distilbench.training.stores.teacher_store import TeacherStore, array_names, store_key
from distilbench.training.stores.vector_store import JoinedStore, SignalStore, VectorStore
from distilbench_methods.base import Needs

SENTENCES, ROWS = 128, 16
TOLERANCE = 1e-4
"""Between the vectors of a student and of what was exported of it, relative to the largest value."""


def try_rows(inputs: Inputs, *, keep: bool = True) -> None:
    """Try each row of a study that was not tried with these models before; nothing of it reaches the rows' runs.

    What worked is remembered in the cache, unless nothing is to be kept.

    Raises `UserError` for the first that does not work.
    """
    cache_folder = inputs.settings.cache
    with TemporaryDirectory() as place:
        text = _Sample(inputs, Path(place), cache_folder / "signals" if keep else Path(place) / "signals")
        for entry in inputs.study.methods:
            what = f"the trial of {entry.label}"
            folder = tried_folder(cache_folder) / _key(inputs, entry)
            if keep:
                find_or_make(folder, partial(_try_and_note, text, entry), what)
            elif not is_there(folder):
                _try(text, entry)


def tried_folder(cache: Path) -> Path:
    """Where it is remembered what worked."""
    return cache / "tried"


def _key(inputs: Inputs, entry: MethodEntry) -> str:
    study, student = inputs.study, inputs.students
    return key_of(
        protocol=PROTOCOL,
        libraries=[torch.__version__, transformers.__version__],
        teacher=inputs.teacher.hashes,
        student=[study.student.model_dump(exclude={"model"}), student.hashes],
        method=[code_hashes(stage.build()) for stage in entry.stages],
        hyperparameters=entry.hyperparameters,
        train=study.train.model_dump(),
        device=inputs.settings.device,
    )


class _Sample:
    """Some sentences that come with distilbench, as each of a study's models reads them."""

    def __init__(self, inputs: Inputs, place: Path, signals: Path) -> None:
        """`signals` is where the teacher's are kept; all else is gone with `place`."""
        self.inputs, self.place, self.signals = inputs, place, signals
        self.texts = sample().texts[:SENTENCES]
        # Of one tokenizer, loading takes longer than all that is done with it.
        self.tokenizer = cache(inputs.students.reader.tokenizer)
        self.corpus = cache(partial(self._read, "student", inputs.students.reader, self.tokenizer))
        self.corpus_for = cache(self._read_by)

    def _read(self, name: str, reader: TextReader, tokenizer: Callable[[], Any]) -> Corpus:
        folder, study = self.place / name, self.inputs.study
        folder.mkdir()
        write_corpus(folder, self.texts, tokenizer(), study.train.max_length, reader.prompt(study.text.side))
        return open_corpus(folder, name, "embedded")

    def _read_by(self, teacher: Teacher) -> Corpus:
        if shared_tokens(self.inputs):
            return self.corpus()
        reader, number = teacher.reader, self.inputs.teacher.members.index(teacher)
        return self._read(f"teacher-{number}", reader, reader.tokenizer)

    def text(self, needs: Needs) -> Text:
        """What a method with these needs is tried on."""
        if not needs.candidates:
            return self.corpus()
        columns = 1 + needs.candidates
        rows_RC: NDArray[np.int64] = np.arange(SENTENCES).reshape(-1, 1) + np.arange(columns)
        spec = self.inputs.study.labelled
        scores = np.ones((SENTENCES, needs.candidates), np.float32) / (1 + np.arange(needs.candidates))
        given = scores.astype(np.float32) if spec is not None and spec.scores else None
        return LabelledText(self.corpus(), rows_RC % SENTENCES, given)

    def store(self, needs: Needs) -> SignalStore:
        """The teacher's signals for it; of stored vectors, which are of other texts, any."""
        return self._store(self.inputs.teacher, sorted(array_names(needs)))

    def _store(self, teacher: AnyTeacher, arrays: list[str]) -> SignalStore:
        if isinstance(teacher, JoinedTeacher):
            parts = [self._store(member, arrays) for member in teacher.members]
            return JoinedStore(self.corpus(), parts, teacher.weights)
        if isinstance(teacher, VectorTeacher):
            corpus, count = self.corpus(), len(teacher.source.vectors.values_NW)
            return VectorStore(corpus, teacher.source, np.arange(len(corpus)) % count)
        corpus, kind = self.corpus_for(teacher), self.inputs.study.train.signals
        folder = self.signals / store_key(teacher.hashes, corpus.sha256, kind)
        return TeacherStore(folder, teacher.shape, corpus, arrays, kind, lambda: teacher.encoder)


def _try_and_note(text: _Sample, entry: MethodEntry, path: Path) -> None:
    _try(text, entry)
    dump_json({"row": entry.label}, path / "tried.json")


def _try(text: _Sample, entry: MethodEntry) -> None:
    try:
        _train_and_export(text, entry)
    except UserError:
        raise
    # Methods of other packages, and architectures of transformers, raise what they like.
    except Exception as error:
        if disk_trouble(error):
            raise
        why = str(error).splitlines()[0] if str(error) else ""
        raise UserError(
            f"method {entry.label} does not work with this teacher and student ({type(error).__name__}: {why}); choose "
            "another method or another student"
        ) from error


def _train_and_export(text: _Sample, entry: MethodEntry) -> None:
    inputs = text.inputs
    student = deepcopy(inputs.students.untrained)
    size = min(inputs.study.train.batch_size, ROWS)
    plain = {"batch_size": size, "batch_tokens": None, "micro_batch": None, "compile": None, "checkpoint": "last"}
    for stage, needs in stages_of(inputs, entry):
        job = TrainingJob(
            method=stage.build(),
            student=student,
            teacher=inputs.teacher.encoder if needs.teacher_online else inputs.teacher.shape,
            text=text.text(needs),
            store=text.store(needs),
            spec=inputs.study.train.model_copy(update=plain),
            budget=Budget("steps", 1),
            seed=0,
            shared_tokens=shared_tokens(inputs),
        )
        head = job.method.exported_head(train(job, Ledger()).aux)
        if head is not None:
            put_on(student, head)
    with TemporaryDirectory() as place:
        export(student, text.tokenizer(), Path(place) / "model", "# A trial\n")
        exported = load_encoder(Path(place) / "model").to(student.device)
    ours, theirs = (embed(model, text.tokenizer(), text.texts[:ROWS]) for model in (student, exported))
    apart = float(np.abs(ours - theirs).max())
    if not apart <= TOLERANCE * max(1.0, float(np.abs(ours).max())):
        raise UserError(
            f"method {entry.label}: the exported student gives other vectors than the trained one, {apart:.1e} apart; "
            f"a {type(student.backbone).__name__} cannot be exported as it is; choose another student"
        )
