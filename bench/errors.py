"""Errors that a user can cause, and how they are worded."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """One sentence for stderr: what is wrong, where, and what to do. Ends the program with exit code 2."""


def one_of(kind: str, name: str, known: Iterable[str]) -> str:
    """Sentence for a name that is not in `known`, with the nearest ones suggested."""
    choices = sorted(known)
    near = get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(choices) or 'none'}"
    return f"unknown {kind} {name!r}; {hint}"
