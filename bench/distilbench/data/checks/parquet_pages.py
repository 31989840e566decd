"""The heads of the pages of a parquet file: how large each becomes, which pyarrow does not tell.

Heads are structures of Thrift's compact protocol, of which numbers are read and the rest is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEAD_BYTES, LONGEST_HEAD = 2**14, 2**24
SIZE, STORED, DATA, DATA_V2 = 2, 3, 5, 8
"""Fields of a head."""
VALUES = 1
"""A field of what it holds of a page of data."""
TRUE = 1
DEEPEST = 8
DAMAGED = "is not readable parquet: the head of a page is damaged; write it anew"


@dataclass(frozen=True)
class PageHead:
    """What a page says of itself."""

    size: int
    """Bytes when it is unpacked."""
    stored: int
    values: int


def pages(path: Path, chunk: Any) -> Iterator[PageHead]:
    """The pages of a column in a row group. Raises `ValueError` for a damaged head."""
    starts = (chunk.dictionary_page_offset, chunk.data_page_offset)
    at = min(start for start in starts if start)
    end, left = at + chunk.total_compressed_size, chunk.num_values
    with path.open("rb") as stream:
        while at < end and left > 0:
            stream.seek(at)
            head, length = _head(stream)
            yield head
            at += length + head.stored
            left -= head.values


def _head(stream: Any) -> tuple[PageHead, int]:
    content = stream.read(HEAD_BYTES)
    while True:
        reader = _Compact(content)
        try:
            return _as_head(reader.struct()), reader.at
        except IndexError:
            more = b"" if len(content) >= LONGEST_HEAD else stream.read(3 * len(content))
        if not more:
            raise ValueError(DAMAGED)
        content += more


def _as_head(fields: dict[int, Any]) -> PageHead:
    data, second = fields.get(DATA), fields.get(DATA_V2)
    facts = data if isinstance(data, dict) else second if isinstance(second, dict) else {}
    size, stored = fields.get(SIZE), fields.get(STORED)
    if not isinstance(size, int) or not isinstance(stored, int) or stored < 0:
        raise ValueError(DAMAGED)
    # A negative size is one beyond 31 bits.
    size = size if size >= 0 else size + 2**32
    return PageHead(size, stored, int(facts.get(VALUES, 0)))


class _Compact:
    """Reads one structure. Raises `IndexError` where the content ends before it does."""

    def __init__(self, content: bytes) -> None:
        self._content, self.at = content, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Field -> its number, or its own fields."""
        if depth > DEEPEST:
            raise ValueError(DAMAGED)
        found: dict[int, Any] = {}
        number = 0
        while first := self._byte():
            number = number + (first >> 4) if first >> 4 else self._number()
            found[number] = self._value(first & 15, depth, in_field=True)
        return found

    def _value(self, kind: int, depth: int, *, in_field: bool = False) -> Any:
        match kind:
            case 1 | 2:  # true, false
                # A field holds it in its type.
                return (kind == TRUE) if in_field else self._byte() == TRUE
            case 3:  # a byte
                return self._byte()
            case 7:  # a double
                return self._pass(8)
            case 8:  # bytes
                return self._pass(self._unsigned())
            case 9 | 10:  # a list, a set
                first = self._byte()
                count = first >> 4 if first >> 4 != 15 else self._unsigned()
                return self._each(count, (first & 15,), depth)
            case 11:  # a mapping
                count = self._unsigned()
                kinds = self._byte() if count else 0
                return self._each(count, (kinds >> 4, kinds & 15), depth)
            case 12:  # a structure
                return self.struct(depth + 1)
            case 4 | 5 | 6:  # whole numbers
                return self._number()
        raise ValueError(DAMAGED)

    def _each(self, count: int, kinds: tuple[int, ...], depth: int) -> None:
        for _ in range(count):
            for kind in kinds:
                self._value(kind, depth + 1)

    def _byte(self) -> int:
        self.at += 1
        return self._content[self.at - 1]

    def _pass(self, count: int) -> None:
        self.at += count
        if self.at > len(self._content):
            raise IndexError(self.at)

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 70:
                raise ValueError(DAMAGED)

    def _number(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
