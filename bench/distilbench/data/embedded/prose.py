"""Prose from docstrings: markup, code, tables and type lines taken out, sentences told from fragments."""

from __future__ import annotations

import inspect
import re
from functools import lru_cache

_PROSE_SECTIONS = {"", "note", "notes", "explanation", "description", "details"}
_DROPPED_SECTIONS = {"references", "reference", "see also", "bibliography"}
_KEPT_DIRECTIVES = {"note", "warning", "tip", "important", "caution", "hint", "attention"}
_GOOGLE_SECTIONS = _DROPPED_SECTIONS | {
    *("args", "arguments", "parameters", "params", "keyword args", "keyword arguments", "attributes", "shape"),
    *("inputs", "outputs", "input", "output", "return", "returns", "yields", "raises", "warning"),
    *("note", "notes", "example", "examples", "usage"),
}
_UNDERLINE = re.compile(r"([=\-~^\"*#+.])\1{2,}$")
_DIRECTIVE = re.compile(r"\.\. *(?:([\w-]+)::)? *(.*)")
_NUMPY_FIELD = re.compile(r"[\w*.,`'\" ()\[\]|/-]* : |\S+ ?:$")
_BULLET = re.compile(r"(?:[-*•+]|\(?\w\)|\d+\.|#\.)\s+(.*)")
_SPHINX_FIELD = re.compile(r":\w[^:`]*:(?!`)\s*(.*)")
_GOOGLE_FIELD = re.compile(r"[`*]*\w[\w.\[\]`*]*(?:, [`*]*\w+[`*]*)* ?(?:\([^:]*\))? ?:\s+(?=\S)(.*)")
_TABLE_OR_TAG = re.compile(r"[|+][-=| ]|!!!|\?\?\?|<|\[\[|={3,}|-{3,}|@\w")
# Each with a string without which it cannot match: looking for that first is far cheaper than running the pattern.
_INLINE = [
    (needle, re.compile(pattern), replacement)
    for needle, pattern, replacement in (
        ("[`", r"\[`([^`]*)`\](?!\()", r"\1"),
        ("`", r":math:`([\w ,+*/.()-]{1,12})`", r"\1"),
        ("`", r":math:`[^`]*`", "\0"),
        ("$", r"\$\$?[^$]+\$\$?", "\0"),
        ("\\", r"\\\(.+?\\\)", "\0"),
        ("%", r"%\(\w+\)s", "\0"),
        ("{", r"\{\{?[\w.]*\}\}?", "\0"),
        ("`", r":[\w:+-]+:`!?([^`<]+?)\s*<[^`>]*>`", r"\1"),
        ("`", r":[\w:+-]+:`(?:~[\w.]*?(\w+(?:\(\))?)|[!~]?([^`]*))`", r"\1\2"),
        ("`", r"`([^`<]+?)\s*<[^`>]*>`_{0,2}", r"\1"),
        ("](", r"!?\[([^\]]*)\]\((?:[^()]|\([^()]*\))*\)", r"\1"),
        ("]_", r"\b(?:in|to|from|by|of|see|and|with|at|on|per|or|also),? *\[[\w#*]{1,12}\]_", "\0"),
        ("]_", r"\s*\[[\w#*]{1,12}\]_", ""),
        ("`", r"``?([^`]+)``?_{0,2}", r"\1"),
        ("*", r"(?<![\w*])(\*{1,3})(?=\S)([^*\n]+?)(?<=\S)\1(?![\w*])", r"\2"),
        ("<", r"</?[A-Za-z][^<>]*>", ""),
        ("|", r"\|(\w+)\|", r"\1"),
        ("- ", r"(?<=\w-) (?!and |or |to )(?=[a-z])", ""),
    )
]
_SENTENCE_END = re.compile(r"(?<=[.!?])(?=[\"')\]]*\s+[\"'(]*[A-Z0-9])[\"')\]]*\s+|(?<=[.!?][\"')])\s+(?=[A-Z])")
_ABBREVIATION = re.compile(
    r"\b(?:e\.g|i\.e|cf|vs|[Ee]qs?|[Ff]igs?|al|approx|[Nn]o|resp|[Rr]efs?|[Ss]ec|w\.r\.t|[A-Z])\.$"
)
_JUNK = re.compile(
    r"[\0{}\\|`^~$@#]|://|www\.|\*\*|\.\.|--|>>|[=<>!]=|::|__| : |TODO|FIXME|XXX|sphx_|^Where |^Redistributions? "
)
_PLAIN_WORD = re.compile(r"[\"'(]*(?:[A-Za-z]?[a-z]+|[A-Z]+s?)(?:[-'/\u2019][A-Za-z]+)*[\"').,;:!?]*$")
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been but by can do does each for from had has have how if in into is it its "
        "may more must no not of on one only or other should so some such than that the their them then "
        "there these they this to use used was we were what when where whether which while will with within "
        "would you your",
    )
)


