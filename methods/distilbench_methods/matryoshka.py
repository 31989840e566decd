"""Train another method on the first entries of the vector as well, so that the student can be cut to several widths.

Source: Kusupati et al. 2022, arXiv:2205.13147, around any method of this package.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor, nn

from distilbench_methods.base import Dims, Method, Needs, Signals, UnsuitableError, check_not_negative, check_positive
from distilbench_methods.functional import unit

VECTORS = ("student_BS", "second_view_BS", "candidates_BKS")
TARGETS = ("teacher_final_BD", "teacher_rows_MD", "teacher_negatives_BKD", "teacher_candidates_BKD")


@dataclass(frozen=True, kw_only=True)
class Matryoshka(Method):
    """A wrapper that sums another method's loss over several widths of the vector."""

    name: ClassVar[str] = "matryoshka"
    source: ClassVar[str] = (
        "Kusupati et al. 2022, arXiv:2205.13147: the sum over widths w of the wrapped loss on the first w entries of "
        "the vector, brought to unit length; the full width is always among them. Heads and state of the wrapped "
        "method are separate for each width. Targets as wide as the student's vector are cut likewise."
    )
    unverified: ClassVar[str] = (
        "The paper's text was not at hand; unit weights follow the sentence-transformers library."
    )

    base: str = "mse"
    """Name of the method that is wrapped."""
    base_settings: dict[str, Any] = field(default_factory=dict)
    """Hyperparameters of the wrapped method; the others keep their defaults."""
    widths: tuple[int, ...] = (32, 64)
    """Widths beside the full one."""
    width_weights: tuple[float, ...] = ()
    """Weights of the `widths`, in their order; unset: 1 each. The full width has weight 1."""

    def __post_init__(self) -> None:
        if self.base == self.name:
            raise ValueError("base must be another method than matryoshka itself")
        for width in self.widths:
            check_positive(widths=width)
        if len(set(self.widths)) < len(self.widths):
            raise ValueError(f"widths {list(self.widths)} names a width twice")
        if self.width_weights and len(self.width_weights) != len(self.widths):
            raise ValueError(f"width_weights has {len(self.width_weights)} values for {len(self.widths)} widths")
        for weight in self.width_weights:
            check_not_negative(width_weights=weight)
        self.wrapped  # noqa: B018

    @cached_property
    def wrapped(self) -> Method:
        """The wrapped method. Raises `ValueError` where it is not known or its hyperparameters are not right."""
        from distilbench_methods import load, registry

        if self.base not in registry():
            raise ValueError(f"base {self.base!r} is not a method; distilbench methods lists them")
        kind = load(self.base)
        known = [item.name for item in fields(kind)]  # type: ignore[arg-type]
        for key in self.base_settings:
            if key not in known:
                raise ValueError(f"base_settings: {self.base} has no hyperparameter {key!r}, but {', '.join(known)}")
        return kind(**self.base_settings)

    def parts(self) -> tuple[Method, ...]:
        return (self.wrapped,)

    @property
    def coupled(self) -> str:
        return self.wrapped.coupled

    def negatives_per_step(self, batch_size: int) -> int:
        return self.wrapped.negatives_per_step(batch_size)

    def needs(self, dims: Dims) -> Needs:
        for width in self.widths:
            if width >= dims.student_final:
                raise UnsuitableError(
                    f"matryoshka: widths holds {width}, but the student's vector has {dims.student_final} entries; "
                    "choose smaller ones"
                )
        # Declared for the narrowest: what suits it suits the others too.
        needs = [self.wrapped.needs(_cut_dims(dims, width)) for width in self._all_widths(dims)]
        return needs[-1]

    def check_scores(self, scores_RK: Tensor) -> None:
        self.wrapped.check_scores(scores_RK)

    def _all_widths(self, dims: Dims) -> tuple[int, ...]:
        return (*self.widths, dims.student_final)

    def build_aux(self, dims: Dims) -> nn.ModuleDict:
        parts = [self.wrapped.build_aux(_cut_dims(dims, width)) for width in self._all_widths(dims)]
        if any(self.wrapped.exported_head(part) is not None for part in parts):
            raise UnsuitableError(f"matryoshka cannot wrap {self.base} while its head ships: it would hide the widths")
        return nn.ModuleDict({str(width): part for width, part in zip(self._all_widths(dims), parts, strict=True)})

    def fit(self, aux: nn.ModuleDict, teacher_RD: Tensor) -> None:
        for width, part in self._by_width(aux):
            full = max(int(key) for key in aux)
            self.wrapped.fit(part, _cut(teacher_RD, width, full))

    def fit_flops(self, dims: Dims, num_rows: int) -> float:
        widths = self._all_widths(dims)
        return sum(self.wrapped.fit_flops(_cut_dims(dims, width), num_rows) for width in widths)

    def _by_width(self, aux: nn.ModuleDict) -> list[tuple[int, Any]]:
        return [(int(key), part) for key, part in aux.items()]

    def loss(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> dict[str, Tensor]:
        weights = [*(self.width_weights or (1.0,) * len(self.widths)), 1.0]
        terms: dict[str, Tensor] = {}
        for (width, part), weight in zip(self._by_width(aux), weights, strict=True):
            if weight:
                values = self.wrapped.loss(cut_signals(signals, width), part, progress)
                terms |= {f"{name}_{width}": weight * value for name, value in values.items()}
        return terms

    def after_step(self, signals: Signals, aux: nn.ModuleDict, progress: float) -> None:
        for width, part in self._by_width(aux):
            self.wrapped.after_step(cut_signals(signals, width), part, progress)

    def frozen_layers(self, aux: nn.ModuleDict) -> int:
        return self.wrapped.frozen_layers(self._by_width(aux)[-1][1])

    def diagnostics(self, signals: Signals, aux: nn.ModuleDict) -> dict[str, Tensor]:
        width, part = self._by_width(aux)[-1]
        return self.wrapped.diagnostics(cut_signals(signals, width), part)

    def extra_flops(self, dims: Dims, batch_size: int, num_tokens: int) -> float:
        widths = self._all_widths(dims)
        return sum(self.wrapped.extra_flops(_cut_dims(dims, width), batch_size, num_tokens) for width in widths)


def cut_signals(signals: Signals, width: int) -> Signals:
    """The signals with the student's vectors cut to their first entries, at unit length."""
    full = signals.student_BS.shape[-1]
    changed: dict[str, Any] = {}
    for name in VECTORS:
        vectors = getattr(signals, name)
        if vectors is not None:
            changed[name] = unit(vectors[..., :width])
    for name in TARGETS:
        vectors = getattr(signals, name)
        if vectors is not None:
            changed[name] = _cut(vectors, width, full)
    return replace(signals, **changed)


def _cut(target: Tensor, width: int, full: int) -> Tensor:
    return target[..., :width] if target.shape[-1] == full else target


def _cut_dims(dims: Dims, width: int) -> Dims:
    teacher = width if dims.teacher_final == dims.student_final else dims.teacher_final
    return replace(dims, student_final=width, teacher_final=teacher)
