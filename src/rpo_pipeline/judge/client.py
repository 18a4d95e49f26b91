"""Client of a judge that rates one response or compares two."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

from rpo_pipeline.judge.budget import Budget
from rpo_pipeline.judge.texts import AnswerT, own_template, read_answer, request_texts
from rpo_pipeline.params import EndpointParams, JudgeParams

Outcome = Literal["win", "tie", "loss"]
ResultT = TypeVar("ResultT")

CLOSED = ConfigDict(json_schema_extra={"additionalProperties": False})
"""Restriction that only the endpoint gets; an answer with further fields is accepted."""


@dataclass(frozen=True)
class Comparison:
    """Verdict on the first of two responses, which were shown in both orders."""

    outcome: Outcome
    """``win`` or ``loss`` only if both orders give it; otherwise ``tie``."""
    orders_agree: bool
    """Whether both orders give one verdict; the share that do not measures the position bias."""


class Preference(BaseModel):
    """Answer of a judge that compares two responses."""

    model_config = CLOSED

    better: Literal["A", "B", "neither"]


class JudgeClient:
    """Sends questions to an OpenAI-compatible endpoint within its ceilings; it is thread-safe."""

    def __init__(self, settings: EndpointParams) -> None:
        from rpo_pipeline.judge.endpoint import Endpoint  # noqa: PLC0415 (an extra)

        self._settings = settings
        self._budget = Budget(settings)
        self.usage = self._budget.usage
        """Requests, tokens and cost so far."""
        self._endpoint = Endpoint(settings, self._budget)

    @property
    def stopped(self) -> str | None:
        """Reason why no more requests are sent (a ceiling, or a failing endpoint), or None."""
        return self._budget.stopped

    def each(self, ask: Callable[..., ResultT], *arguments: Iterable[Any]) -> list[ResultT]:
        """Call ``rate`` or ``compare`` for many arguments in parallel; results are in order."""
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            return list(pool.map(ask, *arguments))

    def rate(self, prompt: str, response: str, rubric: JudgeParams) -> dict[str, float] | None:
        """Rate one response by the criteria of a rubric, each on the scale -1 to 1.

        The result is None without a usable answer.
        """
        lowest, highest = rubric.answer_scale
        answer = self._ask(
            rubric.template or own_template("rate.j2"),
            {"prompt": prompt, "response": response},
            _rating_model(rubric),
            criteria={name: criterion.meaning for name, criterion in rubric.criteria.items()},
            lowest=f"{lowest:g}",
            highest=f"{highest:g}",
        )
        if answer is None:
            return None
        span = highest - lowest
        return {name: 2 * (value - lowest) / span - 1 for name, value in answer}

    def compare(
        self, prompt: str, first: str, second: str, *, template: str | None = None
    ) -> Comparison | None:
        """Compare two responses in both orders, because judges may prefer a position.

        The outcome is about the first; it is None unless both orders have a usable answer. A Jinja2
        template gets ``prompt``, ``first`` and ``second``, which it must call A and B; null stands
        for the project's own (judge/templates/compare.j2).
        """
        verdicts: list[Outcome] = []
        for shown, own in (((first, second), "A"), ((second, first), "B")):
            texts = {"prompt": prompt, "first": shown[0], "second": shown[1]}
            answer = self._ask(template or own_template("compare.j2"), texts, Preference)
            if answer is None:
                return None
            won: Outcome = "win" if answer.better == own else "loss"
            verdicts.append("tie" if answer.better == "neither" else won)
        agree = verdicts[0] == verdicts[1]
        return Comparison(verdicts[0] if agree else "tie", agree)

    def _ask(
        self, template: str, texts: dict[str, str], answer: type[AnswerT], **values: object
    ) -> AnswerT | None:
        """Send a question, and send it once more with another seed if the answer is unusable."""
        request = request_texts(template, texts, answer, **values)
        for seed in (self._settings.seed, self._settings.seed + 1):
            reply = self._endpoint.send(*request, answer, seed)
            found = read_answer(reply.text, answer) if reply.text else None
            if found is not None:
                return found
            if reply.is_final:
                break
        self._budget.count_unanswered(reply.problem or "not in the form asked for")
        return None


def _rating_model(rubric: JudgeParams) -> type[BaseModel]:
    """Build the model of an answer: one number of the scale for each criterion."""
    lowest, highest = rubric.answer_scale
    number = (float, Field(ge=lowest, le=highest, allow_inf_nan=False))
    fields: dict[str, Any] = dict.fromkeys(rubric.criteria, number)
    return create_model("Rating", __config__=CLOSED, **fields)
