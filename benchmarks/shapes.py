"""Prompt groups with the lengths of real ones.

Lengths are evenly spaced quantiles of log-normal distributions, so that a few groups stand for many
and every run measures the same ones. Tokens are random: no cost here depends on them.
"""

import random
from dataclasses import dataclass
from statistics import NormalDist

from rpo_pipeline.engine.groups import Group

MAX_TOKENS = 512
END, FIRST_TOKEN = 1, 3  # 0 pads, 2 is unknown


@dataclass(frozen=True)
class Shape:
    """Lengths of prompts and responses, in tokens."""

    name: str
    prompt_median: int
    prompt_spread: float
    """Standard deviation of the logarithm."""
    response_median: int
    response_spread: float

    def groups(
        self, num_groups: int, *, vocabulary: int, responses: int = 4, seed: int = 0
    ) -> list[Group]:
        """Draw groups; both lengths stay within ``MAX_TOKENS``."""
        draw = random.Random(seed)
        prompts = _quantiles(self.prompt_median, self.prompt_spread, num_groups)
        lengths = _quantiles(self.response_median, self.response_spread, num_groups * responses)
        draw.shuffle(lengths)

        def tokens(length: int) -> list[int]:
            return [draw.randrange(FIRST_TOKEN, vocabulary) for _ in range(length)]

        return [
            Group(
                prompt=tokens(prompt),
                responses=[
                    [*tokens(n - 1), END] for n in lengths[i * responses : (i + 1) * responses]
                ],
                rows=list(range(i * responses, (i + 1) * responses)),
                prompt_id=str(i),
            )
            for i, prompt in enumerate(prompts)
        ]


CHAT = Shape("chat", 80, 0.9, 150, 0.6)
LONG_PROMPTS = Shape("long prompts", 400, 0.4, 64, 0.6)
SHORT_PROMPTS = Shape("short prompts", 20, 0.6, 60, 0.6)


def _quantiles(median: int, spread: float, count: int) -> list[int]:
    normal = NormalDist(sigma=spread)
    factors = [2.718281828459045 ** normal.inv_cdf((i + 0.5) / count) for i in range(count)]
    return [min(MAX_TOKENS, max(2, round(median * factor))) for factor in factors]
