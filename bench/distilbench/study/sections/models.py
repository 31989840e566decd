"""Which models a study has."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distilbench.study.sections.section import PositiveInt, Section
from distilbench_methods.pooling import LayerPooling


class StudentSpec(Section):
    """The small model, made from the teacher."""

    layers: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)]
    """How many of the teacher's layers to keep, evenly spaced up to the last, or which ones (from 1)."""
    width: PositiveInt | None = None
    """Hidden size. Unset: the teacher's, and its layers are copied. Smaller: its embedding table is projected on its
    leading singular vectors and the layers start at random."""
    pooling: LayerPooling = "mean"
    """How token states become one vector: `mean` is their mean, `cls` the state of the first token."""
    dropout: Annotated[float, Field(ge=0, le=0.9)] | None = None
    """Dropout probability of its layers in training. Unset: the teacher's own."""


class StaticSpec(Section):
    """A row for a static student (model2vec): token vectors from the teacher, not trained."""

    width: PositiveInt = 256
    """Width of its vectors; where the teacher's is smaller, that."""
    smoothing: Annotated[float, Field(gt=0)] = 1e-4
    """a of the weight a / (a + p) of a token with frequency p: the smaller, the less frequent tokens count."""
