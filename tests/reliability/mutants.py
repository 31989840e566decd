"""Damaged JSON: what is left of a sound value when a type, a key, a number, a text or a byte of it is another.

for mutant in mutants(content, random.Random(0), 100): ...
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

ABSENT = object()
OTHERS: list[Any] = [None, True, 0, -1, 2.5, "", "text", [], {}, [[]], {"a": None}, [0], "0", [None]]
TEXTS = [
    "", " ", "a" * 100_000, "\x00", "\x1b[31mred\x1b[0m", "\u202ereversed", "../../outside", "/etc/passwd", "a\nb",
    "=1+1", "[bold]", "<script>", "![x](http://a.b/c)", "\U0001f600", "nan", "completed", "0.99",
]  # fmt: skip
NUMBERS: list[Any] = [0, -1, 1, 2**31, 2**62, -(2**62), 0.99, -0.5, 1e308, -1e308, 5e-324, 1e15]
RAW = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 25, "9" * 5000, "-" + "9" * 400, '"\\ud800"', "01"]
"""Written into the text as they are: what Python would not write, or other readers would not read."""
MARK = "\u2603 here"


@dataclass(frozen=True)
class Mutant:
    """A changed file, and its value where it has one that Python writes."""

    kind: str
    content: bytes
    value: Any = ABSENT


def mutants(sound: bytes, rng: random.Random, count: int) -> Iterator[Mutant]:
    """As many mutants of a file of JSON, each kind as often; none holds what the sound one holds."""
    value = json.loads(sound)
    number, turn = 0, -1
    while number < count:
        turn += 1
        kind = list(KINDS)[turn % len(KINDS)]
        # A file may have no number, or no text: then the next kind has its turn.
        mutant = KINDS[kind](kind, sound, copy.deepcopy(value), rng)
        if mutant is not None and (kind == "key twice" or not _holds(mutant.content, value)):
            number += 1
            yield mutant


def _holds(content: bytes, value: Any) -> bool:
    try:
        return bool(json.loads(content) == value)
    except (ValueError, RecursionError):
        return False


Place = tuple[Any, Any]
"""A list or mapping, and where in it."""


def _place(value: Any, rng: random.Random, wanted: Callable[[Any], bool] = lambda item: True) -> Place | None:
    """A random part of a value that is as wanted; shallow ones are as likely as the many deep ones."""
    for _ in range(50):
        parent: Any = [value]
        key: Any = 0
        item = value
        while isinstance(item, dict | list) and item and rng.random() < 0.8:
            parent, key = item, rng.choice(list(item)) if isinstance(item, dict) else rng.randrange(len(item))
            item = parent[key]
        if item is not value and wanted(item):
            return parent, key
    return None


def _set(of: Any, rng: random.Random, items: list[Any], wanted: Callable[[Any], bool] = lambda item: True) -> Any:
    """The value with one of its parts replaced; ABSENT where none is as wanted."""
    place = _place(of, rng, wanted)
    if place is None:
        return ABSENT
    parent, key = place
    parent[key] = copy.deepcopy(rng.choice([item for item in items if type(item) is not type(parent[key])] or items))
    return of


def _whole(kind: str, value: Any) -> Mutant | None:
    return None if value is ABSENT else Mutant(kind, json.dumps(value, indent=2).encode("utf-8", "replace"), value)


def _type(kind: str, sound: bytes, value: Any, rng: random.Random) -> Mutant | None:
    return _whole(kind, _set(value, rng, OTHERS))


def _number(kind: str, sound: bytes, value: Any, rng: random.Random) -> Mutant | None:
    place = _place(value, rng, lambda item: isinstance(item, int | float) and not isinstance(item, bool))
    if place is not None:
        same = [number for number in NUMBERS if type(number) is type(place[0][place[1]])]
        place[0][place[1]] = rng.choice(same)
    return _whole(kind, ABSENT if place is None else value)


def _text(kind: str, sound: bytes, value: Any, rng: random.Random) -> Mutant | None:
    place = _place(value, rng, lambda item: isinstance(item, str))
    if place is not None:
        place[0][place[1]] = rng.choice(TEXTS)
    return _whole(kind, ABSENT if place is None else value)


def _missing(kind: str, sound: bytes, value: Any, rng: random.Random) -> Mutant | None:
    place = _place(value, rng)
    if place is not None:
        del place[0][place[1]]
    return _whole(kind, ABSENT if place is None else value)


def _extra(kind: str, sound: bytes, value: Any, rng: random.Random) -> Mutant | None:
    place = _place([value], rng, lambda item: isinstance(item, dict))
    if place is not None:
        place[0][place[1]][rng.choice(TEXTS)[:200]] = rng.choice(OTHERS)
    return _whole(kind, ABSENT if place is None else value)


def _renamed(kind: str, sound: bytes, value: Any, rng: random.Random) -> Mutant | None:
    place = _place(value, rng)
    if place is None or not isinstance(place[0], dict):
        return None
    place[0][f"{place[1]}s"] = place[0].pop(place[1])
    return _whole(kind, value)


def _deep(kind: str, sound: bytes, value: Any, rng: random.Random) -> Mutant | None:
    levels = rng.choice([65, 300, 100_000])
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}")])
    return _raw_at(kind, value, rng, opening * levels + "1" + closing * levels)


def _raw(kind: str, sound: bytes, value: Any, rng: random.Random) -> Mutant | None:
    return _raw_at(kind, value, rng, rng.choice(RAW))


def _raw_at(kind: str, value: Any, rng: random.Random, text: str) -> Mutant | None:
    place = _place(value, rng, lambda item: not isinstance(item, dict | list))
    if place is None:
        return None
    place[0][place[1]] = MARK
    return Mutant(kind, json.dumps(value, indent=2).replace(json.dumps(MARK), text).encode())


def _root(kind: str, sound: bytes, value: Any, rng: random.Random) -> Mutant | None:
    return _whole(kind, rng.choice([None, [], {}, 0, "text", True, [value], {"record": value}]))


def _twice(kind: str, sound: bytes, value: Any, rng: random.Random) -> Mutant | None:
    key = rng.choice(list(value))
    again = f"{{{json.dumps(key)}: {json.dumps(rng.choice(OTHERS))}, "
    return Mutant(kind, again.encode() + sound.lstrip()[1:])


def _cut(kind: str, sound: bytes, value: Any, rng: random.Random) -> Mutant | None:
    return Mutant(kind, sound[: rng.randrange(len(sound) - 1)])


def _bytes(kind: str, sound: bytes, value: Any, rng: random.Random) -> Mutant | None:
    at = rng.randrange(len(sound))
    odd = [b"\xff", b"\xc3", b"\x00", b"\xed\xa0\x80", b"\xfe\xff"]
    whole = [sound.decode().encode("utf-16"), b"\xef\xbb\xbf" + sound[1:], sound + sound, b"", b"\x00" * len(sound)]
    return Mutant(kind, rng.choice([sound[:at] + rng.choice(odd) + sound[at:], rng.choice(whole)]))


KINDS: dict[str, Callable[[str, bytes, Any, random.Random], Mutant | None]] = {
    "another type": _type,
    "another number": _number,
    "another text": _text,
    "missing": _missing,
    "more": _extra,
    "renamed": _renamed,
    "nested deep": _deep,
    "no JSON value": _raw,
    "another root": _root,
    "key twice": _twice,
    "cut": _cut,
    "other bytes": _bytes,
}
