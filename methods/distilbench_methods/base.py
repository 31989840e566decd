"""The contract between a method and the bench.

A method says what is compared and never how: it does not see the optimiser, the learning rate, the data order, the
clock or the evaluator.

Shape suffixes used in this package: B rows of a batch, T tokens (padded), A attention heads, L requested layers,
S student width, D width of the teacher's final vector, H teacher width (hidden), K negatives or candidates of each row,
M rows drawn for the whole batch, P masked tokens of the batch, V vocabulary, N sentences of the text.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from torch import Tensor, nn

from distilbench_methods.pooling import LayerPooling
from distilbench_methods.space import Space, space

NOT_ASKED = cast(Tensor, None)
"""Value of a signal that `Needs` did not declare: reading one fails, which the conformance tests provoke."""


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
    teacher: ModelDims | None
    """None of a teacher of which only the vectors are known; see `teacher_model`."""
    student_final: int
    """Width S of the vector that the student ships so far: its hidden size, unless an earlier stage gave it a head."""
    teacher_final: int
    """Width D of the vector that the teacher ships (after its own heads, if it has any)."""
    vocabulary: int
    """Tokens V of the student's embedding table."""
    num_sentences: int
    """Rows N of the text: `Signals.index_B` lies in [0, N)."""
    shared_tokens: bool
    """Both models cut every sentence into the same tokens, so that token positions can be compared."""

    @property
    def teacher_model(self) -> ModelDims:
        """Shape of the teacher, for methods that use what is inside it.

        Raises `UnsuitableError` for a teacher of which only the vectors are known.
        """
        if self.teacher is None:
            raise UnsuitableError("it learns from what is inside the teacher, of which only the vectors are known")
        return self.teacher


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What the bench computes, and charges to the budget, before each loss call."""

    teacher_final: bool = False
    """`teacher_final_BD`: the teacher's shipped vectors, read from the store."""
    teacher_layers: tuple[int, ...] = ()
    """`teacher_layers_BLH`: pooled hidden states of these layers (0 = embedding block), read from the store."""
    teacher_rows: int = 0
    """M of `teacher_rows_MD`: the teacher's vectors of sentences drawn from outside the batch, from the store."""
    teacher_scores: bool = False
    """`teacher_scores_BK`: how well the teacher thinks that each candidate fits its anchor; needs `candidates`."""
    teacher_candidates: int = 0
    """K of `teacher_candidates_BKD`: the teacher's vectors of each anchor's first candidates, from the store; at most
    `candidates`."""
    teacher_attention: tuple[int, ...] = ()
    """`teacher_attention`: attention probabilities of these layers (1-based); the teacher then runs online."""
    teacher_attention_scores: tuple[int, ...] = ()
    """`teacher_attention_scores`: what the softmax makes the probabilities from, likewise online."""
    teacher_hidden: tuple[int, ...] = ()
    """`teacher_hidden`: token states of these layers (0 = embedding block), likewise online."""
    teacher_qkv: tuple[int, ...] = ()
    """`teacher_qkv`: queries, keys and values of these layers (1-based), likewise online."""
    student_layers: tuple[int, ...] = ()
    """`student_layers_BLS`: pooled hidden states of these student layers (0 = embedding block)."""
    student_attention: tuple[int, ...] = ()
    """`student_attention`: attention probabilities of these layers (1-based), before attention dropout."""
    student_attention_scores: tuple[int, ...] = ()
    """`student_attention_scores`: what the softmax makes the probabilities from."""
    student_hidden: tuple[int, ...] = ()
    """`student_hidden`: token states of these layers (0 = embedding block)."""
    student_qkv: tuple[int, ...] = ()
    """`student_qkv`: queries, keys and values of these layers (1-based)."""
    student_views: Literal[1, 2] = 1
    """2: the batch passes the student a second time under another dropout mask; the budget pays for both."""
    masked_tokens: bool = False
    """`masked_PS`, `masked_target_P` and `embedding_VS`: a copy of the batch with masked tokens passes the student."""
    candidates: int = 0
    """K of `candidates_BKS`: texts that come with each anchor, the one that fits it first; 0 for plain sentences.

    With candidates, `student_layers` also fills `candidate_layers_BKLS`; views, masks, token states and an online
    teacher cannot be asked for, and all other fields are those of the anchors."""
    negatives: int = 0
    """K of `negative_index_BK`: rows drawn uniformly from the text, never the anchor's own row, and each at most once
    where the text has more than K."""
    teacher_negatives: bool = False
    """`teacher_negatives_BKD`: the teacher's vectors of the drawn negatives, from the store; needs `negatives`."""
    fit_rows: int = 0
    """Teacher vectors that `Method.fit` is given before the first step, fewer where the text has fewer."""
    layer_pooling: LayerPooling = "mean"
    """How pooled layers are made from token states."""

    def __post_init__(self) -> None:
        online = self.teacher_online or self.student_attention or self.student_attention_scores
        tokens = online or self.student_hidden or self.student_qkv
        if self.candidates and (tokens or self.masked_tokens or self.student_views == 2):
            raise ValueError("views, masks, token states and an online teacher cannot be had together with candidates")
        if self.teacher_scores and not self.candidates:
            raise ValueError("teacher_scores are scores of candidates: ask for candidates too")
        if self.teacher_candidates > self.candidates:
            raise ValueError("teacher_candidates are vectors of candidates: ask for as many candidates too")
        if self.teacher_negatives and not self.negatives:
            raise ValueError("teacher_negatives are vectors of drawn negatives: ask for negatives too")

    @property
    def teacher_online(self) -> bool:
        """Whether the teacher has to run on every batch, because what is asked for is too large to be stored."""
        return bool(self.teacher_attention or self.teacher_attention_scores or self.teacher_hidden or self.teacher_qkv)

    @property
    def batch_kind(self) -> str:
        """`single`, `pair`, `triple` or `listwise`: how many texts a row of the batch has."""
        return ("single", "pair", "triple")[self.candidates] if self.candidates < 3 else "listwise"


