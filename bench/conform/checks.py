"""What every method must do, one function per promise.

A check returns what is worth knowing (or None), and raises `NotConforming` or `NotApplicable` with a sentence. Its
docstring is the promise that the listing shows.
"""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from bench.catalogue import describe_method
from bench.conform.fakes import map_tensors, tensors_of
from bench.conform.kit import (
    BATCH_SIZE,
    DIFFERENT,
    DIMS,
    EQUAL,
    MASKED,
    Kit,
    Moment,
    NotApplicable,
    NotConforming,
    Recorded,
    batch_first,
    differing,
    far,
    finite,
    halves,
    held_constant,
    is_refusal,
    leaves_of,
    said,
    select,
    state_of,
)
from bench.encoder import num_parameters
from bench.export import export
from methods.base import Dims, Needs, Signals, UnsuitableError

Check = Callable[[Kit], "str | None"]

LONGEST_SUMMARY = 120
GIVEN = ("index_B", "mask_BT", "student_BS")
"""Signals that are there without being asked for."""
TOKEN_AXES = {"attention": (-2, -1), "attention_scores": (-2, -1), "hidden": (-2,), "qkv": (-2,)}
PADDED, JUNK = 3, 2.5
"""Positions that are added, and what stands at them."""
EXACT = 1e-9
"""Share by which float64 values may differ that are computed in another order."""


def describes_itself(kit: Kit) -> None:
    """It has a name, a summary line of at most 120 characters, a source, and a meaning for every hyperparameter."""
    if kit.method.name != kit.name:
        raise NotConforming(f"it is registered as {kit.name!r}, but its class calls itself {kit.method.name!r}")
    entry = describe_method(kit.name)
    if not entry.summary.endswith(".") or len(entry.summary) > LONGEST_SUMMARY:
        raise NotConforming(
            f"the first line of its module's docstring must be a sentence ending in a full stop, of at most "
            f"{LONGEST_SUMMARY} characters; it is {entry.summary!r}"
        )
    if not kit.method.source.strip():
        raise NotConforming("`source` is empty: name the paper and the equation")
    told = {item.name for item in entry.hyperparameters if item.meaning}
    if silent := [name for name in kit.hyperparameters if name not in told]:
        raise NotConforming(f"no docstring stands behind {', '.join(silent)} in the class that is registered")


