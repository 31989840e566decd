"""Errors that a user can cause, and how they are worded."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from reprlib import Repr
from typing import Any

LONGEST_VALUE = 80
MOST_LISTED = 40
_repr = Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxlong, _repr.maxother = 3, LONGEST_VALUE, LONGEST_VALUE, LONGEST_VALUE


class UserError(Exception):
    """One sentence for stderr: what is wrong, where, and what to do. Ends the program with exit code 2."""


def shown(value: Any) -> str:
    """A value as a sentence shows it: never long, whatever it contains."""
    text = _repr.repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def one_of(kind: str, name: str, known: Iterable[str]) -> str:
    """Sentence for a name that is not in `known`, with the nearest ones suggested."""
    choices = sorted(known)
    near = get_close_matches(name, choices, n=1, cutoff=0.5)
    more = f" and {len(choices) - MOST_LISTED} more" if len(choices) > MOST_LISTED else ""
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(choices[:MOST_LISTED]) or 'none'}{more}"
    return f"unknown {kind} {shown(name)}; {hint}"
