"""What all sections of a study file are."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from distilbench.core.errors import shown
from distilbench.core.stored_json import LARGEST

PositiveInt = Annotated[int, Field(gt=0)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=80)]


class Section(BaseModel):
    """Keys that are known, values that do not change; a field's docstring is its meaning in `docs/study.md`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # YAML reads `yes` and `on` as True, and pydantic would read that as 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"yes or no is no value for this key, got {value}")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_that_no_record_holds(cls, value: Any) -> Any:
        check_numbers(value)
        return value


def check_numbers(value: Any) -> None:
    """Raise `ValueError` for a whole number in a value that no record could hold and give back."""
    left, seen = [value], set[int]()
    while left:
        item = left.pop()
        if isinstance(item, int) and abs(item) >= LARGEST:
            raise ValueError(f"{shown(item)} is too large a number; give one below 2^63")
        # An alias of YAML may stand for a list in many places, or within itself.
        if isinstance(item, dict | list) and id(item) not in seen:
            seen.add(id(item))
            left += [*item.keys(), *item.values()] if isinstance(item, dict) else item
