"""An OpenAI-compatible endpoint: retries, structured output if it is supported, and accounting."""

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import openai
from pydantic import BaseModel, Field, ValidationError

from rpo_pipeline.errors import ConfigError
from rpo_pipeline.judge.budget import Budget, Tokens
from rpo_pipeline.judge.texts import request_fields, response_format
from rpo_pipeline.params import EndpointParams, variable
from rpo_pipeline.secrets import keep_secret

logger = logging.getLogger(__name__)

# Errors that only a change of settings can resolve.
MISCONFIGURED = openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError
# Errors of an endpoint that does not know a field of the request.
REFUSED = openai.BadRequestError, openai.UnprocessableEntityError


@dataclass(frozen=True)
class Reply:
    """Text of an answer, or the problem that there was instead."""

    text: str | None
    problem: str = ""
    is_final: bool = False
    """Whether the question must not be repeated: it got no answer at all, or was not sent."""


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class _Completion(BaseModel):
    """Fields of a chat completion that are read; the package itself does not check responses."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class Endpoint:
    """Sends requests, each reserved in a budget and settled with it; it is thread-safe."""

    def __init__(self, settings: EndpointParams, budget: Budget) -> None:
        self._settings, self._budget = settings, budget
        self._takes_schema = True

    @cached_property
    def _client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=self._settings.base_url,
            api_key=_api_key(self._settings),
            timeout=self._settings.timeout_seconds,
            max_retries=self._settings.max_retries,
        )

    def send(self, system: str, question: str, answer: type[BaseModel], seed: int) -> Reply:
        """Send one request: a system message, a question, and the seed of the judge's sampling.

        The model of the answer is sent as response format unless the endpoint refused it.
        ``ConfigError`` is raised if the environment lacks the key, or the endpoint refuses the key
        or the model before it has answered any request.
        """
        client = self._client  # a missing key raises here, before anything is reserved
        hold = self._budget.reserve(len(system.encode()) + len(question.encode()))
        if hold is None:
            return Reply(None, "not asked", is_final=True)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        body = {"messages": messages, "seed": seed}
        try:
            completion, num_retries = self._create_in_format(client, body, answer)
        except openai.APIError as err:
            self._budget.fail(hold, self._retries_of(err))
            return Reply(None, self._explain(err), is_final=True)
        except BaseException:
            self._budget.stop("a request broke off")  # else threads wait for its reservation
            raise
        self._budget.settle(hold, _used(completion), num_retries)
        return _read(completion)

    def _create_in_format(
        self, client: openai.OpenAI, body: dict[str, Any], answer: type[BaseModel]
    ) -> tuple[_Completion | None, int]:
        if not self._takes_schema:
            return self._create(client, body)
        try:
            return self._create(client, body | {"response_format": response_format(answer)})
        except REFUSED:
            created = self._create(client, body)  # raises again if the format was not the reason
        if self._takes_schema:
            self._takes_schema = False
            logger.warning(
                "%s refuses response_format: only the text asks for JSON", self._settings.model
            )
        return created

    def _create(
        self, client: openai.OpenAI, body: dict[str, Any]
    ) -> tuple[_Completion | None, int]:
        """Return the completion, None if the answer is none, and the number of retries."""
        settings = self._settings
        fields = request_fields(settings, body)
        raw = client.chat.completions.with_raw_response.create(
            model=settings.model, messages=fields.pop("messages"), extra_body=fields
        )
        try:
            completion = _Completion.model_validate_json(raw.http_response.content)
        except ValidationError:
            completion = None
        return completion, raw.retries_taken

    def _retries_of(self, err: openai.APIError) -> int:
        passing = not isinstance(err, openai.APIStatusError) or err.status_code >= 429
        return self._settings.max_retries if passing else 0

    def _explain(self, err: openai.APIError) -> str:
        """Return a short reason; errors of settings stop the pass, or raise if nothing worked."""
        if isinstance(err, openai.APITimeoutError):
            return "timed out"
        if not isinstance(err, openai.APIStatusError):
            return "not reached"
        if isinstance(err, MISCONFIGURED):
            settings = self._settings
            # The endpoint's own message may contain a part of the key.
            problem = f"{settings.base_url} answers HTTP {err.status_code} for {settings.model!r}"
            self._budget.stop(problem)
            if not self._budget.usage.num_requests:
                raise ConfigError(
                    f"{problem}: check base_url and model of the labeler's endpoint, and the key "
                    f"in the environment variable {settings.api_key_variable}"
                ) from None
        return f"HTTP {err.status_code}"


def _api_key(settings: EndpointParams) -> str:
    if settings.api_key_variable is None:
        return "none"  # the package requires a key
    key = variable(settings.api_key_variable)
    if not key:
        raise ConfigError(
            f"the environment variable {settings.api_key_variable} is not set; it must hold the "
            f"key of {settings.base_url} (api_key_variable of the labeler's endpoint)"
        )
    keep_secret(key)  # the name of its variable may not tell that it is secret
    return key


def _used(completion: _Completion | None) -> Tokens | None:
    usage = completion.usage if completion else None
    return Tokens(prompt=usage.prompt_tokens, answer=usage.completion_tokens) if usage else None


def _read(completion: _Completion | None) -> Reply:
    if completion is None:
        return Reply(None, "no chat completion")
    choice = completion.choices[0]
    if choice.finish_reason == "length":
        return Reply(None, "cut at max_answer_tokens")
    if not choice.message.content:
        return Reply(None, "refused")
    return Reply(choice.message.content)
