import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_pipeline.evaluation.metrics import vocabulary_entropy
from rpo_pipeline.evaluation.text_metrics import text_columns

BEST = "We are sorry that your kettle leaks and will send a new one."


def measure(*responses, best=BEST, logged=(), model="challenger"):
    table = pd.DataFrame({"model": model, "prompt_id": "p", "response": responses})
    return text_columns(table, pd.Series({"p": best} if best else {}), frozenset(logged))


def test_the_best_response_itself_overlaps_fully_and_another_text_hardly():
    same, other = measure(BEST, "No idea, ask somebody else!").to_dict("records")
    assert (same["bleu"], same["chrf"], same["rouge_l"]) == pytest.approx((1, 1, 1))
    assert max(other["bleu"], other["rouge_l"]) < 0.15


def test_without_a_best_response_there_is_no_overlap_to_tell():
    assert measure("Hello", best=None)[["bleu", "chrf", "rouge_l"]].isna().all(axis=None)


def test_answers_that_are_all_alike_have_a_self_bleu_of_one():
    assert measure(BEST, BEST)["self_bleu"].tolist() == pytest.approx([1, 1])
    assert measure(BEST, "No idea, ask somebody else!")["self_bleu"].max() < 0.1
    assert measure(BEST)["self_bleu"].isna().all()


def test_a_loop_is_repetition_and_plain_prose_is_not():
    loop, prose = measure("go on and go on and go on and", BEST)["repetition"]
    assert loop == pytest.approx(1 - 3 / 7)
    assert prose == 0


def test_a_response_of_the_log_word_by_word_is_a_copy():
    assert measure(BEST, "Hello", logged=[BEST])["copied"].tolist() == [1, 0]


def test_entropy_of_evenly_used_words_is_the_log_of_their_number():
    table = pd.DataFrame({"prompt_id": ["p", "q"], "response": ["a b", "C d"]})
    entropy, without = vocabulary_entropy(table)
    assert entropy == pytest.approx(math.log2(4))
    assert without == pytest.approx([1, 1])


@given(st.lists(st.text(alphabet="ab ", max_size=12), min_size=1, max_size=4))
def test_every_share_lies_between_zero_and_one(responses):
    table = measure(*responses)
    assert table.min(axis=None) >= 0
    assert table.max(axis=None) <= 1 + 1e-9
