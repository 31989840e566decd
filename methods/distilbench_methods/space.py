"""What of a method may be tuned: its file declares a range or a choice for some of its hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Span:
    """All values between two, which are whole numbers where both ends are."""

    low: float
    high: float
    log: bool = False
    """Even over factors rather than over differences."""

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"a span from {self.low} to {self.high} is none, or cannot be logarithmic")

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def ends(self) -> tuple[Any, ...]:
        return (self.low, self.high)

    def described(self) -> str:
        """Both ends, and how values lie between them."""
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        if len(values) < 2:
            raise ValueError("a choice has two values or more")
        object.__setattr__(self, "values", values)

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def ends(self) -> tuple[Any, ...]:
        return self.values

    def described(self) -> str:
        """All values."""
        return ", ".join(str(value) for value in self.values)


Space = Mapping[str, Span | Choice]
"""Hyperparameter -> what it may be."""


def space(**of: Span | Choice) -> Space:
    """A search space that cannot be changed."""
    return MappingProxyType(of)
