"""What the checks work with: a method, a pair of models that it suits, fake batches and states at several moments."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

import distilbench_methods
from distilbench.conformance.fakes import Maker, make_dims, map_tensors, tensors_of
from distilbench_methods.base import Dims, Method, Needs, Signals, UnsuitableError

BATCH_SIZE, NUM_TOKENS = 6, 4
"""An even number, so that the batch has two halves."""
MOMENTS = (0.0, 0.3, 0.6, 0.9)
"""Shares of the budget at which a method is looked at; what it does may change during the training."""
FIT_ROWS = 40
EXACT = 1e-9
"""Share by which float64 values may differ that are computed in another order."""
DIFFERENT = make_dims(student_final=7)
EQUAL = make_dims((24, 2, 2), (24, 4, 2), 24)
DIMS = (
    DIFFERENT,
    make_dims((24, 2, 4), (36, 4, 4), 30, student_final=20),
    make_dims((96, 2, 4), (144, 4, 4), 136, student_final=72),
    EQUAL,
    make_dims((24, 4, 2), (24, 4, 2), 24),
)
"""Pairs of models, the most telling first: where all widths differ, a wrong one shows."""
MASKED = ("masked_PS", "masked_target_P")


class NotConforming(Exception):
    """The method breaks its contract; the message says how, and what to change where that is known."""


class NotApplicable(Exception):
    """The check has nothing to look at in this method; the message says why."""


@dataclass(frozen=True)
class Moment:
    """A method's heads and state, and the share of the budget that is spent."""

    aux: nn.ModuleDict
    progress: float


class Kit:
    """One method with its settings, and all that is needed to try it."""

    def __init__(self, method: str | type[Method], settings: dict[str, Any] | None = None) -> None:
        """`method`: a registered name, or a class, registered or not.

        Raises `KeyError` for an unknown name, `ValueError` where the method cannot be loaded or made.
        """
        self.kind = distilbench_methods.load(method) if isinstance(method, str) else method
        self.name = method if isinstance(method, str) else method.name
        self.settings = dict(settings or {})
        self.method = self._made(self.settings)
        self._lives: dict[tuple[torch.dtype, Dims], list[Moment]] = {}

    def _made(self, settings: dict[str, Any]) -> Method:
        try:
            return self.kind(**settings)
        except TypeError as error:
            raise ValueError(
                f"the method {self.name} cannot be made with {settings or 'its defaults'}: {error}"
            ) from None

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """All of them, defaults included."""
        return {field.name: getattr(self.method, field.name) for field in fields(cast(Any, self.method))}

    @cached_property
    def dims(self) -> Dims:
        """The first pair of models that suits the method."""
        for dims in DIMS:
            try:
                self.method.needs(dims)
            except UnsuitableError:
                continue
            return dims
        raise NotApplicable("none of the kit's pairs of models suits the method")

    def needs(self, dims: Dims | None = None) -> Needs:
        """What the method asks for."""
        return self.method.needs(dims or self.dims)

    def altered(self, **settings: Any) -> Kit:
        """The same method anew, with some settings changed and on the same models. Raises `ValueError` like it."""
        kit = Kit(self.kind, self.settings | settings)
        kit.name = self.name
        kit.__dict__["dims"] = self.dims
        return kit

    def signals(
        self, *, seed: int = 0, size: int = BATCH_SIZE, dtype: torch.dtype = torch.float64, dims: Dims | None = None
    ) -> Signals:
        """A batch of exactly what the method asks for; equal for equal seeds."""
        dims = dims or self.dims
        return Maker(dims, size, NUM_TOKENS, dtype, seed).signals(self.needs(dims))

    def aux(
        self, *, seed: int = 1, dtype: torch.dtype = torch.float64, dims: Dims | None = None, fitted: bool = True
    ) -> nn.ModuleDict:
        """Heads and state as they are before the first step."""
        dims = dims or self.dims
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            aux = self.method.build_aux(dims).to(dtype)
        if fitted and (rows := min(self.needs(dims).fit_rows, FIT_ROWS)):
            generator = torch.Generator().manual_seed(3)
            with torch.no_grad():
                self.method.fit(aux, torch.randn(rows, dims.teacher_final, generator=generator, dtype=dtype))
        return aux

    def moments(self, *, dtype: torch.dtype = torch.float64, dims: Dims | None = None) -> list[Moment]:
        """The start of a training and later moments of it, between which `after_step` has seen other batches."""
        return [self.moment(at, dtype=dtype, dims=dims) for at in range(len(MOMENTS))]

    def moment(self, at: int, *, dtype: torch.dtype = torch.float64, dims: Dims | None = None) -> Moment:
        """One of these moments; a copy, which may be changed."""
        dims = dims or self.dims
        if (dtype, dims) not in self._lives:
            self._lives[dtype, dims] = self._life(dtype, dims)
        moment = self._lives[dtype, dims][at]
        return Moment(copy.deepcopy(moment.aux), moment.progress)

    def _life(self, dtype: torch.dtype, dims: Dims) -> list[Moment]:
        aux = self.aux(dtype=dtype, dims=dims)
        found = []
        for number, progress in enumerate(MOMENTS):
            found.append(Moment(copy.deepcopy(aux), progress))
            self.after_step(self.signals(seed=10 + number, dtype=dtype, dims=dims), Moment(aux, progress))
        return found

    def terms(self, signals: Signals, moment: Moment) -> dict[str, Tensor]:
        """The loss, term by term."""
        return self.method.loss(signals, moment.aux, moment.progress)

    def total(self, signals: Signals, moment: Moment) -> Tensor:
        """The loss as the trainer minimises it."""
        return torch.stack(list(self.terms(signals, moment).values())).sum()

    def after_step(self, signals: Signals, moment: Moment) -> None:
        """Let the method update its state, as the trainer does."""
        with torch.no_grad():
            self.method.after_step(signals, moment.aux, moment.progress)

    def diagnostics(self, signals: Signals, moment: Moment) -> dict[str, Tensor]:
        """What the method adds to the curve."""
        with torch.no_grad():
            return self.method.diagnostics(signals, moment.aux)

    def gradients(self, value: Tensor, signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor | None]:
        """Of a value with respect to the student's tensors and the heads; None where it does not depend on one."""
        leaves = leaves_of(signals, aux)
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        return dict(zip(leaves, found, strict=True))


