"""What is compared: one file per method. This package imports torch and itself, nothing from the bench.

Registering a method is one line below; other packages register theirs through the entry-point group
`distilbench.methods`. Looking up names imports neither torch nor the methods.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from methods.base import Method

ENTRY_POINT_GROUP = "distilbench.methods"

BUILT_IN = {
    "mse": "methods.mse:MSE",
    "simcse": "methods.simcse:SimCSE",
    "ibkd": "methods.ibkd:IBKD",
    "codir": "methods.codir:CoDIR",
    "internal-kd": "methods.internal_kd:InternalKD",
}


def registry() -> dict[str, str]:
    """Name -> "module:Class" of every method that can be asked for, ours first, then those of other packages."""
    others = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    clash = sorted(BUILT_IN.keys() & others.keys())
    if clash:
        raise ValueError(f"the name {clash[0]!r} is taken by a built-in method and registered by {others[clash[0]]}")
    return BUILT_IN | others


def load(name: str) -> type[Method]:
    """The class registered under `name`. Raises `KeyError` when there is none."""
    module, _, attribute = registry()[name].partition(":")
    method: type[Method] = getattr(import_module(module), attribute)
    return method
