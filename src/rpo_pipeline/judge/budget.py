"""Counts the tokens and cost of a judge and stops it before it exceeds a ceiling."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from threading import Condition

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


Tokens = Counter[str]
"""Tokens that requests use, or can use at most, of the kinds ``prompt`` and ``answer``."""


class Budget:
    """Counts what requests use, for several threads, and stops the pass at a ceiling.

    The most that a request can use is reserved before it is sent (a token is at least one byte), so
    that requests under way cannot exceed a ceiling. Near a ceiling a request waits until earlier
    ones have returned what they did not use. The charge for a request that was never answered is
    unknown and not counted.
    """

    def __init__(self, settings: EndpointParams) -> None:
        self.usage = Usage()
        self.stopped: str | None = None
        """Reason why no more requests are sent, or None."""
        self._settings = settings
        self._held = Tokens()
        self._failures_in_a_row = 0
        self._changed = Condition()

    def reserve(self, num_bytes: int) -> Tokens | None:
        """Reserve the most that a request with a text of so many bytes can use.

        The reservation is for ``settle`` or ``fail``; it is None if the request must not be sent.
        """
        request = self._settings.request
        limit = request.get("max_completion_tokens") or request.get("max_tokens")
        hold = Tokens(
            prompt=num_bytes + ENVELOPE_TOKENS, answer=limit or self._settings.max_answer_tokens
        )
        with self._changed:
            while self.stopped is None and (ceiling := self._passed(hold)):
                if self._held:
                    self._changed.wait()
                else:
                    self.stop(ceiling)
            if self.stopped is not None:
                return None
            self._held += hold
            return hold

    def settle(self, hold: Tokens, used: Tokens | None, num_retries: int) -> None:
        """Replace the reservation of a request by what it used.

        Without a report by the endpoint the whole reservation counts. Retries are the attempts
        after the first.
        """
        used = used or hold
        with self._changed:
            self._release(hold)
            self._failures_in_a_row = 0
            self.usage.num_requests += 1
            self.usage.num_retries += num_retries
            self.usage.prompt_tokens += used["prompt"]
            self.usage.answer_tokens += used["answer"]
            self.usage.cost += self._price(used)

    def fail(self, hold: Tokens, num_retries: int) -> None:
        """Release the reservation of a request that was not answered."""
        with self._changed:
            self._release(hold)
            self.usage.num_retries += num_retries
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= self._settings.give_up_after:
                self.stop(f"{self._failures_in_a_row} requests in a row got no answer")

    def stop(self, reason: str) -> None:
        """Send no more requests."""
        with self._changed:  # a thread may enter it more than once
            if self.stopped is None:
                self.stopped = reason
                self._changed.notify_all()
                logger.warning(
                    "%s sends no more requests in this pass: %s", self._settings.model, reason
                )

    def count_unanswered(self, reason: str) -> None:
        """Count a question that has no usable answer."""
        with self._changed:
            self.usage.unanswered[reason] += 1

    def _passed(self, hold: Tokens) -> str | None:
        """Name the ceiling that one more request could exceed, or return None."""
        settings, usage, pending = self._settings, self.usage, self._held + hold
        used = usage.prompt_tokens + usage.answer_tokens
        if settings.max_tokens is not None and used + pending.total() > settings.max_tokens:
            return f"the next could pass max_tokens = {settings.max_tokens}, {used} are used"
        cost = usage.cost + self._price(pending)
        if settings.max_cost is not None and cost > settings.max_cost:
            return (
                f"the next could pass max_cost = {settings.max_cost:g}, {usage.cost:.4g} is spent"
            )
        return None

    def _price(self, tokens: Tokens) -> float:
        prices = (self._settings.prompt_price or 0.0, self._settings.answer_price or 0.0)
        return (tokens["prompt"] * prices[0] + tokens["answer"] * prices[1]) / 1e6

    def _release(self, hold: Tokens) -> None:
        self._held -= hold
        self._changed.notify_all()
