"""Base class and types of all blocks of parameters."""

from os.path import expanduser
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Split = Literal["train", "validation", "test"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Seed in the range that torch accepts."""
ModelPlace = Annotated[str, AfterValidator(expanduser)]
"""Hub id or folder, in which ``~`` is the user's home."""


class Params(BaseModel):
    """Base of every block: it is frozen, numbers are finite, and unknown keys are an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, values: object) -> object:
        """Refuse booleans as numbers: YAML reads ``yes`` as true, and Python takes true for 1."""
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) and name in cls.model_fields:
                kinds = _kinds(cls.model_fields[name].annotation)
                if kinds & {int, float} and bool not in kinds:
                    raise ValueError(f"{name} must be a number, got {value}")
        return values


def _kinds(annotation: object) -> set[object]:
    """Return the members of a union, or another type itself."""
    if get_origin(annotation) not in (Annotated, Union, UnionType):
        return {annotation}
    return set().union(*(_kinds(one) for one in get_args(annotation)))
