"""The kit from the command line: names and settings as words, errors as sentences."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import PydanticUserError

import distilbench_methods
from distilbench.conformance import ConformanceResult, conform
from distilbench.core.errors import UserError, one_of
from distilbench.study.rows import hyperparameters
from distilbench_methods.base import Method


def conform_in_words(name: str, overrides: list[str]) -> list[ConformanceResult]:
    """Check a method, or a variant of one, with hyperparameters given as `key=value`: see `outcomes_of`."""
    return outcomes_of(name, dict(map(_setting, overrides)))


def outcomes_of(method: str | type[Method], given: dict[str, Any]) -> list[ConformanceResult]:
    """Check a method by its name or that of a variant, or a class, with some hyperparameters.

    Raises `UserError` for an unknown name or hyperparameter, and for a method that cannot be made.
    """
    try:
        return conform(*(_named(method, given) if isinstance(method, str) else (method, given)))
    # Pydantic's is for fields of a type that it does not know.
    except (ValueError, PydanticUserError) as error:
        raise UserError(" ".join(str(error).split())) from None


def _named(name: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method behind a name, and its hyperparameters: those of a variant, and those that are given."""
    base, preset = distilbench_methods.VARIANTS.get(name, (name, {}))
    if base not in distilbench_methods.registry():
        raise UserError(one_of("method", name, [*distilbench_methods.registry(), *distilbench_methods.VARIANTS]))
    # Unset ones keep their defaults, which a check looks at.
    return base, hyperparameters(base, {**preset, **given}) if given else preset


def _setting(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"{override!r} is not of the form key=value, for example temperature=0.1")
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{override!r} is not readable YAML: {' '.join(str(error).split())}") from None
