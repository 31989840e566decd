"""The conformance kit: what every method must do, ours and those of other packages.

From pytest: `pytest.mark.parametrize("check", CHECKS)` over `CHECKS[check](Kit("my-method"))`, or one assertion that
nothing in `conform("my-method")` failed. From the command line: `distilbench conform my-method`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from traceback import extract_tb
from typing import Any, Literal

from distilbench.conformance.checks import CHECKS, Check
from distilbench.conformance.kit import Kit, NotApplicable, NotConforming, said
from distilbench.core.libraries import quiet
from distilbench.core.seeds import preserved_rng
from distilbench_methods.base import Method

__all__ = [
    "CHECKS",
    "Check",
    "ConformanceResult",
    "Kit",
    "NotApplicable",
    "NotConforming",
    "conform",
    "promise_of",
    "run_check",
]

Status = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True)
class ConformanceResult:
    """How one check ended."""

    check: str
    promise: str
    """What the check asks of every method, in a sentence."""
    status: Status
    explanation: str
    """Why it failed or does not apply; of one that passed, what is worth knowing, if anything."""


@quiet()
def conform(method: str | type[Method], settings: dict[str, Any] | None = None) -> list[ConformanceResult]:
    """Run every check on a method: a registered one by its name, or a class.

    Raises `KeyError` for an unknown name, and `ValueError` where the method cannot be made with these settings.
    """
    kit = Kit(method, settings)
    return [run_check(kit, check) for check in CHECKS]


def promise_of(check: str) -> str:
    """What a check asks, in a sentence."""
    return " ".join((CHECKS[check].__doc__ or "").split())


def run_check(kit: Kit, check: str) -> ConformanceResult:
    """One check; whatever the method raises is a failure. Random generators stay as they were."""
    status: Status
    try:
        with preserved_rng():
            status, explanation = "passed", CHECKS[check](kit) or ""
    except NotApplicable as reason:
        status, explanation = "not applicable", str(reason)
    except NotConforming as reason:
        status, explanation = "failed", str(reason)
    # The method may be another package's, which may fail in any way.
    except Exception as error:
        status, explanation = "failed", f"{said(error)}{_place(kit, error)}"
    return ConformanceResult(check, promise_of(check), status, explanation)


def _place(kit: Kit, error: Exception) -> str:
    """Where in the method's own file an exception came up."""
    file = getattr(sys.modules.get(kit.kind.__module__), "__file__", None)
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == file]
    return f" (line {lines[-1]} of {file})" if lines else ""
