"""The contract between a method and the bench.

A method says what is compared and never how: it does not see the optimiser, the learning rate, the data order, the
clock or the evaluator.

Shape suffixes used in this package: B sentences of a batch, T tokens (padded), A attention heads, L requested layers,
S student width, D width of the teacher's final vector, H teacher width (hidden), K negatives, N sentences of the text.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from torch import Tensor, nn

NOT_ASKED = cast(Tensor, None)
"""Value of a signal that `Needs` did not declare: reading one fails, which the conformance tests provoke."""

LayerPooling = Literal["mean", "cls"]


class UnsuitableError(ValueError):
    """The method cannot run on this pair of models; the message says why and what to change."""


@dataclass(frozen=True, kw_only=True)
class ModelDims:
    """Shape of one transformer encoder."""

    width: int
    """Hidden size."""
    layers: int
    """Transformer blocks; pooled layer 0 is the embedding block, layer `layers` the last block."""
    heads: int
    """Attention heads per block."""


@dataclass(frozen=True, kw_only=True)
class Dims:
    """All that a method may know of the models and the text before training."""

    student: ModelDims
    teacher: ModelDims
    teacher_final: int
    """Width D of the vector that the teacher ships (after its own heads, if it has any)."""
    num_sentences: int
    """Rows N of the text: `Signals.index_B` lies in [0, N)."""
    shared_tokens: bool
    """Both models cut every sentence into the same tokens, so that token positions can be compared."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What the bench computes, and charges to the budget, before each loss call."""

    teacher_final: bool = False
    """`teacher_final_BD`: the teacher's shipped vectors, read from the store."""
    teacher_layers: tuple[int, ...] = ()
    """`teacher_layers_BLH`: pooled hidden states of these layers (0 = embedding block), read from the store."""
    teacher_attention: tuple[int, ...] = ()
    """`teacher_attention`: attention probabilities of these layers (1-based); the teacher then runs online."""
    student_layers: tuple[int, ...] = ()
    """`student_layers_BLS`: pooled hidden states of these student layers (0 = embedding block)."""
    student_attention: tuple[int, ...] = ()
    """`student_attention`: attention probabilities of these layers (1-based), before attention dropout."""
    student_views: Literal[1, 2] = 1
    """2: the batch passes the student a second time under another dropout mask; the budget pays for both."""
    negatives: int = 0
    """K of `negative_index_BK`: rows drawn uniformly from the text, never the anchor's own row."""
    layer_pooling: LayerPooling = "mean"
    """How pooled layers are made from token states."""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """One batch, holding only what `Needs` asked for. Teacher fields carry no gradient."""

    index_B: Tensor
    """Row of each sentence in the text, int64, stable over epochs."""
    mask_BT: Tensor
    """1 for real tokens (special tokens included), 0 for padding."""
    student_BS: Tensor
    """The vector that ships: pooled last layer, with gradient."""
    second_view_BS: Tensor = NOT_ASKED
    student_layers_BLS: Tensor = NOT_ASKED
    student_attention: tuple[Tensor, ...] = cast("tuple[Tensor, ...]", None)
    """One tensor of shape [B, A, T, T] per requested layer."""
    teacher_final_BD: Tensor = NOT_ASKED
    teacher_layers_BLH: Tensor = NOT_ASKED
    teacher_attention: tuple[Tensor, ...] = cast("tuple[Tensor, ...]", None)
    negative_index_BK: Tensor = NOT_ASKED


class Method(ABC):
    """Base of all methods. Subclasses are frozen dataclasses: their fields are the hyperparameters.

    Each field is followed by a docstring, which `distilbench methods NAME` shows. Invalid values raise `ValueError`
    in `__post_init__`.
    """

    name: ClassVar[str]
    """Key in the registry and row label in reports."""
    source: ClassVar[str]
    """Paper and equation, and where this implementation had to choose."""
    unverified: ClassVar[str] = ""
    """What of the source could not be checked against its text or code."""

    @abstractmethod
    def needs(self, dims: Dims) -> Needs:
        """Declare the signals that `loss` reads. Raises `UnsuitableError` where the models do not fit the method."""

    @abstractmethod
    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        """Weighted scalar terms; the trainer minimises their sum and logs each.

        Pure: no state changes, no random numbers, equal values for equal arguments.
        `progress` in [0, 1) is the share of the budget spent.
        """

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        """Heads trained with the student, and buffers that hold the method's state. Never exported by itself."""
        return nn.ModuleDict()

    def after_step(self, signals: Signals, aux: nn.ModuleDict) -> None:  # noqa: B027
        """Update buffers in `aux`, the only place where state changes. Called without gradient."""

    def exported_head(self, aux: nn.ModuleDict) -> nn.Module | None:
        """The part of `aux` that ships behind the student's pooling, if any."""
        return None

    def diagnostics(self, signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor]:
        """Scalars worth a column in the curve, computed without gradient on logged steps only."""
        return {}

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        """Floating-point operations of one step beyond the encoders' passes, forward and backward.

        A multiply-add counts 2. Matrix products only, as torch's FLOP counter counts. `num_tokens` is the padded
        length T of the batch.
        """
        return 0.0


class State(nn.Module):
    """A named bundle of buffers: what a method remembers between steps (banks, queues, counters)."""

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def __getitem__(self, name: str) -> Tensor:
        return self.get_buffer(name)


def matmul_flops(rows: int, inner: int, columns: int, *, gradients: int = 2) -> float:
    """FLOPs of a [rows, inner] @ [inner, columns] product and the backward pass to `gradients` of its operands."""
    return 2.0 * rows * inner * columns * (1 + gradients)


def evenly_spaced(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """Teacher layer matched to each student layer 1..L_s: g(l) = round(l L_t / L_s), the last with the last."""
    return tuple(round(layer * teacher_layers / student_layers) for layer in range(1, student_layers + 1))


def check_positive(**values: float) -> None:
    """Raise `ValueError` naming the first value that is not a positive, finite number."""
    for name, value in values.items():
        _check_finite(name, value)
        if value <= 0:
            raise ValueError(f"{name} must be positive, got {value}")


def _check_finite(name: str, value: float) -> None:
    if not -math.inf < value < math.inf:
        raise ValueError(f"{name} must be finite, got {value}")


def check_not_negative(**values: float) -> None:
    """Raise `ValueError` naming the first value below zero, infinite or NaN."""
    for name, value in values.items():
        _check_finite(name, value)
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")


def check_one_of(options: tuple[str, ...], **values: str) -> None:
    """Raise `ValueError` naming the first value that is not among `options`."""
    for name, value in values.items():
        if value not in options:
            raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")