def hyperparameters_survive(kit: Kit) -> None:
    """Its hyperparameters pass through JSON and pydantic into studies and records, and come back equal."""
    from pydantic import TypeAdapter

    parameters: Any = getattr(kit.kind, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise NotConforming("its class must be a frozen dataclass: hyperparameters never change")
    try:
        text = json.dumps(asdict(cast(Any, kit.method)))
        back = TypeAdapter(kit.kind).validate_json(text)
    except Exception as error:
        raise NotConforming(f"its hyperparameters do not pass through JSON: {said(error)}") from None
    if back != kit.method:
        raise NotConforming(f"its hyperparameters come back from JSON as {back}, not {kit.method}")


def suits_models(kit: Kit) -> str:
    """There are models that suit it, and what it asks for is the same whenever it is asked."""
    refusals = []
    for dims in DIMS:
        try:
            if kit.method.needs(dims) != kit.method.needs(dims):
                raise NotConforming("needs() gives another answer when it is asked again")
        except UnsuitableError as refusal:
            refusals.append(str(refusal))
            continue
        return "" if dims is DIFFERENT else f"tried with {dims.student}, {dims.teacher}: {refusals[0]}"
    raise NotConforming(f"none of the {len(DIMS)} pairs of models that were tried suits it; the last: {refusals[-1]}")


def counts_are_whole(kit: Kit) -> None:
    """Numbers of negatives and of frozen layers are whole and in range; what couples the batch is said in words."""
    for size in (1, BATCH_SIZE, 256):
        count = kit.method.negatives_per_step(size)
        if type(count) is not int or count < 0:
            raise NotConforming(f"negatives_per_step({size}) is {count!r}, not a whole number from 0 on")
    for moment in kit.moments():
        frozen = kit.method.frozen_layers(moment.aux)
        if type(frozen) is not int or not 0 <= frozen <= kit.dims.student.layers:
            raise NotConforming(
                f"frozen_layers is {frozen!r}, not a whole number from 0 to the student's {kit.dims.student.layers}"
            )
    if not isinstance(kit.method.coupled, str):
        raise NotConforming(f"coupled is {kit.method.coupled!r}, not text")


def starts_from_the_seed(kit: Kit) -> None:
    """Heads and state start from torch's seed alone: equal seeds give equal starts."""
    if names := differing(state_of(kit.aux(seed=5)), state_of(kit.aux(seed=5))):
        raise NotConforming(f"build_aux and fit give another {names[0]} under the same seed")


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


def gradients_are_slopes(kit: Kit) -> str | None:
    """Gradients are those of finite differences, for every student tensor and head."""
    note = None
    for moment in (kit.moment(0), kit.moment(-1)):
        wrong = _wrong_slope(kit, moment, hold=False)
        if wrong and not _wrong_slope(kit, moment, hold=True):
            note, wrong = "with what the loss detaches held constant", ""
        if wrong:
            raise NotConforming(wrong)
    return note


def _wrong_slope(kit: Kit, moment: Moment, *, hold: bool) -> str:
    """Which gradient is no slope of the loss, if any; with `hold`, what is detached stays as it was at the start."""
    signals, step, constants = kit.signals(), 1e-6, list[Tensor]()
    with held_constant(constants, record=True):
        value = kit.total(signals, moment)
    gradients, generator = kit.gradients(value, signals, moment.aux), torch.Generator().manual_seed(2)
    for name, leaf in leaves_of(signals, moment.aux).items():
        direction = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
        if name.startswith("student_attention."):
            direction = direction * (leaf.detach() > 1e-3)  # probabilities must stay positive
        values = []
        for sign in (1, -1):
            with torch.no_grad(), held_constant(constants if hold else [], record=not hold):
                leaf += sign * step * direction
                values.append(float(kit.total(signals, moment)))
                leaf -= sign * step * direction
        gradient = gradients[name]
        expected = 0.0 if gradient is None else float((gradient * direction).sum())
        slope = (values[0] - values[1]) / (2 * step)
        if not abs(slope - expected) <= 1e-4 * abs(expected) + 1e-7 * max(1.0, abs(value.item())):
            return f"along {name} the loss has the slope {slope:.6g}, but its gradient says {expected:.6g}"
    return ""


def _weights(kit: Kit) -> dict[str, float]:
    return {name: value for name, value in kit.hyperparameters.items() if name.endswith("_weight")}


def weight_zero_leaves_the_term_out(kit: Kit) -> str | None:
    """With `<term>_weight` 0 the term is gone, with its heads and signals, and all others stay as they are."""
    notes = []
    if not _weights(kit):
        raise NotApplicable("no hyperparameter ends in _weight")
    for weight, value in _weights(kit).items():
        term = weight.removesuffix("_weight")
        present = [term in kit.terms(kit.signals(), moment) for moment in kit.moments()]
        if value == 0:
            if any(present):
                raise NotConforming(f"{weight} is 0, but the loss has a term {term}")
            continue
        if not any(present):
            raise NotConforming(f"{weight} is {value}, but the loss has no term {term}: they must have the same name")
        try:
            without = kit.altered(**{weight: 0.0})
        except ValueError as refusal:
            notes.append(f"{weight}=0 is refused: {refusal}")
            continue
        _refuse_remains(kit, without, weight)
    return "; ".join(notes) or None


def _refuse_remains(kit: Kit, without: Kit, weight: str) -> None:
    """Compare the loss without a term, from its own signals and heads, with the rest of the whole loss."""
    term = weight.removesuffix("_weight")
    for check in (signals_are_declared, every_head_learns):
        try:
            check(without)
        except NotConforming as reason:
            raise NotConforming(f"with {weight}=0, {reason}") from None
        except NotApplicable:
            pass
    for moment in kit.moments():
        aux = without.aux()
        aux.load_state_dict(moment.aux.state_dict(), strict=False)
        signals, fewer, less = kit.signals(), without.signals(), Moment(aux, moment.progress)
        expected, found = kit.terms(signals, moment), without.terms(fewer, less)
        expected.pop(term, None)
        if expected.keys() != found.keys():
            raise NotConforming(f"with {weight}=0 the terms are {sorted(found)}, not {sorted(expected)}")
        for name, value in found.items():
            if far(value, expected[name], EXACT):
                raise NotConforming(f"with {weight}=0 the term {name} changes")
        rest = torch.stack(list(expected.values())).sum()
        whole = _by_layer(kit.needs(), kit.gradients(rest, signals, moment.aux))
        found_now = without.gradients(without.total(fewer, less), fewer, aux)
        for name, gradient in _by_layer(without.needs(), found_now).items():
            if name not in whole or far(gradient, whole[name], EXACT):
                raise NotConforming(f"with {weight}=0 the gradient of {name} is not that of the remaining terms")


def _by_layer(needs: Needs, gradients: dict[str, Tensor | None]) -> dict[str, Tensor]:
    """Gradients under the numbers of the layers they belong to: positions shift when other layers are asked for."""
    found: dict[str, Tensor] = {}
    for name, gradient in gradients.items():
        field, _, position = name.partition(".")
        if gradient is None:
            continue
        if field.endswith(("_layers_BLS", "_layers_BKLS")):
            found |= {
                f"{field} of layer {layer}": part
                for layer, part in zip(needs.student_layers, gradient.unbind(-2), strict=True)
            }
        elif position and field != "aux":
            found[f"{field} of layer {getattr(needs, field)[int(position)]}"] = gradient
        else:
            found[name] = gradient
    return found


def weights_are_factors(kit: Kit) -> str | None:
    """Half a `<term>_weight` gives half the term and leaves all others as they are."""
    notes = []
    if not _weights(kit):
        raise NotApplicable("no hyperparameter ends in _weight")
    for weight, value in _weights(kit).items():
        term = weight.removesuffix("_weight")
        try:
            whole = kit if value else kit.altered(**{weight: 1.0})
            half = kit.altered(**{weight: (value or 1.0) / 2})
        except ValueError as refusal:
            notes.append(f"other values of {weight} are refused: {refusal}")
            continue
        for moment in whole.moments():
            aux = half.aux()
            aux.load_state_dict(moment.aux.state_dict())
            expected = whole.terms(whole.signals(), moment)
            found = half.terms(half.signals(), Moment(aux, moment.progress))
            if term not in expected and moment.progress == 0 and not value:
                raise NotConforming(f"{weight} is 1, but the loss has no term {term}: they must have the same name")
            for name in expected:
                factor = 0.5 if name == term else 1.0
                if name not in found or far(found[name], factor * expected[name], EXACT):
                    raise NotConforming(f"at half the {weight}, the term {name} is not {factor} times what it was")
    return "; ".join(notes) or None


def state_survives_a_checkpoint(kit: Kit) -> None:
    """All state is in the state dict: saved, loaded into a fresh start, it goes on bit for bit as before."""
    moment = kit.moment(-1)
    file = io.BytesIO()
    torch.save(moment.aux.state_dict(), file)
    file.seek(0)
    again = kit.altered()
    resumed = Moment(again.aux(seed=9), moment.progress)
    resumed.aux.load_state_dict(torch.load(file, weights_only=True))
    for seed in (20, 21):
        signals = kit.signals(seed=seed)
        if kit.method.frozen_layers(moment.aux) != again.method.frozen_layers(resumed.aux):
            raise NotConforming("after a checkpoint frozen_layers is another: some state is not in the state dict")
        one, other = kit.terms(signals, moment), again.terms(signals, resumed)
        if names := differing(one, other):
            raise NotConforming(
                f"after a checkpoint the term {names[0]} is another: some state is not in the state dict"
            )
        kit.after_step(signals, moment)
        again.after_step(signals, resumed)
        if names := differing(state_of(moment.aux), state_of(resumed.aux)):
            raise NotConforming(
                f"after a checkpoint after_step gives another {names[0]}: some state is not in the state dict"
            )


def single_precision_agrees(kit: Kit) -> None:
    """In float32 every term is a float32 that agrees with float64."""
    for moment in kit.moments():
        wide = kit.signals()
        narrow = map_tensors(wide, lambda _, tensor: tensor.float() if tensor.is_floating_point() else tensor)
        expected = kit.terms(wide, moment)
        for name, value in kit.terms(narrow, Moment(moment.aux.float(), moment.progress)).items():
            if value.dtype != torch.float32:
                raise NotConforming(f"from float32 the term {name} comes out as {value.dtype}")
            if far(value, expected[name], 1e-4):
                raise NotConforming(
                    f"the term {name} is {value.item():.7g} in float32, {expected[name].item():.7g} in float64"
                )


def half_precision_agrees(kit: Kit) -> None:
    """Under bfloat16 autocast loss and gradients stay near those of float32, and the loss itself is a float32."""
    for moment in kit.moments(dtype=torch.float32):
        rounded = map_tensors(kit.signals(dtype=torch.float32), lambda _, tensor: _rounded(tensor))
        expected = kit.total(rounded, moment)
        slopes = _flat(kit.gradients(expected, rounded, moment.aux))
        # What autocast leaves in float32 (after a norm), and what a linear layer gives in bfloat16.
        for signals in (rounded, map_tensors(rounded, _narrowed)):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = kit.total(signals, moment)
            if found.dtype != torch.float32:
                raise NotConforming(f"under autocast the loss comes out as {found.dtype}; it must be a float32")
            if far(found, expected, 0.05):
                raise NotConforming(f"under autocast the loss is {found.item():.4g}, in float32 {expected.item():.4g}")
            gradient = _flat(kit.gradients(found, signals, moment.aux))
            if not float((gradient - slopes).norm()) <= 0.3 * float(slopes.norm()) + 1e-6:
                raise NotConforming("under autocast the gradient is far from that of float32")
            with torch.autocast("cpu", dtype=torch.bfloat16):
                kit.after_step(signals, Moment(copy.deepcopy(moment.aux), moment.progress))


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.bfloat16().to(tensor.dtype) if tensor.is_floating_point() else tensor


def _narrowed(name: str, tensor: Tensor) -> Tensor:
    """Student outputs in bfloat16; softmaxes, word embeddings and what comes from the store stay as they are."""
    ours = name.startswith(("student", "second", "candidate", "masked_PS")) and not name.endswith("_attention")
    return tensor.bfloat16() if ours else tensor


def _flat(gradients: dict[str, Tensor | None]) -> Tensor:
    return torch.cat([gradient.float().flatten() for gradient in gradients.values() if gradient is not None])


def accumulation_is_as_declared(kit: Kit) -> str:
    """Where `coupled` is empty, two half batches give the whole batch's loss and gradients; elsewhere they do not."""
    apart = [name for moment in kit.moments() if (name := _apart(kit, moment))]
    if not kit.method.coupled:
        if apart:
            raise NotConforming(
                f"`coupled` is empty, but two half batches give another {apart[0]} than the whole: say what ties the "
                "rows of a batch together, or take the mean over rows"
            )
        return "rows are independent: gradients may be accumulated"
    if not apart:
        raise NotConforming(
            f"it says that {kit.method.coupled!r}, but two half batches give exactly what the whole batch gives"
        )
    return f"coupled: {kit.method.coupled}"


def _apart(kit: Kit, moment: Moment) -> str:
    """What of the whole batch is not the mean of its halves, if anything."""
    signals = kit.signals()
    value = kit.total(signals, moment)
    whole = kit.gradients(value, signals, moment.aux)
    parts = []
    for half in halves(signals):
        try:
            part = kit.total(half, moment)
        except Exception as error:
            if is_refusal(error):
                return f"loss (half a batch is refused: {error})"
            raise
        parts.append((part, kit.gradients(part, half, moment.aux)))
    (one, first), (other, second) = parts
    if far(value, (one + other) / 2, EXACT):
        return "loss"
    for name, gradient in whole.items():
        left, right = first[name], second[name]
        if gradient is None or left is None or right is None:
            continue
        field = name.split(".")[0]
        by_row = field != "aux" and (batch_first(field) or field in MASKED)
        if far(gradient, torch.cat([left, right]) / 2 if by_row else (left + right) / 2, EXACT):
            return f"gradient of {name}"
    return ""


def export_reproduces_the_vector(kit: Kit) -> None:
    """The exported student gives, bit for bit, the vector that the loss saw through the head that ships."""
    from bench.conform.tiny import reloaded, tiny_student

    aux = kit.moment(-1, dtype=torch.float32).aux
    head = kit.method.exported_head(aux)
    if head is None:
        raise NotApplicable("it ships no head: the student is exported as it is")
    ours = {id(parameter) for parameter in aux.parameters()}
    if any(id(parameter) not in ours for parameter in head.parameters()):
        raise NotConforming("exported_head gives parameters that are not in aux, so they are never trained")
    with tiny_student(kit.dims) as (student, tokenizer, folder):
        expected = head(student.vectors())
        student.put_behind(head)
        try:
            export(student.encoder, tokenizer, folder, "# A student\n")
        except TypeError as error:
            raise NotConforming(f"its head cannot be exported: {error}") from None
        found, stored = reloaded(folder, student)
    if not torch.equal(found, expected):
        raise NotConforming("the exported student gives other vectors than the head that the loss was taken through")
    if stored != num_parameters(student.encoder):
        raise NotConforming(
            f"the exported folder holds {stored} numbers for {num_parameters(student.encoder)} parameters"
        )


def parameters_are_charged(kit: Kit) -> str:
    """All that it trains beside the student is in `aux`, where the ledger counts it and the optimiser finds it."""
    for moment in kit.moments():
        signals = kit.signals()
        known = {id(tensor) for tensor in leaves_of(signals, moment.aux).values()}
        root = kit.total(signals, moment).grad_fn
        stray = [leaf for leaf in _leaves_behind(root) if id(leaf) not in known]
        if stray:
            raise NotConforming(
                f"the loss trains a tensor of shape {list(stray[0].shape)} that is not a parameter in aux"
            )
    return f"{num_parameters(kit.aux()):,} extra parameters"


def _leaves_behind(root: Any) -> list[Tensor]:
    """The tensors that a graph accumulates gradients in."""
    found, seen, waiting = [], set(), [root]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting.extend(following for following, _ in node.next_functions)
    return found


def flops_are_those_measured(kit: Kit) -> str:
    """`extra_flops` is what torch's counter measures, where all widths differ and where all agree."""
    measured = 0.0
    for dims, size in ((kit.dims, BATCH_SIZE + 1), (EQUAL, BATCH_SIZE)):
        try:
            kit.needs(dims)
        except UnsuitableError:
            continue
        declared = kit.method.extra_flops(dims, size, 4)
        for at in (0, -1):
            moment = kit.moment(at, dtype=torch.float32, dims=dims)
            signals = kit.signals(size=size, dtype=torch.float32, dims=dims)
            with FlopCounterMode(display=False) as counter:
                kit.total(signals, moment).backward()
                # The counter's hooks do not bear modules that are called without gradient on what carries one.
                kit.after_step(_without_gradient(signals), moment)
            measured = float(counter.get_total_flops())
            if abs(declared - measured) > 1e-6 * measured:
                raise NotConforming(
                    f"extra_flops says {declared:,.0f} for a batch of {size} on {_words(dims)}; "
                    f"measured are {measured:,.0f}"
                )
    return f"{measured:,.0f} extra FLOPs in a small step"


def _without_gradient(signals: Signals) -> Signals:
    detached = map_tensors(signals, lambda _, tensor: tensor)
    for tensor in tensors_of(detached).values():
        tensor.requires_grad_(False)
    return detached


def _words(dims: Dims) -> str:
    student, teacher = dims.student, dims.teacher
    return f"widths {student.width}, {teacher.width} (shipped {dims.student_final}, {dims.teacher_final})"


def never_waits_for_the_device(kit: Kit) -> None:
    """Loss, backward, `after_step` and diagnostics never read a value of a tensor on the host."""
    real = kit.signals(dtype=torch.float32)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:  # has no values: reading one on the host raises

        def without_values(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(without_values, value))
            return value if value is None else mode.from_tensor(value)

        signals = Signals(**{field: without_values(getattr(real, field)) for field in Signals.__dataclass_fields__})
        moment = Moment(kit.method.build_aux(kit.dims), 0.5)
        try:
            kit.total(signals, moment).backward()
            kit.after_step(signals, moment)
            kit.diagnostics(signals, moment)
        except Exception as error:
            raise NotConforming(
                "it asks a tensor for its value, or takes a size from its values (.item(), float(), `if tensor`, a "
                f"boolean mask that selects), or works on a tensor made elsewhere: {said(error)[:300]}"
            ) from None


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


CHECKS: dict[str, Check] = {
    "describes-itself": describes_itself,
    "hyperparameters": hyperparameters_survive,
    "suits-models": suits_models,
    "counts": counts_are_whole,
    "seeded-start": starts_from_the_seed,
    "terms": terms_are_finite_scalars,
    "gradients": gradients_reach_the_student,
    "heads": every_head_learns,
    "signals": signals_are_declared,
    "pure-loss": loss_is_pure,
    "after-step": after_step_changes_buffers_only,
    "diagnostics": diagnostics_are_finite_scalars,
    "batch-order": order_does_not_matter,
    "padding": padding_does_not_matter,
    "finite-differences": gradients_are_slopes,
    "weight-zero": weight_zero_leaves_the_term_out,
    "weight-factor": weights_are_factors,
    "checkpoint": state_survives_a_checkpoint,
    "float32": single_precision_agrees,
    "bfloat16": half_precision_agrees,
    "accumulation": accumulation_is_as_declared,
    "export": export_reproduces_the_vector,
    "parameters": parameters_are_charged,
    "flops": flops_are_those_measured,
    "no-waiting": never_waits_for_the_device,
    "degenerate": degenerate_batches_stay_finite,
    "batch-of-one": batch_of_one_is_defined,
}
"""Every check under the name that the listing shows, in the order in which they run."""