NO_MAPS = cast("tuple[Tensor, ...]", None)


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
    candidates_BKS: Tensor = NOT_ASKED
    candidate_layers_BKLS: Tensor = NOT_ASKED
    student_attention: tuple[Tensor, ...] = NO_MAPS
    """One tensor of shape [B, A, T, T] per requested layer."""
    student_attention_scores: tuple[Tensor, ...] = NO_MAPS
    """One tensor of shape [B, A, T, T] per requested layer: q.k / sqrt(d), padding not yet masked."""
    student_hidden: tuple[Tensor, ...] = NO_MAPS
    """One tensor of shape [B, T, S] per requested layer."""
    student_qkv: tuple[Tensor, ...] = NO_MAPS
    """One tensor of shape [B, 3, T, S] per requested layer: queries, keys, values, their heads side by side."""
    masked_PS: Tensor = NOT_ASKED
    """Last hidden states of the masked copy at the masked tokens, with gradient."""
    masked_target_P: Tensor = NOT_ASKED
    """The tokens that were masked, int64."""
    embedding_VS: Tensor = NOT_ASKED
    """The student's word embeddings themselves, with gradient."""
    teacher_final_BD: Tensor = NOT_ASKED
    teacher_layers_BLH: Tensor = NOT_ASKED
    teacher_rows_MD: Tensor = NOT_ASKED
    teacher_scores_BK: Tensor = NOT_ASKED
    teacher_candidates_BKD: Tensor = NOT_ASKED
    teacher_attention: tuple[Tensor, ...] = NO_MAPS
    """Like the student's, as are the next three; widths and heads are the teacher's."""
    teacher_attention_scores: tuple[Tensor, ...] = NO_MAPS
    teacher_hidden: tuple[Tensor, ...] = NO_MAPS
    teacher_qkv: tuple[Tensor, ...] = NO_MAPS
    negative_index_BK: Tensor = NOT_ASKED
    teacher_negatives_BKD: Tensor = NOT_ASKED


MASKED_SHARE = 0.15
"""Share of tokens that masked language modelling hides: Devlin et al. 2019, section 3.1."""


def num_masked(batch_size: int, num_tokens: int) -> int:
    """Masked tokens P of a padded [B, T] batch; a fixed number, so that every step costs the same."""
    return max(1, round(MASKED_SHARE * batch_size * num_tokens))


LinearStart = Literal["torch", "normal"]
"""`torch`: torch's default for linear layers. `normal`: weights from N(0, 0.02), no bias at first, as BERT's layers."""


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
    search_space: ClassVar[Space] = space()
    """Hyperparameters that `tune` may set, and to what; the defaults lie within. A learning rate is tuned besides."""
    released_head_start: ClassVar[LinearStart] = "torch"
    """How the linear layers of the heads start in the released code, for studies with `train.head_start: released`."""

    @property
    def coupled(self) -> str:
        """What ties the rows of a batch together, in a few words.

        Empty: the loss is a mean over rows, so that the gradients of small batches add up to those of a large one.
        """
        return ""

    def negatives_per_step(self, batch_size: int) -> int:
        """Negatives that each anchor of a batch is compared with, for methods that contrast."""
        return 0

    @abstractmethod
    def needs(self, dims: Dims) -> Needs:
        """Declare the signals that `loss` reads. Raises `UnsuitableError` where the models do not fit the method."""

    def check_scores(self, scores_RK: Tensor) -> None:  # noqa: B027
        """Look at all that `teacher_scores_BK` will be of a text with scores of its own, before anything is trained.

        Raises `UnsuitableError` where the student's scores cannot come near them.
        """

    @abstractmethod
    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        """Weighted scalar terms; the trainer minimises their sum and logs each.

        Pure: no state changes, no random numbers, equal values for equal arguments.
        `progress` in [0, 1) is the share of the budget spent.
        """

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        """Heads trained with the student, and buffers that hold the method's state. Never exported by itself.

        The bench starts the linear layers of all methods by one rule, the study's `train.head_start`.
        """
        return nn.ModuleDict()

    def fit(self, aux: nn.ModuleDict, teacher_RD: Tensor) -> None:  # noqa: B027
        """Set buffers in `aux` from the teacher's vectors of R sentences, once, before the first step."""

    def after_step(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> None:  # noqa: B027
        """Update buffers in `aux`, the only place where state changes. Called without gradient.

        `signals` and `progress` are those of the step's loss; the weights have moved since.
        """

    def frozen_layers(self, aux: nn.ModuleDict) -> int:
        """How many of the student's lowest blocks, embeddings included, the next step leaves alone; 0: none at all."""
        return 0

    def exported_head(self, aux: nn.ModuleDict) -> nn.Module | None:
        """The part of `aux` that ships behind the student's pooling, if any."""
        return None

    def diagnostics(self, signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor]:
        """Scalars worth a column in the curve, computed without gradient on logged steps only."""
        return {}

    def fit_flops(self, dims: Dims, num_rows: int) -> float:
        """Floating-point operations of `fit` on so many vectors; matrix products only."""
        return 0.0

    def parts(self) -> tuple[Method, ...]:
        """Other methods that this one is made of: an edit of their code makes this one another method too."""
        return ()

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
