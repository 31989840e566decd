"""What a method ships and costs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from distilbench.conformance.fakes import map_tensors, tensors_of
from distilbench.conformance.kit import BATCH_SIZE, EQUAL, Kit, Moment, NotApplicable, NotConforming, leaves_of, said
from distilbench.models.encoder import num_parameters
from distilbench.models.export import export
from distilbench_methods.base import Dims, Signals, UnsuitableError


def export_reproduces_the_vector(kit: Kit) -> None:
    """The exported student gives, bit for bit, the vector that the loss saw through the head that ships."""
    from distilbench.conformance.tiny import reloaded, tiny_student

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
    student, teacher = dims.student, dims.teacher_model
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
