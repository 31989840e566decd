"""What all runs of a study share: teacher, text, teacher signals, tasks; and who each run is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distilbench.core.cache import kept_arrays
from distilbench.core.hashes import PROTOCOL, key_of
from distilbench.core.machine import Settings
from distilbench.core.seeds import seeded
from distilbench.data import corpus as corpora
from distilbench.data import labelled as labelled_texts
from distilbench.data.batches import BATCHES_PER_POOL, batches_per_pool
from distilbench.data.corpus import Corpus
from distilbench.data.labelled import LabelledText, Text
from distilbench.data.tokenizer import load_tokenizer
from distilbench.evaluation import representation as vectors
from distilbench.evaluation.tasks.contamination import Contamination, find_or_open
from distilbench.evaluation.tasks.profiles import expand
from distilbench.models.cutting import build_student, find_model
from distilbench.models.embed import batch_rule
from distilbench.models.encoder import Encoder, num_parameters, output_width
from distilbench.models.model_folder import StoredModel, load_encoder
from distilbench.models.static_student import distil_static
from distilbench.runs.method_code import code_hashes
from distilbench.study.budget import Budget, Ledger
from distilbench.study.rows import MethodEntry, Stage
from distilbench.study.sections import Precision, StaticSpec
from distilbench.study.study import Run, Study
from distilbench.training.dev import DevSet, views_of
from distilbench.training.online import ALONE, Company
from distilbench.training.signals import dims_of
from distilbench.training.teacher_store import TeacherStore, array_names, store_key, store_size
from distilbench_methods.base import Dims, Needs

if TYPE_CHECKING:
    from distilbench.evaluation.tasks.by_name import Task

Announce = Callable[[str], None]
UNKNOWN_SIZE = 100_000


@dataclass
class Workbench:
    """The shared parts of a study, each made when first asked for."""

    study: Study
    settings: Settings
    announce: Announce = lambda _: None
    origin: Workbench | None = None
    """A workbench of an equal teacher and equal tasks, which are then not loaded again."""
    companions: list[Workbench] = field(default_factory=list)
    """Workbenches of other parts of the study: what their methods read of an equal text is stored by one pass."""
    company: Company = field(default=ALONE, init=False)
    """Of the runs that an engine is at, where they go on side by side."""
    _stages: dict[tuple[str, int], list[tuple[Stage, Needs]]] = field(default_factory=dict, init=False)
    _run_ids: dict[tuple[str, str, int], str] = field(default_factory=dict, init=False)

    @cached_property
    def teacher_model(self) -> StoredModel:
        return self.origin.teacher_model if self.origin else find_model(self.study.teacher, self.settings.mirror)

    @cached_property
    def teacher_hashes(self) -> dict[str, str]:
        return self.origin.teacher_hashes if self.origin else self.teacher_model.hashes()

    @cached_property
    def teacher(self) -> Encoder:
        if self.origin:
            return self.origin.teacher
        return load_encoder(self.teacher_model.folder).requires_grad_(False).to(self.settings.device)

    @cached_property
    def teacher_views(self) -> dict[str, NDArray[np.float64]]:
        """The teacher's vectors and layers of the sentences that every model is described by; see `vectors.views`."""

        def make() -> dict[str, NDArray[np.float64]]:
            # A tokenizer of its own: encoding leaves settings in it, which would be exported with the students.
            return vectors.views(self.teacher, load_tokenizer(self.teacher_model.folder))

        rule = batch_rule(self.settings.device)
        parts = {"teacher": self.teacher_hashes, "texts": vectors.sample().texts, "batches": rule}
        return kept_arrays(self.settings.cache, "views", make, **parts)

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.teacher_model.folder)

    @cached_property
    def budget(self) -> Budget:
        return Budget.of(self.study.budget, self.study.limit, self.study.train.batch_size)

    @cached_property
    def text_key(self) -> str:
        """Of the text as the study's sources have it."""
        return corpora.corpus_key(self.study, self.teacher_hashes["tokenizer"], self.settings.mirror)

    @cached_property
    def contamination(self) -> Contamination | None:
        """What of the text is evaluation text of the study's tasks; None where the study keeps it."""
        if self.study.text.evaluation_text == "keep":
            return None
        sentences = corpora.texts_of(self.settings.cache, self.text_key)
        return find_or_open(self.text_key, sentences, self.tasks, self.settings.cache)

    @property
    def corpus_key(self) -> str:
        """Of the text without what is evaluation text, which is not known before the text is read."""
        return self._clean[0] if self.text_is_built else self.text_key

    @cached_property
    def _clean(self) -> tuple[str, Callable[[], Corpus] | None]:
        found = self.contamination
        if found is None or not len(found.rows):
            return self.text_key, None
        folder = self.teacher_model.folder
        return corpora.without(self.study, folder, self.text_key, found.rows, found.looked_at, self.settings.cache)

    @cached_property
    def corpus(self) -> Corpus:
        if not self.text_is_built:
            self.announce("reading and tokenising the text")
        whole = corpora.build_or_open(
            self.study, self.teacher_model.folder, self.text_key, self.settings.cache, self.settings.mirror
        )
        _, open_clean = self._clean
        return whole if open_clean is None else open_clean()

    @cached_property
    def labelled_key(self) -> str:
        return labelled_texts.labelled_key(self.study, self.teacher_hashes["tokenizer"], self.settings.mirror)

    @cached_property
    def labelled(self) -> LabelledText:
        return labelled_texts.build_or_open(
            self.study, self.teacher_model.folder, self.labelled_key, self.settings.cache, self.settings.mirror
        )

    @cached_property
    def dev_key(self) -> str:
        return labelled_texts.labelled_key(self.study, self.teacher_hashes["tokenizer"], self.settings.mirror, "dev")

    @cached_property
    def dev(self) -> DevSet | None:
        """What students are watched by, if the study asks for it."""
        if self.study.dev is None:
            return None
        if self.origin and self.origin.study.dev is not None and self.origin.dev_key == self.dev_key:
            return self.origin.dev
        text = labelled_texts.build_or_open(
            self.study, self.teacher_model.folder, self.dev_key, self.settings.cache, self.settings.mirror, "dev"
        )
        parts = {"teacher": self.teacher_hashes, "dev": self.dev_key, "batches": batch_rule(self.settings.device)}
        views = kept_arrays(self.settings.cache, "dev", lambda: views_of(text, self.teacher), **parts)
        return DevSet.of(text, views)

    @cached_property
    def pairs_seen(self) -> dict[str, int]:
        """Task -> how many of its pairs stand together in a row of the labelled text; they are left where they are."""
        from distilbench.evaluation.tasks.overlap import pairs_seen

        if not self.wants_labelled:
            return {}
        texts = list(corpora.texts_of(self.settings.cache, self.labelled_key))
        rows = self.labelled.rows_RC
        pairs = [
            (texts[first], texts[other])
            for column in rows.T[1:]
            for first, other in zip(rows[:, 0], column, strict=True)
        ]
        return pairs_seen(self.tasks, pairs)

    def text_of(self, needs: Needs) -> Text:
        """What a method with these needs is trained on."""
        return self.labelled if needs.candidates else self.corpus

    @property
    def store_folder(self) -> Path:
        return self.signals_folder(self.corpus_key)

    def signals_folder(self, key: str) -> Path:
        """Where the teacher's signals for a text of this key lie."""
        return self.settings.cache / "signals" / store_key(self.teacher_hashes, key, self.study.train.signals)

    @cached_property
    def store(self) -> TeacherStore:
        return self._store(self.corpus_key, self.corpus, self.store_arrays)

    @cached_property
    def labelled_store(self) -> TeacherStore:
        folder = self.signals_folder(self.labelled_key)
        alike = [
            other
            for other in self.companions
            if other.study.labelled and other.signals_folder(other.labelled_key) == folder
        ]
        arrays = self._arrays(alike, lambda needs: needs.candidates > 0)
        return self._store(self.labelled_key, self.labelled.corpus, arrays)

    def _store(self, key: str, corpus: Corpus, arrays: list[str]) -> TeacherStore:
        folder, kind = self.signals_folder(key), self.study.train.signals
        if arrays and not folder.exists():
            size = store_size(self.teacher, arrays, len(corpus), kind)
            self.announce(f"the teacher's signals will take {size / 1e6:.3g} MB of disk, in {kind}")
        return TeacherStore(folder, self.teacher, corpus, arrays, kind)

    def store_of(self, needs: Needs) -> TeacherStore:
        """Where the teacher's signals for `text_of(needs)` are."""
        return self.labelled_store if needs.candidates else self.store

    @cached_property
    def store_arrays(self) -> list[str]:
        """What the study's methods read between them, so that one teacher pass serves all."""
        alike = [other for other in self.companions if other.store_folder == self.store_folder]
        return self._arrays(alike, lambda needs: not needs.candidates)

    def _arrays(self, alike: list[Workbench], chosen: Callable[[Needs], bool]) -> list[str]:
        benches = [self, *alike]
        all_needs = [needs for one in benches for entry in one.study.methods for _, needs in one.stages(entry)]
        return sorted({name for needs in all_needs if chosen(needs) for name in array_names(needs)})

    def stages(self, entry: MethodEntry) -> list[tuple[Stage, Needs]]:
        """A row's stages, and what each will ask for."""
        dims = self.dims
        known = self._stages.get((entry.label, dims.num_sentences))
        if known is None:
            known = self._stages[entry.label, dims.num_sentences] = self._find_stages(entry, dims)
        return known

    def _find_stages(self, entry: MethodEntry, dims: Dims) -> list[tuple[Stage, Needs]]:
        found = []
        for stage in entry.stages:
            method = stage.build()
            found.append((stage, method.needs(dims)))
            with seeded(0):
                head = method.exported_head(method.build_aux(dims))
            if head is not None:
                dims = replace(dims, student_final=output_width(head, dims.student_final))
        return found

    @property
    def text_is_built(self) -> bool:
        return corpora.is_built(self.settings.cache, self.text_key)

    @property
    def text_size(self) -> int:
        """Sentences of the text; while it is not built, what the study asks for."""
        return len(self.corpus) if self.text_is_built else self._asked_for(self.study.text.sentences)

    @property
    def labelled_size(self) -> int:
        """Rows of the labelled text; while it is not built, what the study asks for."""
        if corpora.is_built(self.settings.cache, self.labelled_key):
            return len(self.labelled)
        return self._asked_for(self.study.labelled.rows if self.study.labelled else None)

    def _asked_for(self, size: int | None) -> int:
        return min((known for known in (size, self.study.limit) if known is not None), default=UNKNOWN_SIZE)

    @property
    def dims(self) -> Dims:
        """Shapes for the methods."""
        return dims_of(self.untrained, self.teacher, self.text_size)

    def dims_for(self, student: Encoder) -> Dims:
        """Shapes for a method that goes on with a student, which may have got a head since it was new."""
        return dims_of(student, self.teacher, len(self.corpus))

    @cached_property
    def untrained(self) -> Encoder:
        """One student that is never trained, for its shape."""
        return self.student(self.study.seeds[0])

    @cached_property
    def tasks(self) -> list[Task]:
        if self.origin:
            return self.origin.tasks
        from distilbench.evaluation.tasks.by_name import load_task

        self.announce("loading tasks")
        return [load_task(name, self.settings.mirror, self.study.limit) for name in expand(self.study.tasks)]

    def student(self, seed: int) -> Encoder:
        """A fresh student of this seed."""
        return build_student(self.teacher, self.study.student, seed).to(self.settings.device)

    def static_student(self, ledger: Ledger) -> Encoder:
        """The static student that the study asks for, made anew."""
        return distil_static(self.teacher, self.tokenizer, self.study.static or StaticSpec(), ledger)

    @property
    def precision(self) -> Precision:
        """In which models are scored."""
        return self.study.evaluation.precision

    @property
    def name(self) -> str:
        """The study's name; smoke runs have folders of their own, so that they never replace a result."""
        return self.study.name if self.study.limit is None else f"{self.study.name}-limit{self.study.limit}"

    @property
    def wants_labelled(self) -> bool:
        """Whether a method of the study learns from rows of texts."""
        return any(needs.candidates for entry in self.study.methods for _, needs in self.stages(entry))

    def identity(self, run: Run) -> dict[str, Any]:
        """All that can change what a run trains. The run's id is the hash of it."""
        parts: dict[str, Any] = {"protocol": PROTOCOL, "role": run.role, "teacher": self.teacher_hashes}
        if run.role == "ceiling":
            return parts
        if run.role == "reference":
            static = self.study.static.model_dump() if self.study.static else {}
            return parts | {"static": static, "device": self.settings.device}
        parts |= {"student": self.study.student.model_dump(), "seed": run.seed, "device": self.settings.device}
        if run.role == "floor":
            return parts
        stages = self.stages(run.entry)
        parts |= {
            "method": run.entry.name,
            "code": [code_hashes(stage.build()) for stage, _ in stages],
            "hyperparameters": run.entry.hyperparameters,
            "budget": asdict(self.budget),
            "train": self.study.train.stated(),
        }
        sizes = []
        if any(not needs.candidates for _, needs in stages):
            parts["text"] = self.corpus_key
            sizes.append(self.text_size)
        if any(needs.candidates for _, needs in stages):
            parts["labelled"] = self.labelled_key
            sizes.append(self.labelled_size)
        pools = {batches_per_pool(size, self.study.train.batch_size) for size in sizes}
        if pools != {BATCHES_PER_POOL}:
            # Runs on large texts keep the ids that they had when small texts were one pool.
            parts["batches_per_pool"] = sorted(pools)
        if run.entry.tuning_trials:
            parts["tuning_trials"] = run.entry.tuning_trials
        if self.study.dev is not None:
            parts["dev"] = [self.dev_key, self.study.dev.points]
        return parts

    def run_id(self, run: Run) -> str:
        key = (run.role, run.entry.label, run.seed)
        if key not in self._run_ids:
            self._run_ids[key] = key_of(**self.identity(run))
        return self._run_ids[key]

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

    def describe_static(self) -> dict[str, Any]:
        """The static student as the record states it."""
        width = min((self.study.static or StaticSpec()).width, self.teacher.dims.width)
        vocabulary = self.teacher.backbone.get_input_embeddings().num_embeddings
        return {"width": width, "layers": 0, "heads": 0, "output_width": width, "parameters": vocabulary * width}


def workbenches(studies: list[Study], settings: Settings, announce: Announce) -> list[Workbench]:
    """A workbench for each part of a study; teacher and tasks are loaded once, and so are the teacher's signals."""
    first, *others = studies
    benches = [Workbench(first, settings, announce)]
    benches += [Workbench(study, settings, announce, origin=benches[0]) for study in others]
    for bench in benches:
        bench.companions = [other for other in benches if other is not bench]
    return benches
