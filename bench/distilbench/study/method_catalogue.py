"""What can be asked for, read without importing torch: methods are parsed, not run."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import distilbench_methods
from distilbench.core.errors import UserError, one_of

if TYPE_CHECKING:
    from distilbench_methods.base import Method


@dataclass(frozen=True)
class Hyperparameter:
    """One field of a method."""

    name: str
    type: str
    default: str
    meaning: str


@dataclass(frozen=True)
class MethodDescription:
    """What a method's file says about it."""

    name: str
    summary: str
    source: str
    unverified: str
    hyperparameters: tuple[Hyperparameter, ...]


def describe_methods() -> list[MethodDescription]:
    """Every registered method and variant; one that cannot be read has a note to that effect for its summary.

    Raises `UserError` when two methods are registered under one name.
    """
    entries = []
    for name in [*_registry(), *distilbench_methods.VARIANTS]:
        try:
            entries.append(describe_method(name))
        except UserError as error:
            entries.append(MethodDescription(name, f"not usable: {error}", "", "", ()))
    return entries


def describe_method(name: str) -> MethodDescription:
    """Read a registered method's file. Raises `UserError` for a name that is not registered, or cannot be read."""
    registry = _registry()
    if name in distilbench_methods.VARIANTS:
        return _variant(name)
    if name not in registry:
        raise UserError(one_of("method", name, [*registry, *distilbench_methods.VARIANTS]))
    module, _, class_name = registry[name].partition(":")
    try:
        return _read(name, _file_of(module), class_name)
    # The module may be another package's, which may fail in any way when it is looked for.
    except Exception as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"the method {name}, registered as {registry[name]}, cannot be read: {problem}") from None


def describe_class(method: type[Method]) -> MethodDescription:
    """Read the file of a method's class. Raises `OSError` or `TypeError` where it has none, as in a notebook."""
    return _read(method.name, Path(inspect.getfile(method)), method.__name__)


def _variant(name: str) -> MethodDescription:
    """What the method's file says, with the variant's settings for defaults."""
    base, settings = distilbench_methods.VARIANTS[name]
    entry = describe_method(base)
    shown = ", ".join(f"{key} {value}" for key, value in settings.items())
    changed = tuple(
        replace(item, default=repr(settings[item.name]) if item.name in settings else item.default)
        for item in entry.hyperparameters
    )
    return replace(entry, name=name, summary=f"{base} with {shown}.", hyperparameters=changed)


def _registry() -> dict[str, str]:
    try:
        return distilbench_methods.registry()
    except ValueError as error:
        raise UserError(str(error)) from None


def _file_of(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"there is no module {module}")
    return Path(spec.origin)


def _read(name: str, file: Path, class_name: str) -> MethodDescription:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    body = next((node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name), [])
    fields = _documented_fields(body)
    return MethodDescription(
        name=name,
        summary=(ast.get_docstring(tree) or "").split("\n", 1)[0],
        source=_constant(fields, "source"),
        unverified=_constant(fields, "unverified"),
        hyperparameters=tuple(
            Hyperparameter(field.target.id, ast.unparse(field.annotation), _default(field), meaning)
            for field, meaning in fields
            if isinstance(field.target, ast.Name) and "ClassVar" not in ast.unparse(field.annotation)
        ),
    )


def _documented_fields(body: list[ast.stmt]) -> list[tuple[ast.AnnAssign, str]]:
    following = [*body[1:], ast.Pass()]
    return [
        (node, _docstring(after))
        for node, after in zip(body, following, strict=True)
        if isinstance(node, ast.AnnAssign)
    ]


def _docstring(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


def _default(field: ast.AnnAssign) -> str:
    return ast.unparse(field.value) if field.value is not None else ""


def _constant(fields: list[tuple[ast.AnnAssign, str]], name: str) -> str:
    for field, _ in fields:
        if isinstance(field.target, ast.Name) and field.target.id == name and field.value is not None:
            return " ".join(str(ast.literal_eval(field.value)).split())
    return ""
