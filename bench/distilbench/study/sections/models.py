"""Which models a study has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distilbench.study.sections.section import PositiveInt, Section

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""By sentence-transformers' names."""


class VectorsSpec(Section):
    """A teacher of which only vectors are known: what an API returned, or `distilbench encode` wrote. Its study names
    another model as `student.model`."""

    vectors: str
    """A .parquet file or a folder of them, or a .npy file with a .jsonl file of the same name beside it."""
    text: str = "text"
    """Column with the texts."""
    vector: str = "vector"
    """Column with their vectors, lists of numbers. Of a .npy file, row n belongs to line n."""
    side: str | None = None
    """Column that says which side of a search each text is on; see `text.side`. Unset: vectors are found by their texts
    alone."""


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
