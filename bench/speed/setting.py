"""What all the comparisons work on: a teacher, a student cut from it, and sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distilbench.core.errors import UserError
from distilbench.core.machine import Settings
from distilbench.core.seeds import seeded
from distilbench.data.sentences import distinct
from distilbench.data.text import EMBEDDED, read_sentences
from distilbench.data.tokenizer import load_tokenizer
from distilbench.models.cutting import build_student
from distilbench.models.encoder import Encoder, Normalize
from distilbench.models.export import export
from distilbench.models.finding import find_model
from distilbench.models.model_folder import StoredModel, load_encoder
from distilbench.runs.prepare.inputs import Inputs, make_inputs
from distilbench.study.sections.models import StudentSpec
from distilbench.study.sections.texts import TextSpec
from distilbench.study.sections.training import Precision, TrainSpec
from distilbench.study.study import Study

MIRRORED_TEXT = "mirror:train/mixed-sentences.parquet"
SEED = 1
HEAD_WIDTH = 64
"""Of the random teachers' attention, as BERT's."""


@dataclass(frozen=True)
class RaceOptions:
    """What the user chose to compare."""

    parts: tuple[str, ...]
    teacher: str
    shape: tuple[int, int] | None
    """Layers and width of a teacher with random weights, in place of a real one: speed does not depend on weights."""
    layers: int
    width: int | None
    text: str | None
    """Where sentences come from. None: from the mirror, else from the installed packages."""
    sentences: int
    batch_size: int
    rounds: int
    tasks: tuple[str, ...]
    learning_rate: float
    precision: Precision
    """Of trainings; with bf16, tasks are scored in both."""


@dataclass
class Setting:
    """The models and the text, in a folder that goes with the setting."""

    options: RaceOptions
    settings: Settings
    """Its cache and results are of the setting's own: nothing is there yet that a contestant could take."""
    folder: Path
    sentences: list[str] = field(default_factory=list)

    @property
    def device(self) -> str:
        return self.settings.device

    def inputs(self, methods: list[Any], *, name: str = "speed", **changed: Any) -> Inputs:
        """Of a study of some methods; `changed` replaces sections of the study."""
        sentences = len(self.sentences)
        study = Study.model_validate(
            {
                "name": name,
                "teacher": str(self.teacher.folder),
                "student": self.student_spec.model_dump(),
                "text": {"source": str(self.folder / "sentences.txt"), "evaluation_text": "keep"},
                # Batches are full: what is left of the text is passed over by both sides.
                "budget": {"steps": sentences // self.options.batch_size},
                "methods": methods,
                "seeds": [SEED],
                "tasks": list(self.options.tasks),
                "train": {
                    "batch_size": self.options.batch_size,
                    "learning_rate": self.options.learning_rate,
                    "precision": self.options.precision,
                    "max_length": self.max_length,
                },
            }
            | changed
        )
        return make_inputs(study, self.settings)

    @property
    def student_spec(self) -> StudentSpec:
        return StudentSpec(layers=self.options.layers, width=self.options.width)

    @cached_property
    def teacher(self) -> StoredModel:
        """The teacher's folder, written here where its weights are random."""
        model = find_model(self.options.teacher)
        if self.options.shape is None:
            return model
        tokenizer = load_tokenizer(model.folder)
        export(
            random_teacher(*self.options.shape, 1 + max(tokenizer.get_vocab().values())),
            tokenizer,
            self.folder / "teacher",
            "# Random\n",
        )
        return StoredModel(f"random {'x'.join(map(str, self.options.shape))}", self.folder / "teacher")

    @cached_property
    def max_length(self) -> int:
        """Tokens of a sentence: what a study takes by default, or all that the teacher can."""
        return min(TrainSpec().max_length, load_encoder(self.teacher.folder).max_positions)

    @cached_property
    def student_folder(self) -> Path:
        """The untrained student, for whoever loads it from a folder."""
        teacher = load_encoder(self.teacher.folder)
        student = build_student(teacher, self.student_spec, SEED)
        export(student, load_tokenizer(self.teacher.folder), self.folder / "student", "# Untrained\n")
        return self.folder / "student"

    def first(self, count: int) -> Setting:
        """The same with fewer sentences, in a folder of its own."""
        return _filled(replace(self, folder=self.folder / f"first-{count}", sentences=self.sentences[:count]))


def random_teacher(layers: int, width: int, vocabulary: int) -> Encoder:
    """A BERT of some shape with random weights, mean-pooled, of unit length."""
    from transformers import BertConfig, BertModel

    if width % HEAD_WIDTH:
        raise UserError(f"--shape: the width {width} is no multiple of {HEAD_WIDTH}, the width of an attention head")
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_WIDTH,
        intermediate_size=4 * width,
    )
    with seeded(SEED):
        backbone = BertModel(config, add_pooling_layer=False).eval()
    return Encoder(backbone, pooling="mean", head=_normalize(), max_length=config.max_position_embeddings)


def _normalize() -> Any:
    from torch import nn

    return nn.Sequential(Normalize())


@contextmanager
def setting(options: RaceOptions, settings: Settings) -> Iterator[Setting]:
    """A setting in a temporary folder. Raises `UserError` where there are fewer sentences than asked for."""
    text = TextSpec(source=options.text or (MIRRORED_TEXT if settings.mirror else EMBEDDED))
    sentences = list(islice(distinct(read_sentences(text, settings.mirror)), options.sentences))
    if len(sentences) < options.sentences:
        raise UserError(f"--sentences {options.sentences}: there are only {len(sentences)}; ask for fewer")
    with TemporaryDirectory(prefix="distilbench-speed-") as folder:
        place = Path(folder)
        yield _filled(
            Setting(options, replace(settings, out=place / "results", cache=place / "cache"), place, sentences)
        )


def _filled(made: Setting) -> Setting:
    made.folder.mkdir(parents=True, exist_ok=True)
    (made.folder / "sentences.txt").write_text("\n".join(made.sentences) + "\n", encoding="utf-8")
    return made
