"""Search spaces: what a method's file lets be tuned, and whether a study may be tuned at all."""

from __future__ import annotations

from bench.study import Study


def check_spaces(study: Study) -> None:
    """Raise `ValueError` for a row to be tuned whose methods declare nothing to be tuned."""
