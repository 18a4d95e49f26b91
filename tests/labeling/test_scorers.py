import random
import time

import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from rpo_pipeline.labeling.scorers import build_scorers
from rpo_pipeline.params import RulesParams


def scorers(**settings):
    return build_scorers(RulesParams(weights={"sentiment": 1}, **settings))


def test_sentiment_is_positive_for_thanks_and_negative_for_an_insult():
    sentiment = scorers()["sentiment"]
    assert sentiment("", "Thank you, we are happy to help!") > 0.5
    assert sentiment("", "This is a terrible, stupid mess.") < -0.5


@pytest.mark.parametrize(
    ("response", "toxic"),
    [
        ("You stupid fool.", 1.0),
        ("STUPID!", 1.0),
        ("We are sorry, this is not good enough and it will not happen again.", 0.0),
        ("No refund, the deadline has passed.", 0.0),
        ("The grasshopper assembled the class.", 0.0),
    ],
)
def test_toxicity_takes_listed_words_for_abuse_and_neither_criticism_nor_parts_of_words(
    response, toxic
):
    assert scorers()["toxicity"]("", response) == toxic


def test_the_word_list_can_be_extended_and_reduced():
    toxicity = scorers(toxic_words=["nincompoop"], harmless_words=["stupid"])["toxicity"]
    assert toxicity("", "You nincompoop.") == 1.0
    assert toxicity("", "A stupid mistake of ours.") == 0.0


def test_coverage_is_the_share_of_the_prompts_details_that_are_named_as_whole_words():
    coverage = scorers(detail_pattern=r"(?<=[a-z,] )[A-Z]\w+")["coverage"]
    prompt = "Hello, this is Ada. My DryFast dryer rattles."
    assert coverage(prompt, "Hello Ada, sorry for your DryFast dryer.") == 1.0
    assert coverage(prompt, "Hello Ada, sorry.") == 0.5
    assert coverage(prompt, "Hello Adam, sorry for your DryFaster dryer.") == 0.0
    assert coverage("no details here", "anything") == 1.0


def test_length_is_one_at_the_target_and_zero_at_half_and_at_twice_as_many_words():
    length = scorers(target_words=10)["length"]
    lengths = [length("", "word " * n) for n in (5, 10, 20, 0, 400)]
    assert lengths == pytest.approx([0.0, 1.0, 0.0, 0.0, 0.0])


WORDS = (
    "but But good bad not never no GREAT kind of sort the shit bomb ass kiss death very least at ! "
    "ok! :) \N{GRINNING FACE} without doubt nor or isn't yeah right BUT hand to mouth"
).split()


def test_sentiment_is_exactly_that_of_vader():
    draw, sentiment = random.Random(0), scorers()["sentiment"]
    for _ in range(1000):
        text = " ".join(draw.choice(WORDS) for _ in range(draw.randint(0, 40)))
        expected = SentimentIntensityAnalyzer.polarity_scores(VADER, text)["compound"]
        assert sentiment("", text) == expected


VADER = SentimentIntensityAnalyzer()


@pytest.mark.parametrize(
    "word", ["good but ", "good ", "W1x ", "\N{GRINNING FACE}", "ass", "1", " "]
)
def test_no_scorer_takes_longer_than_in_proportion_to_the_text(word):
    text = "".join(f"{word}{i} " if word == "W1x " else word for i in range(100_000 // len(word)))
    started = time.process_time()
    for score in scorers(detail_pattern=r"(?<=[a-z,] )[A-Z]\w+").values():
        score(f"a {text}", text)
    assert time.process_time() - started < 20  # minutes, where it is the square
