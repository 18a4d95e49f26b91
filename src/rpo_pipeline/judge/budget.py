"""Counts the tokens and cost of a judge and stops it before it exceeds a ceiling."""

import logging
from collections import Counter
from dataclasses import asdict, dataclass, field
from threading import Condition
from typing import Any

from rpo_pipeline.params import EndpointParams

logger = logging.getLogger(__name__)

ENVELOPE_TOKENS = 64
"""Tokens that an endpoint's chat template may add to the text of a request."""


@dataclass
class Usage:
    """Requests, tokens and cost so far."""

    num_requests: int = 0
    """Number of answered requests."""
    num_retries: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0
    """In the currency of the prices; 0 without prices."""
    unanswered: Counter[str] = field(default_factory=Counter)
    """Number of questions without a usable answer, by reason."""

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers in a form that JSON can hold."""
        return asdict(self) | {"unanswered": dict(self.unanswered)}


@dataclass(frozen=True)
class Hold:
    """Tokens that a request uses, or can use at most."""

    prompt_tokens: int
    answer_tokens: int


NOTHING = Hold(0, 0)


class Budget:
    """Counts what requests use, for several threads, and stops the pass at a ceiling.

    The most that a request can use is reserved before it is sent (a token is at least one byte), so
    that requests under way cannot exceed a ceiling. Near a ceiling a request waits until earlier
    ones have returned what they did not use. The charge for a request that was never answered is
    unknown and not counted.

    Args:
        settings: Prices and ceilings.
    """

    def __init__(self, settings: EndpointParams) -> None:
        self.usage = Usage()
        self.stopped: str | None = None
        """Reason why no more requests are sent, or None."""
        self._settings = settings
        self._held = NOTHING
        self._failures_in_a_row = 0
        self._changed = Condition()

    def reserve(self, num_bytes: int) -> Hold | None:
        """Reserve the most that a request can use.

        Args:
            num_bytes: Length of the request's text.

        Returns:
            The reservation, for ``settle`` or ``fail``; None if the request must not be sent.
        """
        request = self._settings.request
        limit = request.get("max_completion_tokens") or request.get("max_tokens")
        hold = Hold(num_bytes + ENVELOPE_TOKENS, limit or self._settings.max_answer_tokens)
        with self._changed:
            while self.stopped is None and (ceiling := self._passed(hold)):
                if self._held == NOTHING:
                    self._stop(ceiling)
                else:
                    self._changed.wait()
            if self.stopped is not None:
                return None
            self._held = _sum(self._held, hold)
            return hold

    def settle(self, hold: Hold, used: Hold | None, num_retries: int) -> None:
        """Replace the reservation of a request by what it used.

        Args:
            hold: Reservation of ``reserve``.
            used: Tokens that the endpoint reports; without a report the whole reservation counts.
            num_retries: Number of attempts after the first.
        """
        used = used or hold
        with self._changed:
            self._release(hold)
            self._failures_in_a_row = 0
            self.usage.num_requests += 1
            self.usage.num_retries += num_retries
            self.usage.prompt_tokens += used.prompt_tokens
            self.usage.answer_tokens += used.answer_tokens
            self.usage.cost += self._price(used)

    def fail(self, hold: Hold, num_retries: int) -> None:
        """Release the reservation of a request that was not answered."""
        with self._changed:
            self._release(hold)
            self.usage.num_retries += num_retries
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= self._settings.give_up_after:
                self._stop(f"{self._failures_in_a_row} requests in a row got no answer")

    def stop(self, reason: str) -> None:
        """Send no more requests."""
        with self._changed:
            self._stop(reason)

    def count_unanswered(self, reason: str) -> None:
        """Count a question that has no usable answer."""
        with self._changed:
            self.usage.unanswered[reason] += 1

    def _passed(self, hold: Hold) -> str | None:
        """Name the ceiling that one more request could exceed, or return None."""
        settings, usage, pending = self._settings, self.usage, _sum(self._held, hold)
        used = usage.prompt_tokens + usage.answer_tokens
        tokens = used + pending.prompt_tokens + pending.answer_tokens
        if settings.max_tokens is not None and tokens > settings.max_tokens:
            return f"the next could pass max_tokens = {settings.max_tokens}, {used} are used"
        cost = usage.cost + self._price(pending)
        if settings.max_cost is not None and cost > settings.max_cost:
            return (
                f"the next could pass max_cost = {settings.max_cost:g}, {usage.cost:.4g} is spent"
            )
        return None

    def _stop(self, reason: str) -> None:
        if self.stopped is None:
            self.stopped = reason
            self._changed.notify_all()
            logger.warning(
                "%s sends no more requests in this pass: %s", self._settings.model, reason
            )

    def _price(self, tokens: Hold) -> float:
        prices = (self._settings.prompt_price or 0.0, self._settings.answer_price or 0.0)
        return (tokens.prompt_tokens * prices[0] + tokens.answer_tokens * prices[1]) / 1e6

    def _release(self, hold: Hold) -> None:
        self._held = _sum(self._held, Hold(-hold.prompt_tokens, -hold.answer_tokens))
        self._changed.notify_all()


def _sum(one: Hold, other: Hold) -> Hold:
    return Hold(one.prompt_tokens + other.prompt_tokens, one.answer_tokens + other.answer_tokens)
