"""An OpenAI-compatible endpoint: retries, structured output where it has that, and accounting."""

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import openai
from pydantic import BaseModel, Field, ValidationError

from rpo_pipeline.errors import ConfigError
from rpo_pipeline.judge.budget import Budget, Hold
from rpo_pipeline.judge.texts import request_fields, response_format
from rpo_pipeline.params import EndpointParams, variable
from rpo_pipeline.secrets import keep_secret

logger = logging.getLogger(__name__)

# Nobody gets an answer until somebody changes the settings.
MISCONFIGURED = openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError
# What an endpoint says to a field that it does not know.
REFUSED = openai.BadRequestError, openai.UnprocessableEntityError


@dataclass(frozen=True)
class Reply:
    """What came back: a text, or why there is none."""

    text: str | None
    problem: str = ""
    is_final: bool = False
    """Whether asking again is of no use: the endpoint did not answer, or was not asked."""


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class _Completion(BaseModel):
    """What is read of a chat completion; the package itself checks nothing that comes back."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class Endpoint:
    """Sends requests, for several threads.

    Args:
        settings: Where to, and how.
        budget: Asked before each request, and told what it used.
    """

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
        """Send one request.

        Args:
            system: Who the model is.
            question: What it is asked.
            answer: What it is to answer; the format asked for, where the endpoint knows formats.
            seed: Of its sampling.

        Returns:
            The reply.

        Raises:
            ConfigError: If the environment lacks the key, or the endpoint refuses it, or the model,
                before it ever answered.
        """
        client = self._client  # without a key nothing is reserved
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
            self._budget.stop("a request broke off")  # or others wait for what it holds
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
            created = self._create(client, body)  # fails again if the format was not the reason
        if self._takes_schema:
            self._takes_schema = False
            logger.warning(
                "%s refuses response_format: JSON is asked for in words alone", self._settings.model
            )
        return created

    def _create(
        self, client: openai.OpenAI, body: dict[str, Any]
    ) -> tuple[_Completion | None, int]:
        """The answer, if it is a chat completion, and how often the endpoint was asked again."""
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
        """A short reason; where nobody can get an answer, an error or the end of the pass."""
        if isinstance(err, openai.APITimeoutError):
            return "timed out"
        if not isinstance(err, openai.APIStatusError):
            return "not reached"
        if isinstance(err, MISCONFIGURED):
            settings = self._settings
            # What the endpoint itself says may hold a part of the key.
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
        return "none"  # the package insists on one
    key = variable(settings.api_key_variable)
    if not key:
        raise ConfigError(
            f"the environment variable {settings.api_key_variable} is not set; it must hold the "
            f"key of {settings.base_url} (api_key_variable of the labeler's endpoint)"
        )
    keep_secret(key)  # whatever its variable is called
    return key


def _used(completion: _Completion | None) -> Hold | None:
    usage = completion.usage if completion else None
    return Hold(usage.prompt_tokens, usage.completion_tokens) if usage else None


def _read(completion: _Completion | None) -> Reply:
    if completion is None:
        return Reply(None, "no chat completion")
    choice = completion.choices[0]
    if choice.finish_reason == "length":
        return Reply(None, "cut at max_answer_tokens")
    if not choice.message.content:
        return Reply(None, "refused")
    return Reply(choice.message.content)
