"""Scorers of the ``rules`` labeler: each maps (prompt, response) to one number.

What each is worth: sentiment is VADER's compound score, good on short informal text. Toxicity is a
word list: it knows no context, so it misses insults without a listed word and flags a harmless use
of one; in return it does not take criticism for abuse, as small classifiers do. Coverage and length
are exact.
"""

import math
import re
from collections.abc import Callable

from better_profanity.utils import get_complete_path_of_file, read_wordlist
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from rpo_pipeline.params import RulesParams

Scorer = Callable[[str, str], float]


def build_scorers(settings: RulesParams) -> dict[str, Scorer]:
    """Build every scorer, by name; those without a weight are reported but do not count."""
    scorers = {
        "sentiment": _sentiment(),
        "toxicity": _toxicity(settings),
        "length": _length(settings.target_words),
    }
    if settings.detail_pattern:
        scorers["coverage"] = _coverage(settings.detail_pattern)
    return scorers


def _sentiment() -> Scorer:
    """VADER compound score, -1 (negative) to 1 (positive)."""
    analyzer = SentimentIntensityAnalyzer()
    return lambda _, response: float(analyzer.polarity_scores(response)["compound"])


def _toxicity(settings: RulesParams) -> Scorer:
    """1 if the response holds a word of the list, else 0."""
    listed = {*read_wordlist(get_complete_path_of_file("profanity_wordlist.txt"))}
    words = (listed | {*settings.toxic_words}) - {*settings.harmless_words}
    # The library's own matcher takes 36 ms a response; one expression over its list, microseconds.
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(words)))})\b", re.IGNORECASE)
    return lambda _, response: float(bool(pattern.search(response)))


def _coverage(detail_pattern: str) -> Scorer:
    """Share of the prompt's details that the response names; 1 for a prompt without details."""
    pattern = re.compile(detail_pattern)

    def score(prompt: str, response: str) -> float:
        details = set(pattern.findall(prompt))
        named = [d for d in details if re.search(rf"\b{re.escape(d)}\b", response)]
        return len(named) / len(details) if details else 1.0

    return score


def _length(target_words: int) -> Scorer:
    """1 at the target number of words, falling to 0 at half and at twice as many."""
    return lambda _, response: max(
        0.0, 1 - abs(math.log2(max(1, len(response.split())) / target_words))
    )
