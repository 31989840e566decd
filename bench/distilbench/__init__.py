"""Compare text-embedding distillation methods under equal budgets, with stated error.

    import distilbench as db

    results = db.run(db.load_study("mine.yaml", seeds=5), jobs=2)
    results.scores                      # a tidy DataFrame
    results.compare(reference="mse")    # verdicts with intervals

What is named here is the public interface; it is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilbench.api import Results, check, conform, load_study, read_results, report, run
    from distilbench.core.errors import UserError
    from distilbench.study.study import Study
    from distilbench_methods import functional
    from distilbench_methods.base import Dims, Method, Needs, Signals, UnsuitableError
    from distilbench_methods.space import Choice, Span, space

    __version__: str

_PLACES = {
    "Results": "distilbench.api",
    "check": "distilbench.api",
    "conform": "distilbench.api",
    "load_study": "distilbench.api",
    "read_results": "distilbench.api",
    "report": "distilbench.api",
    "run": "distilbench.api",
    "Study": "distilbench.study.study",
    "UserError": "distilbench.core.errors",
    "Method": "distilbench_methods.base",
    "Needs": "distilbench_methods.base",
    "Signals": "distilbench_methods.base",
    "Dims": "distilbench_methods.base",
    "UnsuitableError": "distilbench_methods.base",
    "functional": "distilbench_methods",
    "Choice": "distilbench_methods.space",
    "Span": "distilbench_methods.space",
    "space": "distilbench_methods.space",
}

__all__ = [
    "Choice",
    "Dims",
    "Method",
    "Needs",
    "Results",
    "Signals",
    "Span",
    "Study",
    "UnsuitableError",
    "UserError",
    "check",
    "conform",
    "functional",
    "load_study",
    "read_results",
    "report",
    "run",
    "space",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("distilbench")
    if name not in _PLACES:
        raise AttributeError(f"module 'distilbench' has no attribute {name!r}")
    if name == "functional":
        value = import_module("distilbench_methods.functional")
    else:
        value = getattr(import_module(_PLACES[name]), name)
    # A room of the same name, such as `report`, becomes an attribute when it is imported; the interface goes before.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
