"""What the runs of a study share: teacher, students, texts, tasks, and the teacher's stored signals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING

from distilbench.core.errors import UserError
from distilbench.core.machine import Settings
from distilbench.data.labelled import RowsRequest, Section, Text
from distilbench.data.plain_text import TextRequest
from distilbench.evaluation.tasks.profiles import expand
from distilbench.models.encoder import Encoder
from distilbench.models.finding import find_model
from distilbench.runs.prepare.precision import resolved
from distilbench.runs.prepare.pruned import pruned
from distilbench.runs.prepare.stores import Stores
from distilbench.runs.prepare.students import Students
from distilbench.runs.prepare.teacher import Teacher
from distilbench.runs.prepare.texts import Announce, DevText, PlainText, RowsText, Tasks
from distilbench.runs.prepare.vector_teacher import AnyTeacher, JoinedTeacher, VectorTeacher
from distilbench.study.budget import Budget
from distilbench.study.rows import MethodEntry
from distilbench.study.sections.models import TeacherSpec, spec_of
from distilbench.study.sections.texts import LabelledSpec
from distilbench.study.sections.training import known
from distilbench.study.study import Study
from distilbench.training.signals import dims_of
from distilbench_methods.base import Dims, Needs

if TYPE_CHECKING:
    from distilbench.evaluation.tasks.by_name import Task


@dataclass(frozen=True)
class Inputs:
    """What all runs of a study are made from. Each part is read when it is first needed, and once."""

    study: Study
    settings: Settings
    teacher: AnyTeacher
    students: Students
    text: PlainText
    labelled: RowsText | None
    dev: DevText | None
    tasks: Tasks
    stores: Stores
    announce: Announce

    @property
    def name(self) -> str:
        """The study's name; smoke runs have folders of their own, so that they never replace a result."""
        study = self.study
        return study.name if study.limit is None else f"{study.name}-limit{study.limit}"

    @property
    def budget(self) -> Budget:
        return Budget.of(self.study.budget, self.study.limit, self.study.train.batch_size)

    @property
    def dims(self) -> Dims:
        """Shapes for the methods."""
        return dims_for(self, self.students.shape)

    def source_of(self, needs: Needs) -> PlainText | RowsText:
        """Where the text comes from that a method with these needs is trained on."""
        if not needs.candidates:
            return self.text
        assert self.labelled is not None, "a method that learns from rows is refused in a study without"
        return self.labelled

    def text_of(self, needs: Needs) -> Text:
        """What a method with these needs is trained on."""
        source = self.source_of(needs)
        return source.text if isinstance(source, RowsText) else source.corpus


def dims_for(inputs: Inputs, student: Encoder) -> Dims:
    """Shapes for a method that trains a student, which may have got a head since it was new."""
    teacher = inputs.teacher.final_width if inputs.teacher.shape is None else inputs.teacher.shape
    return dims_of(student, teacher, inputs.text.size, shared_tokens=shared_tokens(inputs))


def shared_tokens(inputs: Inputs) -> bool:
    """Whether students and teacher cut the texts to train on into the same tokens."""
    study, reader = inputs.study, inputs.teacher.reader
    sides = {study.text.side, *(study.labelled.sides if study.labelled else [])}
    return reader is not None and inputs.students.reader.reads_as(reader, sides)


def no_ceiling(inputs: Inputs) -> str | None:
    """Why the teacher cannot be scored, in words: which texts of the tasks its stored vectors lack."""
    if all(isinstance(member, Teacher) for member in inputs.teacher.members):
        return None
    from distilbench.evaluation.vector_encoders import lacking

    return lacking(inputs.teacher.source, inputs.tasks())


def with_methods(inputs: Inputs, methods: Iterable[MethodEntry]) -> Inputs:
    """The same teacher, texts and tasks for other rows."""
    return replace(inputs, study=inputs.study.model_copy(update={"methods": list(methods)}))


def make_inputs(study: Study, settings: Settings, announce: Announce = lambda _: None) -> Inputs:
    """The inputs of a study that has one student, one text and one way to train."""
    study = resolved(study, settings.device, settings.cache)
    teacher = _teacher(study, settings)
    tasks = cache(partial(_load_tasks, study, settings, announce))
    return _inputs(study, settings, announce, teacher, tasks, Stores(teacher, settings.cache, announce))


def inputs_of_parts(studies: list[Study], settings: Settings, announce: Announce = lambda _: None) -> list[Inputs]:
    """The inputs of each part of a study, which share teacher, tasks, and a text where they ask for the same."""
    first = make_inputs(studies[0], settings, announce)
    parts = [first]
    for other in studies[1:]:
        study = resolved(other, settings.device, settings.cache)
        part = _inputs(study, settings, announce, first.teacher, first.tasks, first.stores)
        alike = next((other.text for other in parts if other.text.request == part.text.request), part.text)
        parts.append(replace(part, text=alike))
    return parts


def _inputs(
    study: Study, settings: Settings, announce: Announce, teacher: AnyTeacher, tasks: Tasks, stores: Stores
) -> Inputs:
    train, spec = study.train, study.student
    request = TextRequest(study.text, train.max_length, train.batch_size, study.limit, settings.mirror)
    own = find_model(spec.model, settings.mirror, "student.model") if spec.model is not None else None
    if own is not None and spec.vocabulary is not None:
        whole = Students(teacher, spec, study.static, own)
        text = PlainText(request, whole, teacher, tasks, settings.cache, announce)
        own = pruned(own, text, spec.vocabulary, settings.cache)
    students = Students(teacher, spec, study.static, own)
    rows, dev = study.labelled, study.dev
    read_with = (students, teacher, tasks, settings.cache)
    return Inputs(
        study=study,
        settings=settings,
        teacher=teacher,
        students=students,
        text=PlainText(request, students, teacher, tasks, settings.cache, announce),
        labelled=RowsText(_rows_request(study, rows, "labelled", settings), *read_with) if rows else None,
        dev=DevText(_rows_request(study, dev, "dev", settings), *read_with) if dev else None,
        tasks=tasks,
        stores=stores,
        announce=announce,
    )


def _rows_request(study: Study, spec: LabelledSpec, section: Section, settings: Settings) -> RowsRequest:
    train = study.train
    return RowsRequest(spec, section, train.max_length, train.batch_size, study.limit, settings.mirror)


def _teacher(study: Study, settings: Settings) -> AnyTeacher:
    spec = spec_of(study.teacher)
    if spec.joined is None:
        return _one_teacher(spec, settings)
    return JoinedTeacher([_one_teacher(spec_of(member), settings) for member in spec.joined], spec.weights)


def _one_teacher(spec: TeacherSpec, settings: Settings) -> Teacher | VectorTeacher:
    if spec.model is None:
        return VectorTeacher(spec, settings.device, settings.cache)
    stored = find_model(spec.model, settings.mirror)
    used = replace(stored, prompts=spec.prompts, dtype=known(spec.dtype), truncate=spec.truncate)
    return Teacher(used, settings.device, settings.cache)


def _load_tasks(study: Study, settings: Settings, announce: Announce) -> list[Task]:
    from distilbench.evaluation.tasks.by_name import load_tasks

    announce("loading tasks")
    tasks: dict[str, Task] = {}
    for task in load_tasks(expand(study.tasks), settings.mirror, study.limit):
        # By its subsets or by its languages, a part of a task is the same.
        if tasks.setdefault(task.name, task).data_sha256 != task.data_sha256:
            raise UserError(f"tasks: two tasks are called {task.name}; give one another name, or leave it out")
    return list(tasks.values())
