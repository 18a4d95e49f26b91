"""Settings of a language model behind an endpoint, and checks of its template."""

from typing import Any, Self

from jinja2 import Environment, TemplateSyntaxError, meta
from pydantic import Field, model_validator

from rpo_pipeline.params.base import Params


class EndpointParams(Params):
    """A language model behind an OpenAI-compatible endpoint, and its ceilings."""

    base_url: str
    """Address of the endpoint without ``/chat/completions``."""
    model: str
    """Name of the model at the endpoint."""
    api_key_variable: str | None = None
    """Environment variable that holds the key; null for an endpoint without keys."""
    concurrency: int = Field(default=8, gt=0)
    """Number of requests in parallel."""
    timeout_seconds: float = Field(default=60.0, gt=0)
    """Time limit of one attempt."""
    max_retries: int = Field(default=5, ge=0)
    """Number of attempts after the first, with growing pauses, if the endpoint is busy or fails."""
    give_up_after: int = Field(default=20, gt=0)
    """Number of failed requests in a row, retries included, after which no more are sent."""
    max_answer_tokens: int = Field(default=300, gt=0)
    """Largest number of tokens of an answer; longer answers are cut and unusable."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Ceiling on the tokens of prompts and answers in one pass; null for none."""
    max_cost: float | None = Field(default=None, gt=0)
    """Ceiling on the cost of one pass, in the currency of the prices; null for none."""
    prompt_price: float | None = Field(default=None, ge=0)
    """Price of a million tokens sent."""
    answer_price: float | None = Field(default=None, ge=0)
    """Price of a million tokens received."""
    seed: int = 0
    """Seed in each request; the temperature is 0."""
    request: dict[str, Any] = {}
    """Fields to add to each request or to replace; null removes one, such as ``seed`` if the
    endpoint refuses it."""

    @property
    def decisive(self) -> dict[str, Any]:
        """Settings that an answer depends on, without key, ceilings, prices and retries."""
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
    """Refuse a Jinja template that lacks a required variable, or names an unknown one."""
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
