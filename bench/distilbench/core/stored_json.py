"""JSON that was written earlier, read back: of the expected shape, or said in a few words what is wrong where.

Every fault is a `ValueError`; who reads adds the file and the cure.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from distilbench.core.errors import shown
from distilbench.core.sealed import write_together

T = TypeVar("T")

DEEPEST = 64
"""Levels of lists and mappings within each other; nothing that is written here has a quarter of them."""
LARGEST = 2**63
"""Whole numbers from here on fit no column of a table."""
SUM = "sha256"
"""Key of a file's own sum over the rest of it."""


class Stored(BaseModel):
    """What a stored object must hold; more keys may be there. Types are taken as they are, without conversion."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


def parsed(content: bytes, *, nan: bool = False) -> Any:
    """The value of a JSON text, in which every key is there once and every number fits a table.

    Unless `nan`, every number is finite, too.
    """
    constants = float if nan else _no_number
    try:
        value = json.loads(
            content.decode("utf-8"), object_pairs_hook=_mapping, parse_constant=constants, parse_int=_whole_number
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} in line {error.lineno}") from None
    except RecursionError:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep") from None
    check_parts(value, nan=nan)
    return value


def read_object(path: Path, *, nan: bool = False) -> dict[str, Any]:
    """The mapping that a file of JSON holds. Raises `OSError` for a file that cannot be read."""
    value = parsed(path.read_bytes(), nan=nan)
    if not isinstance(value, dict):
        raise ValueError(f"it holds {_given(value)} where a mapping belongs")
    return value


def check_shape(shape: type[BaseModel], value: Any) -> None:
    """Raise for a value that is not of the shape, with the first key that is to blame."""
    try:
        shape.model_validate(value)
    except ValidationError as error:
        raise ValueError(_first(error)) from None


def as_type(kind: type[T], value: Any) -> T:
    """A parsed value as what it was written from, such as a list of dataclasses; types are not converted."""
    try:
        # Strict, and yet dataclasses from mappings: only JSON is read so.
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ValueError(_first(error)) from None


def write_summed(path: Path, content: dict[str, Any]) -> None:
    """Write a mapping with its sum, all of it or nothing. Keys keep their order, which may mean something."""
    text = json.dumps(summed(content), indent=2, allow_nan=False) + "\n"

    def write(folder: Path) -> None:
        (folder / path.name).write_text(text, encoding="utf-8")

    write_together(path, write)


def sum_of(content: dict[str, Any]) -> str:
    """The sum of a mapping without its `SUM`, however it is laid out."""
    rest = {key: value for key, value in content.items() if key != SUM}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def summed(content: dict[str, Any]) -> dict[str, Any]:
    """The mapping with its sum added."""
    return {**content, SUM: sum_of(content)}


def check_sum(content: dict[str, Any]) -> None:
    """Raise for a mapping that is not the one that its sum was made of."""
    if content.get(SUM) != sum_of(content):
        raise ValueError("it was changed after it was written")


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        # Python keeps the last of two without a word.
        raise ValueError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} is there twice")
    return mapping


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _whole_number(digits: str) -> int:
    # Beyond some thousand digits, Python refuses with advice on its own settings.
    if len(digits.lstrip("-")) > len(str(LARGEST)) or not -LARGEST <= (number := int(digits)) < LARGEST:
        raise ValueError(f"{shown(digits)} is too large a number".replace("'", ""))
    return number


def check_parts(value: Any, *, nan: bool = False) -> None:
    """Raise for a value that is nested too deeply, or holds what no page, and no table of numbers, can hold."""
    left = [(value, 1)]
    while left:
        item, depth = left.pop()
        if isinstance(item, float) and not nan and not math.isfinite(item):
            raise ValueError("it holds a number that is not finite")
        if isinstance(item, str):
            _check_text(item)
        if isinstance(item, dict | list):
            if depth > DEEPEST:
                raise ValueError(f"it is nested more than {DEEPEST} levels deep")
            parts = [*item.keys(), *item.values()] if isinstance(item, dict) else item
            left += [(part, depth + 1) for part in parts]


def _check_text(text: str) -> None:
    try:
        # JSON can name half of a pair of surrogates, which no table and no page can hold.
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text holds half of a pair of surrogates") from None


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(shown(part).strip("'") for part in first["loc"])
    if first["type"] == "missing":
        return f"{where} is missing"
    text = str(first["msg"]).removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    if first["type"] == "value_error":
        return f"{where}: {text}" if where else text
    return f"{where}: {text}, got {_given(first['input'])}"


def _given(value: Any) -> str:
    return {type(None): "nothing", list: "a list", dict: "a mapping"}.get(type(value)) or shown(value)