class Reader:
    """Splits a docstring into paragraphs without markup, code, tables and type lines."""

    def __init__(self) -> None:
        self._done: list[tuple[str, bool]] = []
        self._lines: list[str] = []
        self._indent = 0
        self._is_item = False
        self._section = ""
        self._section_indent = -1
        self._hidden_below: int | None = None
        self._in_doctest = False
        self._in_fence = False

    def read(self, doc: str) -> list[tuple[str, bool]]:
        """Paragraphs, each with whether it is running prose rather than the description of a parameter."""
        for line in inspect.cleandoc(doc).splitlines():
            text = line.strip()
            indent = len(line) - len(line.lstrip())
            if not self._hides(text, indent):
                self._take(text, indent)
        self._flush()
        return self._done

    def _flush(self) -> None:
        if self._lines and self._section not in _DROPPED_SECTIONS:
            text = " ".join(self._lines)
            for needle, pattern, replacement in _INLINE:
                if needle in text:
                    text = pattern.sub(replacement, text)
            self._done.append((" ".join(text.split()), self._section in _PROSE_SECTIONS))
        self._lines, self._is_item = [], False

    def _hides(self, text: str, indent: int) -> bool:
        if text.startswith("```"):
            self._flush()
            self._in_fence ^= text.count("```") == 1
            return True
        if not text:
            self._flush()
            self._in_doctest = False
        if not text or self._in_fence:
            return True
        if self._hidden_below is not None and indent > self._hidden_below:
            return True
        self._hidden_below = None
        if text.startswith(">>>"):
            self._flush()
            self._in_doctest = True
        return self._in_doctest

    def _take(self, text: str, indent: int) -> None:
        if indent <= self._section_indent:
            self._enter("", -1)
        if self._lines and _UNDERLINE.match(text):
            heading, self._lines = " ".join(self._lines).lower(), []
            self._enter(heading, -1)
        elif text.endswith(":") and text.rstrip(":").lower() in _GOOGLE_SECTIONS:
            self._enter(text.rstrip(":").lower(), indent)
            self._hidden_below = indent if text.endswith("::") else None
        elif text.startswith("#"):
            self._enter(text.strip("# ").lower(), -1)
        elif text.startswith(".."):
            self._direct(text, indent)
        elif _TABLE_OR_TAG.match(text):
            self._flush()
        else:
            self._join(text, indent)

    def _enter(self, section: str, indent: int) -> None:
        self._flush()
        self._section, self._section_indent = section, indent

    def _direct(self, text: str, indent: int) -> None:
        self._flush()
        match = _DIRECTIVE.match(text)
        if match and match[1] in _KEPT_DIRECTIVES:
            self._lines, self._indent, self._is_item = [match[2]] if match[2] else [], indent, True
        else:
            self._hidden_below = indent

    def _join(self, text: str, indent: int) -> None:
        """Add a line to the paragraph, or begin one."""
        if field := _SPHINX_FIELD.match(text):
            self._enter("parameters", -1)
            text = field[1]
        fresh = not self._lines or self._section not in _PROSE_SECTIONS
        if fresh and ":" in text and _NUMPY_FIELD.match(text):
            self._flush()
            return
        item = _BULLET.match(text) or (_GOOGLE_FIELD.match(text) if fresh and ": " in text else None)
        if item:
            self._flush()
            self._is_item, self._indent, text = True, indent, item[1]
        elif not self._lines or (indent != self._indent and not (self._is_item and len(self._lines) == 1)):
            self._flush()
            self._indent = indent
        else:
            self._indent = indent
        if text.endswith("::"):
            self._hidden_below, text = indent, text[:-1]
        self._lines.append(text)


def split_sentences(text: str) -> list[str]:
    """Sentences of a paragraph; a stop after an abbreviation ends none."""
    found: list[str] = []
    for piece in _SENTENCE_END.split(text):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] += " " + piece
        else:
            found.append(piece)
    return found


def is_prose(sentence: str, *, may_lack_stop: bool = False) -> bool:
    if not (sentence[:1].isupper() or sentence[:1].isdigit()):
        return False
    if sentence.rstrip("\"')")[-1:] not in ".?!" and not (may_lack_stop and sentence[-1].isalnum()):
        return False
    words = sentence.split()
    if not 4 <= len(words) <= 60 or _JUNK.search(sentence):
        return False
    if any(sentence.count(left) != sentence.count(right) for left, right in ("()", "[]")) or sentence.count('"') % 2:
        return False
    function_words = len(_FUNCTION_WORDS.intersection(sentence.lower().split()))
    return function_words >= min(2, len(words) // 7) and sum(map(_is_plain, words)) >= 0.75 * len(words)


@lru_cache(maxsize=1 << 16)
def _is_plain(word: str) -> bool:
    return _PLAIN_WORD.match(word) is not None
