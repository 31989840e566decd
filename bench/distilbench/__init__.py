"""Compare text-embedding distillation methods under equal budgets, with stated error.

    import distilbench as db

    results = db.run(db.load_study("mine.yaml", seeds=5), jobs=2)
    results.scores                      # a tidy DataFrame
    results.compare(reference="mse")    # verdicts with intervals

What is named here is the public interface; it is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilbench.api import check, conform, load_study, register, report, run
    from distilbench.core.errors import UserError
    from distilbench.reporting.results import Results, read_results
    from distilbench.study.study import Study
    from distilbench_methods import functional
    from distilbench_methods.base import Dims, Method, Needs, Signals, UnsuitableError
    from distilbench_methods.space import Choice, Span, space

    __version__: str

_MODULES = {
    "distilbench.api": ("check", "conform", "load_study", "register", "report", "run"),
    "distilbench.core.errors": ("UserError",),
    "distilbench.reporting.results": ("Results", "read_results"),
    "distilbench.study.study": ("Study",),
    "distilbench_methods.base": ("Dims", "Method", "Needs", "Signals", "UnsuitableError"),
    "distilbench_methods.space": ("Choice", "Span", "space"),
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
    "register",
    "report",
    "run",
    "space",
]

# Where types are checked, a name that is not there is to be an error.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from importlib import import_module
        from importlib.metadata import version

        if name == "__version__":
            return version("distilbench")
        if name == "functional":
            return import_module("distilbench_methods.functional")
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(module), name)
        raise AttributeError(f"module 'distilbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
