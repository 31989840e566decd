"""English sentences and summary -> body pairs from the docstrings of the installed dependencies.

The packages are parsed with `ast` and never imported. Nothing is committed and nothing is downloaded, so the text
changes with the installed versions; whoever reports a score on it records those versions.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from distilbench.core.errors import UserError
from distilbench.data.embedded.prose import Reader, is_prose, split_sentences

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
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class DocstringPair:
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
            for number, (text, prose) in enumerate(Reader().read(doc)):
                for sentence in split_sentences(text):
                    if is_prose(sentence, may_lack_stop=prose and number == 0):
                        found.setdefault(normalise(sentence), sentence)
    return list(found.values())


def pairs(packages: Iterable[str]) -> list[DocstringPair]:
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
def _cached_pairs(packages: tuple[str, ...]) -> tuple[DocstringPair, ...]:
    """The evaluation pairs, which both the training text and the task need."""
    return tuple(pairs(packages))


def training_sentences() -> list[str]:
    """Sentences of the training packages, without any that equals an evaluation summary, body or body sentence.

    Raises `UserError` for an evaluation package that is not installed.
    """
    held_out = _held_out()
    return [sentence for sentence in sentences(TRAIN_PACKAGES) if normalise(sentence) not in held_out]


def training_triples() -> list[tuple[str, str, str]]:
    """(summary, its body, the body of the next docstring of the same package) of the training packages.

    What the docstring task asks, with the neighbour for a hard negative. Without texts of the evaluation packages.
    """
    held_out = _held_out()
    found = pairs(TRAIN_PACKAGES)
    kept = [pair for pair in found if not {normalise(pair.summary), normalise(pair.body)} & held_out]
    following = [*kept[1:], *kept[:1]]
    return [
        (pair.summary, pair.body, other.body)
        for pair, other in zip(kept, following, strict=True)
        if pair.package == other.package
    ]


def _held_out() -> set[str]:
    texts: set[str] = set()
    for pair in _cached_pairs(EVAL_PACKAGES):
        texts.update(map(normalise, (pair.summary, pair.body, *split_sentences(pair.body))))
    return texts


def retrieval_set(
    max_queries: int = 300, max_documents: int = 1500
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


def _candidates(package: str) -> Iterator[tuple[DocstringPair, list[str]]]:
    """Pairs whose bodies are still lists of sentences."""
    for name, doc in _docstrings(package):
        paragraphs = Reader().read(doc)
        if not paragraphs or not paragraphs[0][1]:
            continue
        summary, *rest = split_sentences(paragraphs[0][0])
        body = [*rest, *(sentence for text, prose in paragraphs[1:] if prose for sentence in split_sentences(text))]
        if is_prose(summary, may_lack_stop=True) and len(summary.split()) <= 30:
            yield DocstringPair(package, name, summary, ""), list(filter(is_prose, body))


def _cut(body: list[str]) -> str:
    """The first sentences that together have at most `_BODY_WORDS` words."""
    words, kept = 0, []
    for sentence in body:
        words += len(sentence.split())
        if words > _BODY_WORDS:
            break
        kept.append(sentence)
    return " ".join(kept)
