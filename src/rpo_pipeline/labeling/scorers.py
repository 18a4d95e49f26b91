"""Scorers of the ``rules`` labeler; each maps (prompt, response) to one number.

Sentiment is VADER's compound score, which is good on short informal text. Toxicity is a word list
without context: it misses insults without a listed word and flags a harmless use of one, but it
does not take criticism for abuse, as small classifiers do. Coverage and length are exact.
"""

import math
import re
from collections.abc import Callable
from heapq import heappop, heappush

from better_profanity.utils import get_complete_path_of_file, read_wordlist
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from rpo_pipeline.params import RulesParams

Scorer = Callable[[str, str], float]

WORD = re.compile(r"\w+")


def build_scorers(settings: RulesParams) -> dict[str, Scorer]:
    """Build every scorer by name; a scorer without a weight is reported but not added."""
    scorers = {
        "sentiment": _sentiment(),
        "toxicity": _toxicity(settings),
        "length": _length(settings.target_words),
    }
    if settings.detail_pattern:
        scorers["coverage"] = _coverage(settings.detail_pattern)
    return scorers


def _sentiment() -> Scorer:
    """Build the scorer of VADER's compound score, -1 (negative) to 1 (positive)."""
    analyzer = _LinearAnalyzer()
    return lambda _, response: float(analyzer.polarity_scores(response)["compound"])


class _LinearAnalyzer(SentimentIntensityAnalyzer):  # type: ignore[misc] # without types
    """VADER with the same scores in time that is linear in the length of the text.

    The library lowers all words once per word, and searches for each score from the start.
    """

    @staticmethod
    def _negation_check(valence: float, words: list[str], start_i: int, i: int) -> float:
        near, at = _window(words, i)
        return float(SentimentIntensityAnalyzer._negation_check(valence, near, start_i, at))

    @staticmethod
    def _special_idioms_check(valence: float, words: list[str], i: int) -> float:
        return float(SentimentIntensityAnalyzer._special_idioms_check(valence, *_window(words, i)))

    @staticmethod
    def _but_check(words: list[str], sentiments: list[float]) -> list[float]:
        but = next((i for i, word in enumerate(words) if word.lower() == "but"), None)
        if but is None:
            return sentiments
        places: dict[float, list[int]] = {}
        for place, sentiment in enumerate(sentiments):
            places.setdefault(sentiment, []).append(place)
        for place in range(len(sentiments)):
            sentiment = sentiments[place]
            same = places[sentiment]
            while sentiments[same[0]] != sentiment:
                heappop(same)
            first = same[0]  # like the library, which finds a score by its first equal
            if first != but:
                sentiments[first] = sentiment * (0.5 if first < but else 1.5)
                heappush(places.setdefault(sentiments[first], []), first)
        return sentiments


def _window(words: list[str], i: int) -> tuple[list[str], int]:
    """Return a word with the three before and the two after it, and its position among them."""
    start = max(0, i - 3)
    return words[start : i + 3], i - start


def _toxicity(settings: RulesParams) -> Scorer:
    """Build the scorer that is 1 if the response holds a word of the list, else 0."""
    listed = {*read_wordlist(get_complete_path_of_file("profanity_wordlist.txt"))}
    words = (listed | {*settings.toxic_words}) - {*settings.harmless_words}
    # The library's matcher takes 36 ms a response; one expression over its list takes microseconds.
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(words)))})\b", re.IGNORECASE)
    return lambda _, response: float(bool(pattern.search(response)))


def _coverage(detail_pattern: str) -> Scorer:
    """Build the scorer of the share of the prompt's details in the response; 1 without details."""
    pattern = re.compile(detail_pattern)

    def score(prompt: str, response: str) -> float:
        details = set(pattern.findall(prompt))
        words = set(WORD.findall(response))
        named = [d for d in details if (d in words if WORD.fullmatch(d) else _has(response, d))]
        return len(named) / len(details) if details else 1.0

    return score


def _has(response: str, detail: str) -> bool:
    """Tell whether a text holds a detail of several words, or of signs, as whole words."""
    return detail in response and bool(re.search(rf"\b{re.escape(detail)}\b", response))


def _length(target_words: int) -> Scorer:
    """Build the scorer that is 1 at the target number of words and 0 at half or twice as many."""
    return lambda _, response: max(
        0.0, 1 - abs(math.log2(max(1, len(response.split())) / target_words))
    )
