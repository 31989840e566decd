"""Reading a study's file: YAML without its traps, overrides, and mistakes said in one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from distilbench.core.bounds import check_size, no_file
from distilbench.core.errors import UserError, one_of, shown
from distilbench.study.study import Study

MOST_BYTES = 2**20
"""Of a study's file."""
SHIPPED = Path(__file__).parent / "shipped"


def shipped_studies() -> dict[str, Path]:
    """Name -> file of the studies that come with distilbench."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def load_study(
    name_or_path: str,
    overrides: list[str] = [],  # noqa: B006
    limit: int | None = None,
    budget: str | None = None,
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> Study:
    """Read a shipped study by name, or a file, apply `key=value` overrides, and validate.

    `changes` are values that take the place of whole keys of the study.
    `limit` caps text and tasks for a smoke run. `budget`, as `currency=amount`, takes the place of the study's own and
    makes it another study, `<name>-<currency>`. Raises `UserError` naming file and key.
    """
    path = shipped_studies().get(name_or_path, Path(name_or_path))
    if not _is_file(path) and not _is_given_by_the_shell(path):
        if _is_else(path):
            raise UserError(f"{no_file(path)}; give a study's file, or pipe one into /dev/stdin")
        raise UserError(f"no study file {shown(name_or_path)}; {one_of('study', name_or_path, shipped_studies())}")
    values = {**_mapping_in(path), **changes}
    told = [*(f"{key}={shown(value)}" for key, value in changes.items()), *overrides]
    for override in overrides:
        _apply(values, override)
    if limit is not None:
        values["limit"] = limit
    if budget is not None:
        _apply_budget(values, budget)
        told.append(f"--budget {budget}")
    try:
        return check_study(Study.model_validate(values))
    except UserError as error:
        where = f"{path} with {' '.join(told)}" if told else str(path)
        raise UserError(f"{where}: {error}") from None


def _mapping_in(path: Path) -> dict[str, Any]:
    """The keys of a study's file."""
    try:
        values = _read_yaml(_text_of(path))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds {_kind(values)}; a study is a mapping of keys (teacher, methods ...)")
    return values


def _apply_budget(values: dict[str, Any], budget: str) -> None:
    """Put another budget in the place of the study's own; its currency is added to the study's name."""
    if "=" not in budget:
        raise UserError(f"--budget {budget!r} is not of the form key=value, for example sentences=5000")
    _apply(values, f"budget.{budget}")
    if "name" in values:
        values["name"] = f"{values['name']}-{budget.partition('=')[0]}"


def check_study(study: Study) -> Study:
    """The study itself. Raises `UserError` for ablations and search spaces that it cannot have."""
    from distilbench.study.ablation import parts
    from distilbench.study.search_space import check_spaces

    try:
        parts(study)
        check_spaces(study)
    except ValueError as error:
        raise UserError(str(error)) from None
    return study


def _is_file(path: Path) -> bool:
    # The system answers a name that is too long for it with an error.
    try:
        return path.is_file()
    except OSError:
        return False


def _is_else(path: Path) -> bool:
    """Whether something other than a file is there."""
    try:
        return path.exists()
    except OSError:
        return False


def _is_given_by_the_shell(path: Path) -> bool:
    """Whether it is a pipe that is open already, as in `distilbench run <(...)`."""
    try:
        return path.is_fifo() and path.is_relative_to("/dev")
    except OSError:
        return False


def _text_of(path: Path) -> str:
    if path.is_file():
        check_size(path, MOST_BYTES)
    with path.open("rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"has more than {MOST_BYTES} bytes, which no study has; make it smaller")
    return content.decode("utf-8")


class _Loader(yaml.SafeLoader):
    """Reads plain values as YAML 1.2's core schema does: `yes` is text, `010` is ten, `2:30` no number of seconds.

    A key that is given twice, of which all values but the last would be lost, is refused.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.YAMLError(
                        f"the key {key.value!r} is given twice, again in line {key.start_mark.line + 1}"
                    )
                seen.add(key.value)
        return node


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0 if text[:2] in ("0x", "0o") else 10)


_Loader.yaml_implicit_resolvers = {}
# The merging of mappings (<<) is of YAML 1.1, and in use all the same.
for tag, pattern, starts in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), starts)
_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def _read_yaml(text: str) -> Any:
    """The value of a YAML document. Raises `ValueError` when it has none."""
    try:
        return yaml.load(text, _Loader)
    # yaml lets through the errors of tags like `!!timestamp` and `!!bool` on what is none.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(str(error)) from None
    except (LookupError, AttributeError, TypeError) as error:
        raise ValueError(f"a value does not fit its tag: {error}") from None


def _kind(value: Any) -> str:
    return {type(None): "nothing", list: "a list"}.get(type(value), f"a {type(value).__name__}")


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *parents, last = key.split(".")
    if not equals or not all((*parents, last)):
        raise UserError(f"override {override!r} is not of the form key=value, for example budget.sentences=5000")
    target = values
    for parent in parents:
        section = target.setdefault(parent, {})
        if not isinstance(section, dict):
            raise UserError(f"override {override!r}: {parent} is not a mapping")
        # An alias in the file, or a mapping of the caller's, is the same object in other places.
        target[parent] = target = dict(section)
    try:
        value = _read_yaml(text)
    except ValueError as error:
        raise UserError(f"override {override!r} is not readable YAML: {' '.join(str(error).split())}") from None
    if parents == ["budget"]:
        target.clear()
    target[last] = value
