"""What a method makes of degenerate batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distilbench.conformance.fakes import map_tensors
from distilbench.conformance.kit import (
    BATCH_SIZE,
    Kit,
    Moment,
    NotConforming,
    batch_first,
    finite,
    is_refusal,
    leaves_of,
    said,
)
from distilbench_methods.base import Signals


def _degenerate(signals: Signals) -> dict[str, Signals]:
    """Batches that real text and untrained models give now and then."""

    def zeros(*sides: str) -> Callable[[str, Tensor], Tensor]:
        def spoil(name: str, tensor: Tensor) -> Tensor:
            ours = name.split("_")[0] in sides and not name.endswith("_attention") and tensor.is_floating_point()
            return torch.zeros_like(tensor) if ours else tensor

        return spoil

    def repeat(rows: int) -> Callable[[str, Tensor], Tensor]:
        def spoil(name: str, tensor: Tensor) -> Tensor:
            if name in ("index_B", "negative_index_BK") or not batch_first(name):
                return tensor
            return torch.cat([tensor[:1].expand(rows, *tensor.shape[1:]), tensor[rows:]])

        return spoil

    def one_zero_row(name: str, tensor: Tensor) -> Tensor:
        rows = torch.arange(len(tensor)).view(-1, *[1] * (tensor.dim() - 1))
        return torch.where(rows == 1, zeros(*student, "teacher")(name, tensor), tensor)

    student = ("student", "second", "candidates", "candidate", "masked", "embedding")
    return {
        "zero student vectors": map_tensors(signals, zeros(*student)),
        "zero teacher vectors": map_tensors(signals, zeros("teacher")),
        "zero vectors throughout": map_tensors(signals, zeros(*student, "teacher")),
        "one row of zero vectors": map_tensors(signals, one_zero_row),
        "a sentence that comes twice": map_tensors(signals, repeat(2)),
        "one sentence over and over": map_tensors(signals, repeat(BATCH_SIZE)),
    }


def degenerate_batches_stay_finite(kit: Kit) -> str | None:
    """Zero vectors and repeated sentences give finite losses, gradients and state, or one clear ValueError."""
    notes: dict[str, None] = {}
    for number in (0, -1):
        for what, signals in _degenerate(kit.signals(dtype=torch.float32)).items():
            if refusal := _survives(kit, what, signals, kit.moment(number, dtype=torch.float32)):
                notes[f"{what}: {refusal}"] = None
    return "; ".join(notes) or None


def batch_of_one_is_defined(kit: Kit) -> str | None:
    """A batch of one gives finite losses, gradients and state, or one clear ValueError."""
    notes: dict[str, None] = {}
    for moment in kit.moments(dtype=torch.float32):
        if refusal := _survives(kit, "a batch of one", kit.signals(size=1, dtype=torch.float32), moment):
            notes[f"refused: {refusal}"] = None
    return "; ".join(notes) or None


def _survives(kit: Kit, what: str, signals: Signals, moment: Moment) -> str:
    """The method's refusal, if it refuses; raises `NotConforming` where something is not finite."""
    try:
        terms = kit.terms(signals, moment)
        torch.stack(list(terms.values())).sum().backward()
        kit.after_step(signals, moment)
    except Exception as error:
        if is_refusal(error):
            return str(error)
        raise NotConforming(f"on {what} it fails with {said(error)}, which is no clear ValueError of its own") from None
    for name, value in terms.items():
        if not finite(value):
            raise NotConforming(f"on {what} the term {name} is {value.item()}")
    for name, leaf in leaves_of(signals, moment.aux).items():
        if leaf.grad is not None and not finite(leaf.grad):
            raise NotConforming(f"on {what} the gradient of {name} is not finite")
    for name, buffer in moment.aux.named_buffers():
        if not finite(buffer):
            raise NotConforming(f"on {what} after_step leaves {name} with values that are not finite")
    return ""
