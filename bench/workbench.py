"""What all runs of a study share: teacher, text, teacher signals, tasks; and who each run is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import methods.base
import methods.functional
from bench import corpus as corpora
from bench.budget import Budget
from bench.corpus import Corpus
from bench.encoder import Encoder, StoredModel, load_encoder, load_tokenizer, num_parameters
from bench.errors import UserError
from bench.evaluation.profiles import expand
from bench.identity import PROTOCOL, file_sha256, key_of
from bench.models import build_student, find_model
from bench.settings import Settings
from bench.signals import TeacherStore, array_names, dims_of, store_key
from bench.study import Run, Study
from methods.base import Dims, UnsuitableError

if TYPE_CHECKING:
    from bench.evaluation.tasks import Task

Announce = Callable[[str], None]
UNKNOWN_SIZE = 100_000


def _code_hash(method: str) -> str:
    """Hash of a method's own file and of what all methods share, so that an edited method is another method."""
    files = [inspect.getfile(module) for module in (methods.load(method), methods.base, methods.functional)]
    return key_of(files=[file_sha256(Path(file)) for file in files])


@dataclass
class Workbench:
    """The shared parts of a study, each made when first asked for."""

    study: Study
    settings: Settings
    announce: Announce = lambda _: None

    @cached_property
    def teacher_model(self) -> StoredModel:
        return find_model(self.study.teacher)

    @cached_property
    def teacher_hashes(self) -> dict[str, str]:
        return self.teacher_model.hashes()

    @cached_property
    def teacher(self) -> Encoder:
        return load_encoder(self.teacher_model.folder).requires_grad_(False).to(self.settings.device)

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.teacher_model.folder)

    @cached_property
    def budget(self) -> Budget:
        return Budget.of(self.study.budget, self.study.limit, self.study.train.batch_size)

    @cached_property
    def corpus_key(self) -> str:
        return corpora.corpus_key(self.study, self.teacher_hashes["tokenizer"], self.settings.mirror)

    @cached_property
    def corpus(self) -> Corpus:
        if not self.text_is_built:
            self.announce("reading and tokenising the text")
        return corpora.build_or_open(
            self.study, self.teacher_model.folder, self.corpus_key, self.settings.cache, self.settings.mirror
        )

    @property
    def store_folder(self) -> Path:
        return self.settings.cache / "signals" / store_key(self.teacher_hashes, self.corpus_key)

    @cached_property
    def store(self) -> TeacherStore:
        return TeacherStore(self.store_folder, self.teacher, self.corpus, self.store_arrays)

    @cached_property
    def store_arrays(self) -> list[str]:
        """What the study's methods read between them, so that one teacher pass serves all."""
        dims = self.dims
        return sorted({name for entry in self.study.methods for name in array_names(entry.build().needs(dims))})

    @property
    def text_is_built(self) -> bool:
        return corpora.is_built(self.settings.cache, self.corpus_key)

    @property
    def dims(self) -> Dims:
        """Shapes for the methods. While the text is not built, its size is what the study asks for."""
        size = len(self.corpus) if self.text_is_built else self.study.text.sentences or UNKNOWN_SIZE
        return dims_of(self.untrained, self.teacher, size)

    @cached_property
    def untrained(self) -> Encoder:
        """One student that is never trained, for its shape."""
        return self.student(self.study.seeds[0])

    @cached_property
    def tasks(self) -> list[Task]:
        from bench.evaluation.tasks import load_task

        self.announce("loading tasks")
        return [load_task(name, self.settings.mirror, self.study.limit) for name in expand(self.study.tasks)]

    def student(self, seed: int) -> Encoder:
        """A fresh student of this seed."""
        return build_student(self.teacher, self.study.student, seed).to(self.settings.device)

    @property
    def name(self) -> str:
        """The study's name; smoke runs have folders of their own, so that they never replace a result."""
        return self.study.name if self.study.limit is None else f"{self.study.name}-limit{self.study.limit}"

    def check(self) -> None:
        """Refuse, before anything is trained, methods that do not fit, and tasks or text that are not there."""
        self.check_methods()
        self.tasks  # noqa: B018
        self.corpus  # noqa: B018

    def check_methods(self) -> None:
        """Refuse methods that do not fit these models, and sentences longer than the models take."""
        if self.study.train.max_length > self.teacher.max_positions:
            raise UserError(
                f"train.max_length {self.study.train.max_length} is more than the {self.teacher.max_positions} tokens "
                f"that {self.teacher_model.name} takes; ask for less"
            )
        dims = self.dims
        for entry in self.study.methods:
            try:
                entry.build().needs(dims)
            except UnsuitableError as error:
                raise UserError(f"method {entry.label} cannot run in this study: {error}") from None

    def identity(self, run: Run) -> dict[str, Any]:
        """All that can change what a run trains. The run's id is the hash of it."""
        parts: dict[str, Any] = {"protocol": PROTOCOL, "role": run.role, "teacher": self.teacher_hashes}
        if run.role == "ceiling":
            return parts
        parts |= {"student": self.study.student.model_dump(), "seed": run.seed, "device": self.settings.device}
        if run.role == "floor":
            return parts
        return parts | {
            "method": run.entry.name,
            "code": _code_hash(run.entry.name),
            "hyperparameters": run.entry.hyperparameters,
            "text": self.corpus_key,
            "budget": asdict(self.budget),
            "train": self.study.train.model_dump(),
        }

    def run_id(self, run: Run) -> str:
        return key_of(**self.identity(run))

    def describe_teacher(self) -> dict[str, Any]:
        """The teacher as the record states it."""
        return {
            "name": self.teacher_model.name,
            **asdict(self.teacher.dims),
            "output_width": self.teacher.output_width(),
            "parameters": num_parameters(self.teacher),
            "sha256": self.teacher_hashes["weights"],
        }

    def describe_student(self) -> dict[str, Any]:
        """The student as the record states it."""
        return {
            **asdict(self.untrained.dims),
            "output_width": self.untrained.output_width(),
            "parameters": num_parameters(self.untrained),
            "pooling": self.study.student.pooling,
        }
