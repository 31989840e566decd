"""Imitate the teacher layer by layer: its attention probabilities and its pooled hidden states.

Source: Aguilar et al. 2020, arXiv:1910.03723, adapted to sentence encoders: all layers at once, or in stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn

from distilbench_methods.base import (
    Dims,
    Method,
    Needs,
    Signals,
    State,
    UnsuitableError,
    check_not_negative,
    check_one_of,
    check_positive,
    evenly_spaced,
)
from distilbench_methods.functional import cosine_distance, in_full_precision, projection, projection_flops
from distilbench_methods.pooling import LayerPooling
from distilbench_methods.space import Choice, Space, Span, space

HeadReduction = Literal["mean", "sum"]
Procedure = Literal["id", "pid", "sid"]
Heads = Literal["match", "average"]

SMALLEST_PROBABILITY = 1e-12
"""Keeps the logarithm finite where the student gives no attention to what the teacher looks at."""
LOOKS_PER_STAGE = 10
"""So often at least is a layer's average distance looked at during a stage's even share of the budget."""


@in_full_precision
def attention_divergence(
    student_BATT: Tensor, teacher_BATT: Tensor, mask_BT: Tensor, head_reduction: HeadReduction = "mean"
) -> Tensor:
    """KL(teacher || student) of attention rows, a scalar: mean over real query rows, then over sentences.

    mean_i red_a (1/T_i) sum_{r real} sum_c P^t_{iarc} log( P^t_{iarc} / P^s_{iarc} ), red the mean or sum over heads.
    Padded keys have probability 0 on both sides and add nothing.
    """
    log_student_BATT = student_BATT.clamp_min(SMALLEST_PROBABILITY).log()
    row_BAT = (torch.xlogy(teacher_BATT, teacher_BATT) - teacher_BATT * log_student_BATT).sum(-1)
    row_BT = row_BAT.mean(1) if head_reduction == "mean" else row_BAT.sum(1)
    mask_BT = mask_BT.to(row_BT.dtype)
    return ((row_BT * mask_BT).sum(1) / mask_BT.sum(1)).mean()


def hidden_distances(student_BLH: Tensor, teacher_BLH: Tensor) -> Tensor:
    """mean_i (1 - cos(s_il, t_il)) of each layer, [L]."""
    return cosine_distance(student_BLH, teacher_BLH).mean(0)


def active_layers(stage: Tensor, num_layers: int, procedure: Procedure) -> Tensor:
    """1 for the layers that a stage trains, 0 for the others, [L]; stages count from 1 to L + 1, the last has none.

    `id`: all layers in every stage; `pid`: the stage's own layer; `sid`: the layers up to the stage's.
    """
    layer_L = torch.arange(1, num_layers + 1, device=stage.device)
    if procedure == "id":
        return torch.ones_like(layer_L)
    active_L = layer_L == stage if procedure == "pid" else (layer_L <= stage) & (stage <= num_layers)
    return active_L.to(layer_L.dtype)


def next_stage(stage: Tensor, mean_distance: Tensor, epochs: Tensor, threshold: float, cap: float) -> Tensor:
    """The stage after this check: one further once its layer is close enough, or after `cap` epochs in it.

    `mean_distance` is the average cosine distance of the stage's layer since the last check.
    """
    return stage + ((mean_distance < threshold) | (epochs >= cap)).to(stage.dtype)


def stage_by_budget(progress: float, num_layers: int) -> int:
    """The stage that is due when the stages 1 to L + 1 share the budget evenly."""
    return min(num_layers, int(progress * (num_layers + 1))) + 1


@dataclass(frozen=True, kw_only=True)
class InternalKD(Method):
    """Distillation of internal representations, all layers at once or in stages."""

    name: ClassVar[str] = "internal-kd"
    source: ClassVar[str] = (
        "Aguilar et al. 2020, arXiv:1910.03723: the sum over student layers of a KL divergence between attention "
        "probabilities and a cosine distance between hidden states, each layer against the evenly spaced one of the "
        "teacher; all layers at once, or in progressive (pid) or stacked (sid) stages and then the output alone. The "
        "authors compare the first token's state and distil class probabilities; here the mean-pooled state and a "
        "cosine term to the teacher's final vector take their place. Their stages end after some epochs; where a "
        "budget is far below an epoch per layer, the stages here share it evenly. Where widths differ, one trainable "
        "linear map per layer, and one for the final vector, is added and dropped at export."
    )
    unverified: ClassVar[str] = (
        "The paper has no released code and only its abstract and introduction were at hand: equations, layer mapping "
        "unit weights, and the rule by which stages advance are from memory; thresholds, epochs per layer and whether "
        "lower layers are frozen were not found. The mean over heads and the weight of the final term are our "
        "choices."
    )
    search_space: ClassVar[Space] = space(
        attention_weight=Span(0.1, 10.0, log=True),
        hidden_weight=Span(0.1, 10.0, log=True),
        final_weight=Span(0.1, 10.0, log=True),
        head_reduction=Choice("mean", "sum"),
    )

    attention_weight: float = 1.0
    """Weight of the attention term; 0 switches it off, which frees the choice of heads and tokeniser."""
    hidden_weight: float = 1.0
    """Weight of the hidden-state term."""
    final_weight: float = 1.0
    """Weight of the cosine term that ties the shipped vector to the teacher's."""
    head_reduction: HeadReduction = "mean"
    """How the divergences of a layer's heads are put together."""
    heads: Heads = "match"
    """`match` compares head by head and refuses models with different numbers of them; `average` compares the mean
    attention of all heads."""
    state: LayerPooling = "mean"
    """Which state of a layer is compared: the `mean` over tokens, or the first token's (`cls`)."""
    procedure: Procedure = "id"
    """`id` all layers at once; `pid` one layer after the other; `sid` one more layer after the other. The last stage
    of the latter two trains the final term alone."""
    epochs_per_layer: float | None = None
    """Epochs of the text after which a stage ends; unset: the stages share the budget evenly."""
    cosine_threshold: float = 0.05
    """A stage also ends when its layer's average cosine distance falls below this."""
    window: int = 100_000
    """Sentences over which that average is taken before it is looked at; at most an epoch, and at most a tenth of a
    stage's even share of the budget, so that a short one is looked at too."""
    final_in_all_stages: bool = False
    """Keep the final term on in every stage."""
    freeze_below: bool = False
    """In stages, leave the embeddings and the layers below the stage's own as they are."""

    def __post_init__(self) -> None:
        check_not_negative(
            attention_weight=self.attention_weight, hidden_weight=self.hidden_weight, final_weight=self.final_weight
        )
        check_one_of(get_args(HeadReduction), head_reduction=self.head_reduction)
        check_one_of(get_args(Heads), heads=self.heads)
        check_one_of(get_args(LayerPooling), state=self.state)
        check_one_of(get_args(Procedure), procedure=self.procedure)
        check_positive(window=self.window)
        check_not_negative(cosine_threshold=self.cosine_threshold)
        if self.epochs_per_layer is not None:
            check_positive(epochs_per_layer=self.epochs_per_layer)
        if self.procedure != "id" and not (self.hidden_weight and self.final_weight):
            raise ValueError(
                f"procedure {self.procedure} advances by the hidden term and ends with the final one: set neither "
                "hidden_weight nor final_weight to 0"
            )
        if self.attention_weight == self.hidden_weight == self.final_weight == 0:
            raise ValueError("attention_weight, hidden_weight and final_weight are all 0: nothing would be trained")

    def needs(self, dims: Dims) -> Needs:
        self._check_fit(dims)
        student_layers = tuple(range(1, dims.student.layers + 1))
        teacher_layers = evenly_spaced(dims.student.layers, dims.teacher_model.layers)
        return Needs(
            teacher_final=self.final_weight > 0,
            teacher_layers=teacher_layers if self.hidden_weight else (),
            student_layers=student_layers if self.hidden_weight else (),
            teacher_attention=teacher_layers if self.attention_weight else (),
            student_attention=student_layers if self.attention_weight else (),
            layer_pooling=self.state,
        )

    def _check_fit(self, dims: Dims) -> None:
        student, teacher = dims.student, dims.teacher_model
        if student.layers > teacher.layers:
            raise UnsuitableError(
                f"internal-kd matches each student layer to one of the teacher's, but the student has {student.layers} "
                f"layers and the teacher {teacher.layers}; choose a student that is no deeper"
            )
        if self.attention_weight and self.heads == "match" and student.heads != teacher.heads:
            raise UnsuitableError(
                f"internal-kd compares attention head by head, but the student has {student.heads} heads and the "
                f"teacher {teacher.heads}; set heads to average, or attention_weight to 0"
            )
        if self.attention_weight and not dims.shared_tokens:
            raise UnsuitableError(
                "internal-kd compares attention token by token, but student and teacher cut sentences into different "
                "tokens; set attention_weight to 0 or choose a student with the teacher's tokeniser"
            )

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        aux = nn.ModuleDict()
        if self.hidden_weight:
            heads = [projection(dims.student.width, dims.teacher_model.width) for _ in range(dims.student.layers)]
            aux["hidden"] = nn.ModuleList(heads)
        if self.final_weight:
            aux["final"] = projection(dims.student_final, dims.teacher_final)
        if self.procedure != "id":
            aux["stages"] = Stages(dims.student.layers, dims.num_sentences)
        return aux

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        terms = {}
        active_L, final_active = self._active(aux, progress)
        if self.attention_weight:
            pairs = zip(signals.student_attention, signals.teacher_attention, strict=True)
            layers = [
                attention_divergence(self._heads(one), self._heads(other), signals.mask_BT, self.head_reduction)
                for one, other in pairs
            ]
            terms["attention"] = self.attention_weight * _weighted(torch.stack(layers), active_L)
        if self.hidden_weight:
            terms["hidden"] = self.hidden_weight * _weighted(self._hidden(signals, aux), active_L)
        if self.final_weight:
            distance_B = cosine_distance(aux["final"](signals.student_BS), signals.teacher_final_BD)
            terms["final"] = self.final_weight * distance_B.mean()
            if final_active is not None:
                terms["final"] = terms["final"] * final_active
        return terms

    def _heads(self, map_BATT: Tensor) -> Tensor:
        return map_BATT.mean(1, keepdim=True) if self.heads == "average" else map_BATT

    def _hidden(self, signals: Signals, aux: nn.ModuleDict) -> Tensor:
        states = zip(aux["hidden"].children(), signals.student_layers_BLS.unbind(1), strict=True)
        student_BLH = torch.stack([head(state_BS) for head, state_BS in states], dim=1)
        return hidden_distances(student_BLH, signals.teacher_layers_BLH)

    def _active(self, aux: nn.ModuleDict, progress: float) -> tuple[Tensor | None, Tensor | None]:
        """0 or 1 for each layer and for the final term; None where there are no stages."""
        if self.procedure == "id":
            return None, None
        stages = cast(Stages, aux["stages"])
        stage = stages.due(progress, self.epochs_per_layer)
        active_L = active_layers(stage, stages.num_layers, self.procedure)
        final = torch.ones_like(stage) if self.final_in_all_stages else (stage > stages.num_layers).to(stage.dtype)
        return active_L, final

    def after_step(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> None:
        if self.procedure == "id":
            return
        cap = float("inf") if self.epochs_per_layer is None else self.epochs_per_layer
        stages = cast(Stages, aux["stages"])
        stages.see(
            stages.due(progress, self.epochs_per_layer),
            self._hidden(signals, aux),
            len(signals.index_B),
            self.window,
            self.cosine_threshold,
            cap,
            progress,
        )

    def frozen_layers(self, aux: nn.ModuleDict) -> int:
        if self.procedure == "id" or not self.freeze_below:
            return 0
        stages = cast(Stages, aux["stages"])
        # The last stage trains everything: it has no layer of its own.
        stage = int(stages["stage"])
        return stage - 1 if 1 < stage <= stages.num_layers else 0

    def diagnostics(self, signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor]:
        return {} if self.procedure == "id" else {"layer_stage": cast(Stages, aux["stages"])["stage"].float()}

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        width, layers = dims.student.width, dims.student.layers
        hidden = layers * projection_flops(batch_size, width, dims.teacher_model.width) if self.hidden_weight else 0.0
        # In stages, `after_step` projects once more, without gradient.
        hidden *= 4 / 3 if self.procedure != "id" else 1
        final = projection_flops(batch_size, dims.student_final, dims.teacher_final) if self.final_weight else 0.0
        return hidden + final


class Stages(State):
    """Where a staged procedure stands, and what it has seen since its last check."""

    def __init__(self, num_layers: int, num_sentences: int) -> None:
        super().__init__(
            stage=torch.ones((), dtype=torch.int64),
            seen=torch.zeros((), dtype=torch.int64),
            seen_since_check=torch.zeros((), dtype=torch.int64),
            distance_sum=torch.zeros(()),
            checked_at=torch.zeros((), dtype=torch.float64),
        )
        self.num_layers, self.num_sentences = num_layers, num_sentences

    def due(self, progress: float, epochs_per_layer: float | None) -> Tensor:
        """The stage to train: the one reached, or a later one where the stages share the budget."""
        if epochs_per_layer is not None:
            return self["stage"]
        return self["stage"].clamp_min(stage_by_budget(progress, self.num_layers))

    def see(
        self,
        stage: Tensor,
        distance_L: Tensor,
        batch_size: int,
        window: int,
        threshold: float,
        cap: float,
        progress: float = 0.0,
    ) -> None:
        """Take note of a batch that this stage was trained on, and advance where the rule says so."""
        # In the last stage there is no layer to look at and nowhere to go.
        own = (distance_L * active_layers(stage, self.num_layers, "pid")).sum()
        fresh = stage > self["stage"]
        seen = torch.where(fresh, 0, self["seen"]) + batch_size
        since = torch.where(fresh, 0, self["seen_since_check"]) + batch_size
        total = torch.where(fresh, 0.0, self["distance_sum"]) + own * batch_size
        checked_at = torch.where(fresh, progress, self["checked_at"])
        due = progress - checked_at >= 1 / (LOOKS_PER_STAGE * (self.num_layers + 1))
        check = due | (since >= min(window, self.num_sentences)) | (seen >= cap * self.num_sentences)
        reached = next_stage(stage, total / since, seen / self.num_sentences, threshold, cap)
        after = torch.where(check, reached, stage).clamp_max(self.num_layers + 1)
        # Before the copy below: `stage` may be the buffer itself.
        moved = after > stage
        self["stage"].copy_(after)
        self["seen"].copy_(torch.where(moved, 0, seen))
        self["seen_since_check"].copy_(torch.where(check, 0, since))
        self["distance_sum"].copy_(torch.where(check, 0.0, total))
        self["checked_at"].copy_(torch.where(check, progress, checked_at))


def _weighted(value_L: Tensor, active_L: Tensor | None) -> Tensor:
    return value_L.sum() if active_L is None else (value_L * active_L).sum()
