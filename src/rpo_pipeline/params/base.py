"""What every block of parameters has in common."""

from os.path import expanduser
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

Split = Literal["train", "validation", "test"]
ModelPlace = Annotated[str, AfterValidator(expanduser)]
"""A hub id, or a folder, whose ``~`` is the user's own."""


class Params(BaseModel):
    """Base of every block: frozen, and unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
