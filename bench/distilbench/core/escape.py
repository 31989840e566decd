"""Names and texts of others, so that no medium takes them for orders: each medium's own escaping begins with this."""

from __future__ import annotations

import re

LONGEST_WORD = 400
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Control characters, line breaks too; what turns the direction of writing; and what neither UTF-8 nor XML can hold."""


def visible(text: str) -> str:
    """`text` on one line, as a terminal or an XML file can take it: what is not seen is written as Python does."""
    return UNSEEN.sub(lambda found: repr(found[0])[1:-1], text)


def visible_lines(text: str) -> str:
    """As `visible`, for a text of several lines."""
    return "\n".join(map(visible, text.split("\n")))


def one_line(text: str) -> str:
    """A sentence as it is printed: on one line, and no word longer than can be read."""
    words = (word if len(word) <= LONGEST_WORD else _shortened(word) for word in text.split())
    return visible(" ".join(words))


def _shortened(word: str) -> str:
    half = (LONGEST_WORD - 3) // 2
    return f"{word[:half]}...{word[-half:]}"
