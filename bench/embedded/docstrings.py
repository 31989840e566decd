"""English sentences and summary -> body pairs from the docstrings of the installed dependencies.

The packages are parsed with `ast` and never imported. Nothing is committed and nothing is downloaded, so the text
changes with the installed versions; whoever reports a score on it records those versions.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from bench.errors import UserError

EVAL_PACKAGES = ("scipy", "sklearn", "networkx")
TRAIN_PACKAGES = (
    *("torch", "transformers", "pandas", "numpy", "matplotlib", "polars", "huggingface_hub", "sentence_transformers"),
    *("mteb", "datasets", "pydantic", "narwhals", "PIL", "rich", "fsspec", "jinja2", "joblib", "pyarrow", "urllib3"),
    *("requests", "packaging"),
)

_SKIPPED_FOLDERS = {
    *("tests", "test", "testing", "_testing"),  # no prose
    *("_vendor", "externals", "_lib"),  # copies of other packages, which may be on the other side of the split
    *("models", "_inductor", "_dynamo"),  # long files with few or repeated docstrings: slow to parse, little to gain
}
_BYTES_PER_DOCSTRING = 3000
_MAX_SPREAD = 3
_BODY_WORDS = 120

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
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
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


@dataclass(frozen=True)
class Pair:
    """A docstring's summary (the query) and the prose that follows it (the document)."""

    package: str
    name: str
    """Qualified name below the package, `package` itself for the package's own docstring."""
    summary: str
    body: str


def normalise(text: str) -> str:
    """`text` as lower-case letters and digits only, for equality checks."""
    return _NOT_ALPHANUMERIC.sub("", text.lower())


def sentences(packages: Iterable[str]) -> list[str]:
    """Distinct English sentences of 4 to 60 words, in the order of packages, files and lines.

    A package that is not installed is passed over, unless it is an evaluation package: then `UserError`.
    """
    found: dict[str, str] = {}
    for package in packages:
        for _, doc in _docstrings(package):
            for number, (text, prose) in enumerate(_Reader().read(doc)):
                for sentence in _split(text):
                    if _is_prose(sentence, may_lack_stop=prose and number == 0):
                        found.setdefault(normalise(sentence), sentence)
    return list(found.values())


def pairs(packages: Iterable[str]) -> list[Pair]:
    """Pairs with unique names, summaries (4 to 30 words) and bodies (12 to about 120 words), in the order of files.

    Raises `UserError` for an evaluation package that is not installed.
    """
    candidates = [candidate for package in packages for candidate in _candidates(package)]
    spread = Counter(key for _, body in candidates for key in set(map(normalise, body)))
    seen: set[str] = set()
    kept = []
    for pair, body in candidates:
        # Boilerplate would make one body answer many queries.
        pair = replace(pair, body=_cut([text for text in body if spread[normalise(text)] <= _MAX_SPREAD]))
        query, document = normalise(pair.summary), normalise(pair.body)
        keys = {f"{pair.package}:{pair.name}", query, document}
        if len(pair.body.split()) >= 12 and not document.startswith(query) and not keys & seen:
            seen |= keys
            kept.append(pair)
    return kept


@lru_cache(maxsize=1)
def _cached_pairs(packages: tuple[str, ...]) -> tuple[Pair, ...]:
    """The evaluation pairs, which both the training text and the task need."""
    return tuple(pairs(packages))


def training_sentences() -> list[str]:
    """Sentences of the training packages, without any that equals an evaluation summary, body or body sentence.

    Raises `UserError` for an evaluation package that is not installed.
    """
    held_out: set[str] = set()
    for pair in _cached_pairs(EVAL_PACKAGES):
        held_out.update(map(normalise, (pair.summary, pair.body, *_split(pair.body))))
    return [sentence for sentence in sentences(TRAIN_PACKAGES) if normalise(sentence) not in held_out]


