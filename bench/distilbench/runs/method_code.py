"""By which code a method is known: runs of an edited method are other runs."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import distilbench_methods.base
from distilbench.core.hashes import file_sha256, key_of
from distilbench_methods.base import Method


def code_hashes(method: Method) -> list[str]:
    """Hash of the code of a method, and of each method that it is made of."""
    return [_hash(type(method)), *(found for part in method.parts() for found in code_hashes(part))]


def _hash(method: type[Method]) -> str:
    """Of the method's own file and of those it imports from its package."""
    own = sys.modules[method.__module__]
    package = own.__name__.rpartition(".")[0] or own.__name__
    found, open_ends = {distilbench_methods.base.__name__: distilbench_methods.base}, [own]
    while open_ends:
        module = open_ends.pop()
        found[module.__name__] = module
        names = {getattr(value, "__module__", None) for value in vars(module).values()}
        near = {name for name in names if isinstance(name, str) and f"{name}.".startswith((f"{package}.", "methods."))}
        open_ends += [sys.modules[name] for name in near - found.keys()]
    return key_of(files={name: file_sha256(Path(inspect.getfile(module))) for name, module in found.items()})
