"""A judge of pairs behind a real server on loopback."""

import pandas as pd
import pytest

from rpo_pipeline.evaluation.judge import judge_pairs, trust, win_rates
from rpo_pipeline.params import EndpointParams, PairwiseJudgeParams
from tests.judge.judge_server import Answer, serve

PROMPTS = ["p0", "p1", "p2"]


def generations(**responses):
    return pd.DataFrame(
        [
            {"model": model, "prompt_id": p, "prompt": f"Ask {p}", "sample": s, "response": text}
            for model, text in responses.items()
            for p in PROMPTS
            for s in (0, 1)
        ]
    )


RATED = pd.DataFrame(
    {
        "prompt_id": ["p0", "p0", "p1"],
        "prompt": ["Ask p0", "Ask p0", "Ask p1"],
        "response": ["kind words", "rude", "alone"],
        "raw_reward": [1.0, -1.0, 1.0],
    }
)


def prefer_kind(request, _):
    """Answers A or B, whichever text holds the word; neither if both or none do."""
    question = request["messages"][-1]["content"]
    first, second = (part.count("kind") for part in question.split("</text-")[1:3])
    better = "neither" if first == second else "A" if first > second else "B"
    return Answer(f'{{"better": "{better}"}}')


def judge(server, **changes):
    endpoint = EndpointParams(base_url=server.url, model="judge", max_retries=0)
    return PairwiseJudgeParams(endpoint=endpoint, **{"num_prompts": 3, "rated_pairs": 5} | changes)


def test_the_challenger_is_compared_with_each_baseline_and_people_with_the_judge(tmp_path):
    table = generations(reference="rude", challenger="kind words", champion="kind too")
    with serve(prefer_kind) as server:
        verdicts = judge_pairs(table, RATED, judge(server), tmp_path)
    rates = win_rates(verdicts, num_resamples=100, seed=0)
    assert rates["reference"]["value"] == 1.0
    assert rates["champion"]["value"] == 0.5
    trusted = trust(verdicts, num_resamples=100, seed=0)
    assert (trusted["num_pairs"], trusted["num_rated_pairs"], trusted["unanswered"]) == (7, 1, 0)
    assert trusted["agreement_with_ratings"]["value"] == 1.0
    assert trusted["against_length"]["num_prompts"] == 1
    assert len(server.requests) == 12  # both orders of six pairs; the rated one is among them


def test_what_was_judged_is_never_asked_again_and_equal_responses_are_not_asked_at_all(tmp_path):
    table = generations(reference="rude", challenger="kind words", champion="kind words")
    with serve(prefer_kind) as server:
        first = judge_pairs(table, RATED[:0], judge(server), tmp_path)
        assert len(server.requests) == 6
        again = judge_pairs(table, RATED[:0], judge(server), tmp_path)
        assert len(server.requests) == 6
    pd.testing.assert_frame_equal(first, again)


def test_a_judge_that_prefers_a_place_ties_and_is_found_out(tmp_path):
    table = generations(reference="rude", challenger="kind words")
    with serve(lambda *_: Answer('{"better": "A"}')) as server:
        verdicts = judge_pairs(table, RATED[:0], judge(server, num_prompts=2), tmp_path)
    assert verdicts["win"].tolist() == [0.5, 0.5]
    assert trust(verdicts, num_resamples=100, seed=0)["orders_agree"] == 0


def test_pairs_without_an_answer_are_said_left_out_and_asked_for_again(tmp_path, caplog):
    table = generations(reference="rude", challenger="kind words")
    with serve(lambda *_: Answer("I cannot say")) as server:
        verdicts = judge_pairs(table, RATED[:0], judge(server, num_prompts=1), tmp_path)
    assert verdicts["win"].isna().all()
    assert "no usable answer for 1 of 1 pairs" in caplog.text
    with serve(prefer_kind) as server:
        endpoint = server.url
        again = judge_pairs(table, RATED[:0], judge(server, num_prompts=1), tmp_path / endpoint[7:])
    assert again["win"].tolist() == [1.0]


def test_a_template_without_both_responses_is_refused():
    with pytest.raises(ValueError, match="second"):
        PairwiseJudgeParams(
            endpoint=EndpointParams(base_url="http://nowhere/v1", model="judge"),
            num_prompts=1,
            rated_pairs=0,
            template="{{ prompt }} {{ first }}",
        )