def retrieval_set(
    max_queries: int = 1000, max_documents: int = 3000
) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    """Queries, documents and relevance by id "package:qualified.name"; each query has one relevant document.

    Drawn by a hash of the id, so that a docstring added to a package displaces few others.
    Raises `UserError` for an evaluation package that is not installed.
    """
    named = {f"{pair.package}:{pair.name}": pair for pair in _cached_pairs(EVAL_PACKAGES)}
    ids = sorted(named, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:max_documents]
    queries = {name: named[name].summary for name in ids[:max_queries]}
    return queries, {name: named[name].body for name in ids}, {name: {name: 1} for name in queries}


def _files(package: str) -> list[tuple[str, Path]]:
    """Dotted module name below the package and file, in a fixed order."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        if package in EVAL_PACKAGES:
            raise UserError(
                f"package {package!r}, a source of the retrieval task, is not installed; install it with pip"
            )
        return []
    found = []
    for folder in map(Path, folders):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            if not _SKIPPED_FOLDERS.intersection(parts):
                found.append((".".join(part for part in parts if part != "__init__"), path))
    return sorted(found)


def _docstrings(package: str) -> Iterator[tuple[str, str]]:
    """Qualified name below the package and text of each distinct docstring."""
    seen: set[str] = set()
    for module, path in _files(package):
        source = path.read_bytes()
        # Parsing is the slowest step, and much of its time would go to long files with few docstrings.
        if package not in EVAL_PACKAGES and 2 * len(source) > _BYTES_PER_DOCSTRING * (
            source.count(b'"""') + source.count(b"'''")
        ):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            continue
        for name, doc in ((module or package, ast.get_docstring(tree, clean=False)), *_documented(tree.body, module)):
            if doc and doc not in seen:
                seen.add(doc)
                yield name, doc


def _documented(nodes: Iterable[ast.stmt], prefix: str) -> Iterator[tuple[str, str | None]]:
    for node in nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}.{node.name}".lstrip(".")
            yield name, ast.get_docstring(node, clean=False)
            if isinstance(node, ast.ClassDef):
                yield from _documented(node.body, name)
        elif isinstance(node, ast.If | ast.Try):
            yield from _documented([*node.body, *node.orelse], prefix)
        elif isinstance(node, ast.Expr | ast.Assign) and isinstance(node.value, ast.Call):
            yield from _attached(node.value, prefix)


def _attached(call: ast.Call, prefix: str) -> Iterator[tuple[str, str]]:
    """Docstrings of compiled functions, as in `add_newdoc("name", "text")`."""
    function = ast.unparse(call.func)
    if "doc" in function and "add" in function:
        nodes = [node for argument in call.args for node in ast.walk(argument)]
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        texts += [ast.unparse(node) for node in call.args[:1] if not isinstance(node, ast.Constant)]
        name = ".".join([prefix, *(text for text in texts if text.replace(".", "").isidentifier())])
        yield name, max(texts, key=len, default="")


class _Reader:
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


def _split(text: str) -> list[str]:
    """Sentences of a paragraph; a stop after an abbreviation ends none."""
    found: list[str] = []
    for piece in _SENTENCE_END.split(text):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] += " " + piece
        else:
            found.append(piece)
    return found


def _is_prose(sentence: str, *, may_lack_stop: bool = False) -> bool:
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


def _candidates(package: str) -> Iterator[tuple[Pair, list[str]]]:
    """Pairs whose bodies are still lists of sentences."""
    for name, doc in _docstrings(package):
        paragraphs = _Reader().read(doc)
        if not paragraphs or not paragraphs[0][1]:
            continue
        summary, *rest = _split(paragraphs[0][0])
        body = [*rest, *(sentence for text, prose in paragraphs[1:] if prose for sentence in _split(text))]
        if _is_prose(summary, may_lack_stop=True) and len(summary.split()) <= 30:
            yield Pair(package, name, summary, ""), list(filter(_is_prose, body))


def _cut(body: list[str]) -> str:
    """The first sentences that together have at most `_BODY_WORDS` words."""
    words, kept = 0, []
    for sentence in body:
        words += len(sentence.split())
        if words > _BODY_WORDS:
            break
        kept.append(sentence)
    return " ".join(kept)
