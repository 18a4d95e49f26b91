"""What the served model answers."""

import json
import math
from datetime import datetime

import mlflow
import pytest

from rpo_pipeline.engine.loading import as_language_model
from rpo_pipeline.engine.sampling import sample_responses
from tests.conftest import build_small, limits
from tests.registries import register

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Help!"}]


@pytest.fixture(scope="module", params=["llama", "gpt2", "t5"])
def model(request, tracked, folder):
    language_model = build_small(request.param)
    if request.param == "gpt2":
        language_model.tokenizer.chat_template = None
    language_model.save(folder / request.param)
    version = register(tracked, f"served-{request.param}", folder / request.param)
    mlflow.set_tracking_uri(tracked.tracking_uri)
    return mlflow.pyfunc.load_model(f"models:/served-{request.param}/{version}")


def texts(answers):
    return [answer["response"] for answer in answers]


def test_an_answer_is_the_same_alone_and_among_others_and_carries_its_own_id_and_version(model):
    limits = {"max_new_tokens": 5}
    answers = model.predict(["Help!", "Hello, my kettle leaks.", "Help!"], params=limits)
    assert (
        texts(answers[:1]) == texts(model.predict(["Help!"], params=limits)) == texts(answers[2:])
    )
    assert len({answer["response_id"] for answer in answers}) == 3
    assert {answer["model_version"] for answer in answers} == {"1"}


@pytest.mark.parametrize("name", ["sampling_temperature", "temperature"])
def test_a_temperature_draws_another_answer_for_another_seed(model, name):
    drawn = {
        *(texts(model.predict(["Help!"], params={name: 1.0, "seed": seed}))[0] for seed in range(4))
    }
    assert len(drawn) > 1


def test_a_chat_is_answered_beside_texts_and_one_user_turn_is_its_text(model):
    turn = [{"role": "user", "content": "Help!"}]
    answers = texts(model.predict([CHAT, turn, "Help!"], params={"max_new_tokens": 8}))
    assert answers[1] == answers[2]
    assert texts(model.predict([CHAT], params={"max_new_tokens": 8})) == answers[:1]


@pytest.mark.parametrize("prompt", [[], [{"role": "user"}], [{"content": "Hi"}], ["Hi"]])
def test_what_is_no_chat_is_refused_in_words(model, prompt):
    with pytest.raises(Exception, match="a prompt is a text, or a list of messages"):
        model.predict([prompt])


def test_answers_are_logged_to_the_file_that_the_environment_names(model, monkeypatch, tmp_path):
    log = tmp_path / "served.jsonl"
    model.predict(["Help!"])
    monkeypatch.setenv("RPO_SERVING_LOG", str(log))
    answers = [*model.predict(["Help!", CHAT]), *model.predict(["Hällo,\nkettle"])]
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["Help!", CHAT, "Hällo,\nkettle"]
    assert [{key: row[key] for key in answers[0]} for row in rows] == answers
    assert all(datetime.fromisoformat(row["timestamp"]).tzinfo for row in rows)
    assert log.stat().st_mode & 0o077 == 0


def test_an_answer_goes_out_even_if_it_cannot_be_logged(model, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("RPO_SERVING_LOG", str(tmp_path / "missing" / "served.jsonl"))
    assert len(model.predict(["Help!"])) == 1
    assert "is not in" in caplog.text


def test_without_a_seed_every_request_draws_anew_and_with_one_it_is_repeated(model):
    params = {"sampling_temperature": 1.0}
    assert len({texts(model.predict(["Help!"], params=params))[0] for _ in range(4)}) > 1
    seeded = params | {"seed": 0}
    assert (
        model.predict(["Help!"], params=seeded)[0]["response"]
        == texts(model.predict(["Help!"], params=seeded))[0]
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"sampling_temperature": math.nan}, "sampling_temperature is 0"),
        ({"temperature": -1.0}, "sampling_temperature is 0"),
        ({"temperature": math.inf}, "sampling_temperature is 0"),
        ({"temperature": 1e-30}, "from 0.01 to 100; got 1e-30"),
        ({"seed": -2}, "seed is a whole number from 0 to 9223372036854775807; got -2"),
        ({"max_new_tokens": 0}, "max_new_tokens is a whole number from 1 to 12; got 0"),
        ({"max_new_tokens": 3000}, "max_new_tokens is a whole number from 1 to 12; got 3000"),
    ],
)
def test_a_parameter_beyond_its_limits_is_refused_in_words(model, params, message):
    with pytest.raises(ValueError, match=message):
        model.predict(["Help!"], params=params)


def test_a_request_of_too_many_prompts_or_characters_or_half_a_letter_is_refused(model):
    for prompts, message in (
        (["Hi"] * 257, "at most 256 prompts; got 257"),
        (["Hi " * 400_000], "at most 1000000 characters; got 1200000"),
        (["\ud800 Hi"], "a prompt is no text"),
        ([" "], "a prompt is empty"),
        ([[{"role": "hacker", "content": "Hi"}]], "a role is one of system, user.*; got hacker"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(prompts)


def test_ceilings_can_be_lowered_where_the_model_is_served(model, monkeypatch):
    monkeypatch.setenv("RPO_SERVING_MAX_NEW_TOKENS", "2")
    monkeypatch.setenv("RPO_SERVING_MAX_PROMPTS", "1")
    assert len(model.predict(["Hi"])) == 1
    with pytest.raises(ValueError, match="from 1 to 2; got 3"):
        model.predict(["Hi"], params={"max_new_tokens": 3})
    with pytest.raises(ValueError, match="at most 1 prompts"):
        model.predict(["Hi", "Hi"])


def test_roles_under_other_names_and_more_keys_are_read_as_in_training(model):
    plain = [{"role": "user", "content": "Help!"}]
    other = [{"role": "human", "content": "Help!", "name": "Ada"}]
    assert texts(model.predict([other])) == texts(model.predict([plain]))


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "t5"])
def test_what_is_served_is_what_evaluation_would_have_written(model_type, tracked, folder):
    language_model = build_small(model_type)
    tokenizer = language_model.tokenizer
    if model_type == "llama":  # ends a turn with a token that is not the end of the sequence
        tokenizer.chat_template = (
            "{% for m in messages %}<|assistant|>{{ m.content }}<|user|>{% endfor %}"
        )
    language_model = as_language_model(language_model.model, tokenizer)
    language_model.save(folder / f"same-{model_type}")
    version = register(tracked, f"same-{model_type}", folder / f"same-{model_type}")
    mlflow.set_tracking_uri(tracked.tracking_uri)
    served = mlflow.pyfunc.load_model(f"models:/same-{model_type}/{version}")
    prompts = ["Hi <|end|> there", "Hello, my kettle leaks. " * 9, *("abcdefghijklmnopqrstuvwxyz")]
    text_format = language_model.text_format(limits(24, 12))
    expected = sample_responses(
        language_model,
        text_format.encode_prompts(prompts),
        seeds=[0] * len(prompts),
        sampling_temperature=0.0,
        max_new_tokens=12,
    )
    assert texts(served.predict(prompts)) == [response.text for response in expected]