def leaves_of(signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor]:
    """What a loss may train: the student's tensors, and the parameters of `aux` under `aux.NAME`."""
    leaves = {name: tensor for name, tensor in tensors_of(signals).items() if tensor.requires_grad}
    return leaves | {f"aux.{name}": parameter for name, parameter in aux.named_parameters() if parameter.requires_grad}


def state_of(aux: nn.ModuleDict) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, those that a checkpoint leaves out too."""
    named = [*aux.named_parameters(), *aux.named_buffers()]
    return {name: value.detach().clone() for name, value in named}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names whose values are not equal bit for bit, or that only one of both has."""
    names = sorted(one.keys() | other.keys())
    return [name for name in names if name not in one or name not in other or not torch.equal(one[name], other[name])]


def far(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether two values differ by more than a share of the larger one (of 1, if that is larger)."""
    one, other = one.detach().double(), other.detach().double()
    scale = max(1.0, float(torch.maximum(one.abs().max(), other.abs().max()))) if one.numel() else 1.0
    return not bool((one - other).abs().max() <= tolerance * scale) if one.numel() else False


def finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def batch_first(field: str) -> bool:
    """Whether the first dimension of a signal counts the rows of the batch."""
    suffix = field.rpartition("_")[2]
    return suffix.startswith("B") if suffix.isupper() else True


def select(signals: Signals, rows: Tensor) -> Signals:
    """Some rows of a batch in some order; what is not per row stays whole."""
    return map_tensors(signals, lambda name, tensor: tensor[rows] if batch_first(name) else tensor)


def halves(signals: Signals) -> tuple[Signals, Signals]:
    """The two halves of a batch, each with half of the masked tokens."""

    def half(number: int) -> Callable[[str, Tensor], Tensor]:
        return lambda name, tensor: tensor.chunk(2)[number] if batch_first(name) or name in MASKED else tensor

    return map_tensors(signals, half(0)), map_tensors(signals, half(1))


class Recorded(Signals):
    """A batch that remembers which of its fields were read."""

    fields_read: dict[str, None]

    def __new__(cls, **_: Any) -> Recorded:
        self = super().__new__(cls)
        object.__setattr__(self, "fields_read", {})
        return self

    @classmethod
    def of(cls, signals: Signals) -> Recorded:
        return cls(**{field.name: getattr(signals, field.name) for field in fields(signals)})

    def __getattribute__(self, name: str) -> Any:
        if name in Signals.__dataclass_fields__:
            self.fields_read[name] = None
        return super().__getattribute__(name)


@contextmanager
def held_constant(constants: list[Tensor], *, record: bool) -> Iterator[None]:
    """Record what is detached, in order, or give what was recorded in its place: it then stays as it was."""
    position = iter(list(constants))
    detach = (Tensor.detach, torch.detach)

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function not in detach:
                return function(*args, **(kwargs or {}))
            if not record:
                return next(position)
            constants.append(function(*args, **(kwargs or {})).clone())
            return constants[-1]

    with Mode():
        yield


def is_refusal(error: Exception) -> bool:
    """Whether a method says by itself, in a sentence, that it cannot work on what it was given."""
    at, torch_folder = error.__traceback__, Path(torch.__file__).parent
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    raised_in = Path(at.tb_frame.f_code.co_filename) if at is not None else torch_folder
    return (
        type(error) in (ValueError, UnsuitableError)
        and len(str(error).split()) > 3
        and (torch_folder not in raised_in.parents)
    )


def said(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
