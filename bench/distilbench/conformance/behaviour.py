"""What a method does with a batch: its terms, gradients, signals, state, and what must not matter to them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilbench.conformance.fakes import map_tensors, tensors_of
from distilbench.conformance.kit import (
    EXACT,
    Kit,
    Moment,
    NotApplicable,
    NotConforming,
    Recorded,
    batch_first,
    differing,
    far,
    finite,
    select,
    state_of,
)
from distilbench_methods.base import Signals

GIVEN = ("index_B", "mask_BT", "student_BS")
"""Signals that are there without being asked for."""
TOKEN_AXES = {"attention": (-2, -1), "attention_scores": (-2, -1), "hidden": (-2,), "qkv": (-2,)}
PADDED, JUNK = 3, 2.5
"""Positions that are added, and what stands at them."""


def terms_are_finite_scalars(kit: Kit) -> None:
    """The loss is a dict of finite scalars that carry gradient."""
    for moment in kit.moments():
        terms = kit.terms(kit.signals(), moment)
        if not terms:
            raise NotConforming(f"the loss has no terms at progress {moment.progress}")
        for name, value in terms.items():
            if value.shape != ():
                raise NotConforming(f"the term {name} has the shape {list(value.shape)}; it must be a scalar")
            if not finite(value):
                raise NotConforming(f"the term {name} is {value.item()} on random vectors")
            if not value.requires_grad:
                raise NotConforming(f"the term {name} carries no gradient")


def gradients_reach_the_student(kit: Kit) -> None:
    """Finite gradients reach the student at every moment, and never a tensor of the teacher or a buffer."""
    for moment in kit.moments():
        signals = kit.signals()
        kit.total(signals, moment).backward()
        tensors = tensors_of(signals)
        reached = {name: tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}
        for name, gradient in reached.items():
            if not finite(gradient):
                raise NotConforming(f"the gradient of {name} is not finite")
        constants = {name: tensor for name, tensor in tensors.items() if name.startswith("teacher")}
        constants |= dict(moment.aux.named_buffers())
        if learnt := [name for name, tensor in constants.items() if tensor.requires_grad or tensor.grad is not None]:
            raise NotConforming(f"{learnt[0]} is given a gradient, but it belongs to no one who learns")
        if not any(gradient.any() for gradient in reached.values()):
            raise NotConforming(f"no gradient reaches the student at progress {moment.progress}")


def every_head_learns(kit: Kit) -> None:
    """Every trained part of its heads gets a finite gradient at some moment."""
    seen: dict[str, bool] = {}
    for moment in kit.moments():
        signals = kit.signals()
        found = kit.gradients(kit.total(signals, moment), signals, moment.aux)
        for name, module in moment.aux.named_modules():
            own = [(key, found[f"aux.{name}.{key}"]) for key, _ in module.named_parameters(recurse=False)]
            for key, gradient in own:
                if gradient is not None and not finite(gradient):
                    raise NotConforming(f"the gradient of {name}.{key} in aux is not finite")
                seen[f"{name}.{key}"] = seen.get(f"{name}.{key}", False) or gradient is not None
            if own:
                learns = any(gradient is not None and bool(gradient.any()) for _, gradient in own)
                seen[name] = seen.get(name, False) or learns
    if not seen:
        raise NotApplicable("it has no heads that are trained")
    if idle := [name for name, learns in seen.items() if not learns]:
        raise NotConforming(f"{idle[0]} in aux gets no gradient: it would be charged to the method and never learn")


def signals_are_declared(kit: Kit) -> None:
    """It reads only signals that `needs` declares, and all that it declares change what it does."""
    _refuse_undeclared_reads(kit)
    signals, other = kit.signals(), kit.signals(seed=1)
    unused = dict(_variations(signals, other))
    for moment in kit.moments():
        seen = _effects(kit, signals, moment)
        unused = {name: varied for name, varied in unused.items() if not differing(seen, _effects(kit, varied, moment))}
    if unused:
        raise NotConforming(
            f"it asks for {next(iter(unused))}, but neither loss nor after_step nor diagnostics depends on it: the "
            "budget would pay for nothing"
        )
    if kit.needs().fit_rows and not differing(state_of(kit.aux(fitted=False)), state_of(kit.aux())):
        raise NotConforming("it asks for fit_rows, but fit changes nothing")


def _refuse_undeclared_reads(kit: Kit) -> None:
    signals = kit.signals()
    declared = {field for field in Signals.__dataclass_fields__ if getattr(signals, field) is not None}
    for moment in kit.moments():
        for what in (kit.terms, kit.after_step, kit.diagnostics):
            recorded = Recorded.of(signals)
            try:
                what(recorded, moment)
            # What is None because it was not asked for fails in many ways.
            except Exception:
                if strange := [field for field in recorded.fields_read if field not in declared]:
                    raise NotConforming(f"it reads {strange[-1]}, which needs() does not ask for") from None
                raise


def _variations(signals: Signals, other: Signals) -> Iterable[tuple[str, Signals]]:
    """The batch with one thing that was asked for replaced by another batch's, for each of them; layer by layer."""
    for field in Signals.__dataclass_fields__:
        value, changed = getattr(signals, field), getattr(other, field)
        if value is None or field in GIVEN:
            continue
        if isinstance(value, tuple):
            for at in range(len(value)):
                varied = (*value[:at], changed[at], *value[at + 1 :])
                yield f"{field} at position {at}", replace(signals, **cast(Any, {field: varied}))
        elif "layers" in field:
            axis = value.dim() - 2
            for at in range(value.shape[axis]):
                place = torch.tensor([at])
                varied = value.detach().index_copy(axis, place, changed.detach().index_select(axis, place))
                yield (
                    f"{field} at position {at}",
                    replace(signals, **{field: varied.requires_grad_(value.requires_grad)}),
                )
        else:
            yield field, replace(signals, **{field: changed})


