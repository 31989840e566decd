"""Training steps on a GPU that is not there, for which a process of its own is needed: it tells torch of a device.

    python -m tests.training.fake_gpu TEACHER TEXT LABELLED mse/whole "mse/in parts"    # what is wrong with steps

Torch's fake tensors know devices and shapes, and hold no numbers. What mixes devices fails as on a real GPU, and so
does what needs a number, for which the processor would wait. Copies for which it would wait are noted.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import distilbench_methods
from distilbench.study.budget import Ledger
from distilbench.training import signals
from distilbench.training.dev.response import Response
from distilbench.training.job import TrainingJob
from distilbench.training.loop import _Loop
from distilbench.training.optimizer import make_optimizer
from distilbench.training.signals import SignalSource
from distilbench_methods.base import Method, Signals
from distilbench_methods.mse import MSE
from tests.conftest import SMALL, inputs_of, job_of

# As CUDA is none of a torch that was built without it, not even for fakes.
NAME = "gpu"
FAKES = FakeTensorMode(allow_non_fake_inputs=True)
PARTS = {"whole": None, "in parts": 6}


class Copies(TorchDispatchMode):
    """Notes where tensors go from one device to another other than by `signals.sent`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [value.device.type for value in args if isinstance(value, Tensor) and value.dim()]
        into = [out.device.type] if isinstance(out, Tensor) else []
        if str(func).startswith(("aten._to_copy", "aten.copy_")) and len({*given, *into}) > 1:
            ours = [frame for frame in traceback.extract_stack() if "/distilbench" in frame.filename][-1]
            self.found.append(f"waits for a copy: {Path(ours.filename).name}: {ours.line}")
        return out


def moved(module: nn.Module) -> None:
    """Put a module's tensors on the GPU."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(there(parameter), requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = there(buffer)


def there(tensor: Tensor, device: torch.device | None = None) -> Tensor:
    """A tensor of this shape on the GPU."""
    with FAKES:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=f"{NAME}:0")


class Source(SignalSource):
    """Reads tokens where they are numbers."""

    def batch(self, step: int, rows_B: Any) -> signals.Batch:
        with unset_fake_temporarily():
            return super().batch(step, rows_B)


def faults(job: TrainingJob) -> list[str]:
    """What is wrong with a step of a training, its teacher's stored signals aside."""
    loop = _Loop(job, Ledger(), Response(), None)
    loop._fill_store()
    # The store's stays on the CPU, for the next method.
    teacher = copy.deepcopy(job.teacher)
    # Whether their attention can be looked at is asked once, and takes numbers.
    assert job.student.can_give_maps and teacher is not None and teacher.can_give_maps
    with FAKES:
        for model in (job.student, teacher, loop.aux):
            moved(model)
        loop.source = Source(loop.needs, job.student, teacher, job.text, job.store, job.seed)
        loop.parameters = [*job.student.parameters(), *loop.aux.parameters()]
        loop.optimizer = make_optimizer(loop.parameters, job.spec)
        job.student.train()
        copies = Copies()
        try:
            with copies:
                batch, terms, norm = loop._update(0.5)
                diagnostics = job.method.diagnostics(batch, loop.aux)
        except Exception as error:
            ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/distilbench" in frame.filename][
                -1
            ]
            return [f"{type(error).__name__}: {Path(ours.filename).name}: {ours.line}: {str(error)[:200]}"]
        states = [value for kept in loop.optimizer.state.values() for value in kept.values()]
        made = [*terms.values(), *diagnostics.values(), norm, *loop.parameters, *states, *loop.aux.buffers()]
        elsewhere = {tensor.device.type for tensor in made if isinstance(tensor, Tensor)} - {NAME}
        return copies.found + [f"something is on {device}" for device in elsewhere]


class Waiting(MSE):
    """Asks for a number."""

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        return {name: term * float(term > 0) for name, term in super().loss(signals, aux, progress).items()}


class Mixing(MSE):
    """Has a tensor on the CPU."""

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        return {name: (term * torch.ones(2)).sum() for name, term in super().loss(signals, aux, progress).items()}


class Copying(MSE):
    """Brings its terms to the CPU."""

    def after_step(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> None:
        signals.student_BS.cpu()


PLANTED: dict[str, type[Method]] = {"waiting": Waiting, "mixing": Mixing, "copying": Copying}


def method_of(name: str) -> Method:
    """A method or variant with settings that fit small models, or one with a planted fault."""
    if name in PLANTED:
        return PLANTED[name]()
    method, settings = distilbench_methods.VARIANTS.get(name, (name, {}))
    return distilbench_methods.load(method)(**{**SMALL.get(method, {}), **settings})


def main() -> None:
    _setup_privateuseone_for_python_backend(NAME)
    # Asked for by whoever switches autocast off.
    torch.get_device_module(NAME).get_amp_supported_dtype = lambda: [torch.bfloat16]
    # A driver pins memory, and there is none.
    signals.sent = there
    teacher, text, labelled = map(Path, sys.argv[1:4])
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = inputs_of(teacher, text, labelled, Path(folder))
        for case in sys.argv[4:]:
            name, _, how = case.partition("/")
            job = job_of(inputs, method_of(name))
            found[case] = faults(
                replace(job, spec=job.spec.model_copy(update={"micro_batch": PARTS[how], "precision": "fp32"}))
            )
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
