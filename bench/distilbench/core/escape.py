"""Names and texts of others, so that no medium takes them for orders: one function for each medium.

All of them begin with `visible`: what a reader cannot see is written out.
"""

from __future__ import annotations

import html
import re
import unicodedata

LONGEST_WORD = 400
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of control, format and surrogate characters, and of separators that break a line."""
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
"""Letters and marks that show nothing."""
JOINERS = "\u200c\u200d"
SELECTORS = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
"""Choose between two forms of the character before them, and show nothing themselves."""
IGNORED = (range(0x2065, 0x2066), range(0xFFF0, 0xFFF9), range(0xE0000, 0xE1000))
"""Not assigned yet; whatever they will be, they are to show nothing where they are not known."""
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "—": "---",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}
MARKDOWN = re.compile(
    # What formats wherever it stands; an underscore within a word does not.
    r"[\\`*|\[\]~$]|(?<![^\W_])_|_(?![^\W_])"
    # What makes a block of a line.
    r"|^[-+](?=\s|$)|^[-=](?=[-=]*$)|^#(?=#{0,5}(\s|$))|(?<=\s)#(?=#*$)"
    # What GitHub makes links of.
    r"|:(?=//)|(?<=\bwww)\.|(?<=\w)@(?=[\w-]+\.\w)",
    re.IGNORECASE,
)
NUMBERED = re.compile(r"^(\d{1,9})([.)])(?=\s|$)", re.ASCII)
FORMULA = ("=", "+", "-", "@")


def visible(text: str) -> str:
    """`text` on one line, as a terminal or an XML file can take it: what is not seen is written as Python does."""
    # Most texts are plain, and tables are many of them.
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        ascii(sign)[1:-1] if _is_unseen(sign, text[place - 1 : place], text[place + 1 : place + 2]) else sign
        for place, sign in enumerate(text)
    )


def _is_unseen(sign: str, before: str, after: str) -> bool:
    if _is_in(sign, SELECTORS):
        # Letters that everybody knows have one form, and whoever has chosen already chooses no more.
        return before.isascii() or _is_in(before, SELECTORS)
    if sign.isprintable():
        return sign in BLANK
    # Scripts and emoji need joiners; between letters that everybody knows they would only make two names look alike.
    if sign in JOINERS:
        return not (before and after) or before.isascii() or after.isascii()
    return unicodedata.category(sign) in UNSEEN or _is_in(sign, IGNORED) or _is_no_character(ord(sign))


def _is_in(sign: str, points: tuple[range, ...]) -> bool:
    return any(ord(sign) in some for some in points)


def _is_no_character(point: int) -> bool:
    """What neither UTF-8 nor XML needs to hold."""
    return point & 0xFFFE == 0xFFFE or 0xFDD0 <= point <= 0xFDEF


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


def escape_latex(text: str) -> str:
    """`text` as LaTeX source that prints it; line breaks become spaces."""
    shown = "".join(LATEX.get(sign, sign) for sign in visible(" ".join(text.split())))
    # At the start of a row these two belong to the command that ended the row before.
    return f"{{{shown[0]}}}{shown[1:]}" if shown.startswith(("[", "*")) else shown


def escape_markdown(text: str) -> str:
    """`text` as Markdown source that prints it, as a line or inside a table cell; line breaks become spaces.

    Links and images stay text, and so do the addresses that GitHub would make links of.
    """
    escaped = MARKDOWN.sub(r"\\\g<0>", visible(" ".join(text.split())))
    return html.escape(NUMBERED.sub(r"\1\\\2", escaped), quote=False)


def escape_html(text: str) -> str:
    """`text` as HTML that shows it, in an attribute too; line breaks stay."""
    return html.escape(visible_lines(text))


def escape_csv(text: str) -> str:
    """`text` as a cell of a CSV file, on one line; before what a spreadsheet takes for a formula is an apostrophe."""
    shown = visible(text)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def escape_github(text: str, *, is_property: bool = False) -> str:
    """For the message of a workflow command of GitHub Actions, or for one of its properties."""
    for sign in "%\r\n:," if is_property else "%\r\n":
        text = text.replace(sign, f"%{ord(sign):02X}")
    return visible(text)
