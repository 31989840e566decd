"""What pydantic finds wrong with a study, said in one sentence that names key and cure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from distilbench.core.errors import one_of, shown

TYPE_NAME = re.compile(r"(constrained|function|list\[).*|str")
"""What pydantic puts into the place of an error where a value may have several types."""

Sections = Mapping[str, type[BaseModel]]
"""Key -> what it may hold; the whole file's is the empty key."""


def explain(error: ValidationError, sections: Sections) -> str:
    """The first mistake that pydantic found, in words, and how many more there are."""
    mistakes = sorted(error.errors(), key=_weight)
    first, where = mistakes[0], _where(mistakes[0])
    others = {_where(item) for item in mistakes} - {where}
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        return f"{_unknown_key(first['loc'], sections)}{more}"
    if first["type"] == "missing":
        return f"{where} is missing{more}"
    return f"{where}: {message(first, sections)}{more}" if where else f"{message(first, sections)}{more}"


def _weight(item: Any) -> int:
    """Errors that say most come first: an unknown key is often one that is missing, misspelt.

    And of a value that may have several types, an error within one of them says more than that it is not another one.
    """
    return 0 if item["type"] == "extra_forbidden" else 2 if item["type"].endswith("_type") else 1


def _where(item: Any) -> str:
    return ".".join(shown(part).strip("'") for part in item["loc"] if not TYPE_NAME.fullmatch(str(part)))


def _unknown_key(location: tuple[int | str, ...], sections: Sections) -> str:
    *parents, key = (str(part) for part in location if not TYPE_NAME.fullmatch(str(part)))
    section = sections.get(parents[-1], sections.get(parents[0], sections[""])) if parents else sections[""]
    within = f" in {'.'.join(parents)}" if parents else ""
    return one_of("key", key, section.model_fields) + within


def message(item: Any, sections: Sections = {}) -> str:  # noqa: B006
    """One of pydantic's errors in words, without its place."""
    text = str(item["msg"]).removeprefix("Value error, ")
    text = (text[:1].lower() + text[1:]).partition(" after validation")[0]
    if item["type"] in ("value_error", "too_short"):
        return text
    if item["type"] == "model_type":
        section = sections.get(str(item["loc"][-1]), sections[""])
        text = f"give a mapping of its keys ({', '.join(section.model_fields)})"
    if item["type"] == "string_pattern_mismatch":
        text = "use letters, digits and _ . + - only, and begin with a letter or digit"
    if item["type"] == "invalid_key":
        text = "keys are text; correct it or put it in quotes"
    quotes = item["type"] == "string_type" and isinstance(item["input"], int | float | datetime.date)
    return f"{text}, got {given(item['input'])}{'; put it in quotes' if quotes else ''}"


def given(value: Any) -> str:
    """A value as a user would name it."""
    if isinstance(value, datetime.date):
        return str(value)
    return {type(None): "nothing", list: "a list", dict: "a mapping"}.get(type(value)) or shown(value)
