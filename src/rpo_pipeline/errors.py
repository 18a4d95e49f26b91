"""Errors whose messages say what is wrong, the value, what is allowed, and where to change it.

Every error that a user can cause derives from ``RpoError`` and also from the built-in error that
it refines. The command line prints an ``RpoError`` without a traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class RpoError(Exception):
    """Base of every error that this project raises on purpose."""


class ConfigError(RpoError, ValueError):
    """A parameter, or a combination of parameters, that cannot work."""


class DataError(RpoError, ValueError):
    """Feedback that is missing, unreadable, or not enough to work with."""


class ModelError(RpoError, ValueError):
    """A model or tokenizer that cannot be loaded, built or used."""


class TrainingError(RpoError, RuntimeError):
    """Training that cannot continue, for instance because a loss is not finite."""


class StaleReferenceError(TrainingError):
    """Cached log-probabilities that are not those of the model that training starts from."""


class RegistryError(RpoError, RuntimeError):
    """A tracking server or model registry that does not answer as it must."""


def did_you_mean(given: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Write a hint, ``did you mean tau? ``, or an empty text if no known name is similar."""
    close = get_close_matches(given, list(known), n=1, cutoff=cutoff)
    return f"did you mean {close[0]}? " if close else ""
