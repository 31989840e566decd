"""What the teacher gives online, batch by batch, because it is too large to be stored."""

from __future__ import annotations

import torch
from torch import Tensor

from distilbench.models.encoder import Encoder
from distilbench_methods.base import Needs

Layers = dict[str, tuple[int, ...]]
"""Kind of signal -> the layers of which it is asked for."""
Online = dict[str, tuple[Tensor, ...]]
"""Kind of signal -> one tensor for each of these layers."""

KINDS = ("attention", "attention_scores", "hidden", "qkv")


def online_layers(needs: Needs) -> Layers:
    """What a method asks of a teacher that runs on every batch."""
    found = {kind: getattr(needs, f"teacher_{kind}") for kind in KINDS}
    return {kind: layers for kind, layers in found.items() if layers}


def all_layers(needs: list[Needs]) -> Layers:
    """What one pass has to give for several methods."""
    wanted = [online_layers(one) for one in needs]
    found = {kind: {layer for layers in wanted for layer in layers.get(kind, ())} for kind in KINDS}
    return {kind: tuple(sorted(layers)) for kind, layers in found.items() if layers}


def chosen(found: Online, given: Layers, layers: Layers) -> Online:
    """Some of what a pass gave that was asked for `given`."""
    return {kind: tuple(found[kind][given[kind].index(layer)] for layer in wanted) for kind, wanted in layers.items()}


def pass_online(teacher: Encoder, ids_BT: Tensor, mask_BT: Tensor, layers: Layers) -> Online:
    """One pass of the teacher, without gradient."""
    teacher.use_attention_maps(True)
    with torch.no_grad():
        out = teacher(ids_BT, mask_BT, **layers)
    teacher.use_attention_maps(False)
    # Methods compute in float32, whatever the teacher does.
    return {kind: tuple(tensor.float() for tensor in getattr(out, kind)) for kind in layers}


class Company:
    """Who trains side by side with a training, and shares the teacher's passes with it: here nobody."""

    @property
    def count(self) -> int:
        """Trainings that are not finished."""
        return 1

    def turn(self, step: int) -> None:
        """Come to a step: return when no other training is behind it."""

    def teacher_pass(self, teacher: Encoder, ids_BT: Tensor, mask_BT: Tensor, layers: Layers, batch: bytes) -> Online:
        """What `pass_online` gives, from another training's pass if that was over the same batch.

        `batch` names it: the same name, the same tokens.
        """
        return pass_online(teacher, ids_BT, mask_BT, layers)

    def take_spared_seconds(self) -> float:
        """Seconds of passes that others made for the training at hand, since it last asked."""
        return 0.0


ALONE = Company()
