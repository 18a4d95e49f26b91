"""A language model behind an endpoint, and the text that it is asked with."""

from typing import Any, Self

from jinja2 import Environment, TemplateSyntaxError, meta
from pydantic import Field, model_validator

from rpo_pipeline.params.base import Params


class EndpointParams(Params):
    """A language model behind an OpenAI-compatible endpoint, and what it may cost."""

    base_url: str
    """Of the endpoint, up to and without ``/chat/completions``."""
    model: str
    """Its name there."""
    api_key_variable: str | None = None
    """Environment variable that holds the key; null: the endpoint asks for none."""
    concurrency: int = Field(default=8, gt=0)
    """Requests under way at one time."""
    timeout_seconds: float = Field(default=60.0, gt=0)
    """Of one attempt."""
    max_retries: int = Field(default=5, ge=0)
    """Attempts after the first, with growing pauses, where the endpoint is busy or fails."""
    give_up_after: int = Field(default=20, gt=0)
    """Requests in a row without an answer, retries included, after which no more are sent."""
    max_answer_tokens: int = Field(default=300, gt=0)
    """Longer answers are cut, and then broken."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Tokens, of prompts and answers, that one pass may use; null: no ceiling."""
    max_cost: float | None = Field(default=None, gt=0)
    """What one pass may cost, in the currency of the prices; null: no ceiling."""
    prompt_price: float | None = Field(default=None, ge=0)
    """Of a million tokens sent."""
    answer_price: float | None = Field(default=None, ge=0)
    """Of a million tokens received."""
    seed: int = 0
    """Sent with each request, as is temperature 0."""
    request: dict[str, Any] = {}
    """Fields to add to each request, or to replace; null leaves one out, such as ``seed`` where
    the endpoint refuses it."""

    @property
    def decisive(self) -> dict[str, Any]:
        """What an answer depends on; the key, ceilings, prices and patience do not."""
        return self.model_dump(
            include={"base_url", "model", "max_answer_tokens", "seed", "request"}
        )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if "@" in self.base_url.partition("://")[2].partition("/")[0]:
            raise ValueError("base_url must not hold a password; use api_key_variable")
        if (self.prompt_price is None) != (self.answer_price is None):
            raise ValueError("give both of prompt_price and answer_price, or neither")
        if self.max_cost is not None and self.prompt_price is None:
            raise ValueError("max_cost needs prompt_price and answer_price")
        return self


def check_template(template: str, needed: set[str], known: set[str]) -> None:
    """Refuse a Jinja template that lacks a variable, or names one that nothing fills."""
    try:
        used = meta.find_undeclared_variables(Environment(autoescape=False).parse(template))
    except TemplateSyntaxError as err:
        raise ValueError(f"template: line {err.lineno}: {err.message}") from None
    if needed - used:
        raise ValueError(f"template: {{{{ {min(needed - used)} }}}} does not stand in it")
    if used - needed - known:
        raise ValueError(
            f"template: there is no {{{{ {min(used - needed - known)} }}}}, only "
            f"{', '.join(sorted(needed | known))}"
        )
