"""What the served model answers."""

import json
from datetime import datetime

import mlflow
import pytest

from tests.conftest import build_small
from tests.registry.conftest import register

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