def _effects(kit: Kit, signals: Signals, moment: Moment) -> dict[str, Tensor]:
    """All that a batch changes: loss, diagnostics, state after the step."""
    found = {f"loss {name}": value.detach() for name, value in kit.terms(signals, moment).items()}
    found |= {f"diagnostics {name}": value for name, value in kit.diagnostics(signals, moment).items()}
    before = state_of(moment.aux)
    kit.after_step(signals, moment)
    found |= {f"state {name}": value for name, value in state_of(moment.aux).items()}
    _restore(moment.aux, before)
    return found


def _restore(aux: nn.ModuleDict, state: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in [*aux.named_parameters(), *aux.named_buffers()]:
            value.copy_(state[name])


def loss_is_pure(kit: Kit) -> None:
    """Loss and diagnostics give the same when asked again, draw no random numbers and change nothing."""
    for moment in kit.moments():
        for what, ask in (("loss", kit.terms), ("diagnostics", kit.diagnostics)):
            signals = kit.signals()
            before = _surroundings(signals, moment)
            first = {name: value.detach().clone() for name, value in ask(signals, moment).items()}
            _refuse_changes(what, before, _surroundings(signals, moment))
            if names := differing(first, {name: value.detach() for name, value in ask(signals, moment).items()}):
                raise NotConforming(f"{what} gives another {names[0]} when asked again with the same arguments")


def after_step_changes_buffers_only(kit: Kit) -> None:
    """`after_step` changes buffers and nothing else, leaves them finite, and draws no random numbers."""
    for moment in kit.moments():
        signals = kit.signals()
        before = _surroundings(signals, moment)
        kit.after_step(signals, moment)
        buffers = dict(moment.aux.named_buffers())
        ours = {name: value for name, value in before.items() if name.removeprefix("aux.") not in buffers}
        after = _surroundings(signals, moment)
        if new := [name for name in after if name not in before]:
            raise NotConforming(f"after_step adds {new[0]}: build_aux must make all there is")
        _refuse_changes("after_step", ours, {name: after[name] for name in ours if name in after})
        for name, buffer in buffers.items():
            if not finite(buffer) or buffer.requires_grad:
                raise NotConforming(f"after_step leaves {name} with a gradient, or with values that are not finite")


def _surroundings(signals: Signals, moment: Moment) -> dict[str, Tensor]:
    """Copies of all that a method might change: batch, heads, state, and torch's, Python's and numpy's generators."""
    found = {f"signals.{name}": tensor.detach().clone() for name, tensor in tensors_of(signals).items()}
    found |= {f"aux.{name}": tensor for name, tensor in state_of(moment.aux).items()}
    numpy_state = cast("tuple[str, Any, int, int, float]", np.random.get_state())
    return found | {
        "torch's random generator": torch.get_rng_state().clone(),
        "Python's random generator": torch.tensor(list(random.getstate()[1])),
        "numpy's random generator": torch.tensor([*map(int, numpy_state[1]), *map(int, numpy_state[2:4])]),
    }


def _refuse_changes(what: str, before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    if names := differing(before, after):
        raise NotConforming(f"{what} changes {names[0]}")


def diagnostics_are_finite_scalars(kit: Kit) -> None:
    """Diagnostics are finite scalars, under names of their own."""
    found: dict[str, Tensor] = {}
    for moment in kit.moments():
        found = kit.diagnostics(kit.signals(), moment)
        for name, value in found.items():
            if value.shape != () or not finite(value):
                raise NotConforming(f"the diagnostic {name} is {value.tolist()}, not a finite scalar")
    taken = {"step", "sentences", "tokens", "flops", "seconds", "progress", "lr", "grad_norm", "loss", "stage"}
    if clash := sorted(taken & found.keys()):
        raise NotConforming(f"the diagnostic {clash[0]} has the name of a column that the curve has already")
    if not found:
        raise NotApplicable("it has no diagnostics")


def order_does_not_matter(kit: Kit) -> None:
    """The order of the rows in a batch changes neither loss nor gradients."""
    order = torch.tensor([3, 0, 5, 4, 1, 2])
    for moment in kit.moments():
        signals = kit.signals()
        shuffled = select(signals, order)
        _refuse_difference(kit, moment, signals, shuffled, "when the rows of the batch come in another order")
        one = kit.gradients(kit.total(signals, moment), signals, moment.aux)
        other = kit.gradients(kit.total(shuffled, moment), shuffled, moment.aux)
        for name, gradient in one.items():
            if gradient is None or other[name] is None:
                continue
            is_row = not name.startswith("aux.") and batch_first(name.split(".")[0])
            if far(gradient[order] if is_row else gradient, cast(Tensor, other[name]), EXACT):
                raise NotConforming(f"the gradient of {name} changes when the rows of the batch come in another order")


def padding_does_not_matter(kit: Kit) -> None:
    """More padded positions, and other values at padded positions, do not change the loss."""
    for moment in kit.moments():
        signals = kit.signals()
        _refuse_difference(kit, moment, signals, _padded(signals), "with what stands at padded positions")


def _padded(signals: Signals) -> Signals:
    """Three more padded positions, with values at all padded positions that should never be looked at."""
    mask_BT = F.pad(signals.mask_BT, (0, PADDED))

    def pad(name: str, tensor: Tensor) -> Tensor:
        side, _, kind = name.partition("_")
        if name == "mask_BT":
            return mask_BT
        if kind not in TOKEN_AXES or side not in ("student", "teacher"):
            return tensor
        # No one attends to a padded position: probabilities stay 0 there.
        axes = (-2,) if kind == "attention" else TOKEN_AXES[kind]
        wider = F.pad(tensor, (0, PADDED, 0, PADDED) if len(TOKEN_AXES[kind]) == 2 else (0, 0, 0, PADDED))
        for axis in axes:
            shape = [len(mask_BT), *[1] * (wider.dim() - 1)]
            shape[axis] = mask_BT.shape[1]
            wider = wider.masked_fill(mask_BT.view(shape) == 0, 0.2 if kind == "attention" else JUNK)
        return wider

    return map_tensors(signals, pad)


def _refuse_difference(kit: Kit, moment: Moment, one: Signals, other: Signals, when: str) -> None:
    expected, found = kit.terms(one, moment), kit.terms(other, moment)
    for name, value in expected.items():
        if name not in found or far(value, found[name], EXACT):
            raise NotConforming(f"the term {name} changes {when}: {value.item():.9g}, then {found[name].item():.9g}")
