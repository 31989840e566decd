"""The page on every key of a study file, made from the keys themselves: `python -m distilbench.study.reference`."""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic.fields import FieldInfo

from distilbench.study.sections.section import Section
from distilbench.study.sections.texts import OwnTask, PartOfTask
from distilbench.study.study import SECTIONS

TITLE = """# The keys of a study file

Made from the code by `python -m distilbench.study.reference`. A key that is not listed here is refused. On the command
line `distilbench run mine.yaml train.batch_size=32` changes one key. [ablations.md](ablations.md) has examples of
`ablate` and `tune`; hyperparameters of methods are in [the page on methods](../methods/README.md).
"""
KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "object": "mapping",
}
TITLES = {"ablate": "ablate: NAME", "tasks": "tasks: NAME", "part": "tasks: NAME OF MTEB"}
"""Of mappings that stand under a name of the user's choice."""
BOUNDS = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "to"}


def markdown() -> str:
    """The page: a section for each mapping of the file, a row for each key."""
    sections: dict[str, type[Section]] = {**SECTIONS, "tasks": OwnTask, "part": PartOfTask}
    return "\n".join([TITLE, *(_section(TITLES.get(name, name), section) for name, section in sections.items())])


def _section(name: str, section: type[Section]) -> str:
    """Heading, what the mapping is for, and its keys."""
    schema = section.model_json_schema()
    # Of a section that may hold its own kind, the schema stands among the definitions.
    properties = schema["$defs"][section.__name__]["properties"] if "$ref" in schema else schema["properties"]
    nested = {key for key in properties if not name and key in SECTIONS}
    lines = [
        f"| `{key}` | {_values(facts)} | {_default(section.model_fields[key])} | {_meaning(section, key)} |"
        for key, facts in properties.items()
        # The name of a task is the key that its mapping stands under.
        if key not in nested and not (section in (OwnTask, PartOfTask) and key == "name")
    ]
    about = " ".join((section.__doc__ or "").split())
    title = f"## `{name}`" if name else "## The study itself"
    more = f"\nMappings of their own: {', '.join(f'`{key}`' for key in sorted(nested))}.\n" if nested else ""
    return "\n".join([title, "", about, more, "| key | value | default | meaning |", "|---|---|---|---|", *lines, ""])


def _meaning(section: type[Section], key: str) -> str:
    return " ".join((section.model_fields[key].description or "").split()).replace("|", "\\|")


def _values(facts: dict[str, Any], plural: str = "") -> str:
    """What a key takes, in words, from its JSON schema."""
    if "anyOf" in facts:
        return " or ".join(_values(kind) for kind in facts["anyOf"] if kind.get("type") != "null")
    if "enum" in facts:
        return " or ".join(f"`{value}`" for value in facts["enum"])
    if facts.get("type") == "array":
        items = facts.get("items", {})
        return f"list of {_values(items, plural='s')}" if items.get("type") in KINDS else "list"
    bounds = [f"{word} {facts[bound]:g}" for bound, word in BOUNDS.items() if bound in facts]
    return " ".join([f"{KINDS[facts['type']]}{plural}" if "type" in facts else "as described", *bounds])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default in (None, []) or field.default_factory is not None:
        return "unset"
    return f"`{field.default if isinstance(field.default, str) else json.dumps(field.default)}`"


if __name__ == "__main__":
    sys.stdout.write(markdown())
