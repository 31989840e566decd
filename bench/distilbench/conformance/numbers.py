"""What a method computes: slopes, weights, precision, and whether small batches add up to a large one."""

from __future__ import annotations

import copy
import io

import torch
from torch import Tensor

from distilbench.conformance.behaviour import every_head_learns, signals_are_declared
from distilbench.conformance.fakes import map_tensors
from distilbench.conformance.kit import (
    EXACT,
    MASKED,
    Kit,
    Moment,
    NotApplicable,
    NotConforming,
    batch_first,
    differing,
    far,
    halves,
    held_constant,
    is_refusal,
    leaves_of,
    state_of,
)
from distilbench_methods.base import Needs


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
        whole = _by_place(kit.needs(), kit.gradients(rest, signals, moment.aux))
        found_now = without.gradients(without.total(fewer, less), fewer, aux)
        for name, gradient in _by_place(without.needs(), found_now).items():
            if name not in whole or far(gradient, whole[name], EXACT):
                raise NotConforming(f"with {weight}=0 the gradient of {name} is not that of the remaining terms")


def _by_place(needs: Needs, gradients: dict[str, Tensor | None]) -> dict[str, Tensor]:
    """Gradients under the layers and candidates they belong to: where these lie depends on what else is asked for."""
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
        elif field == "candidates_BKS":
            found |= {f"{field} at position {place}": part for place, part in enumerate(gradient.unbind(1))}
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
