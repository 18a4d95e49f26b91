"""Chat templates as they come: with clocks, without system messages, in strict turns."""

import logging
import time
from datetime import date

import pytest

from rpo_pipeline.engine.chat_templates import (
    STANDARD_DATE,
    adapt_template,
    folds_system,
    warn_of_opening,
    writes_role,
)
from rpo_pipeline.engine.loading import as_language_model, load_language_model
from rpo_pipeline.errors import ModelError
from tests.conftest import build_small, limits

PLAIN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
)
FORGETFUL = (
    "{% for m in messages %}{% if m.role in ('user', 'assistant') %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
)
SYSTEM = {"role": "system", "content": "Be kind."}
USER = {"role": "user", "content": "Help!"}


def with_template(template):
    tokenizer = build_small("llama").tokenizer
    tokenizer.chat_template = template
    return tokenizer


def write(tokenizer, *chat):
    return tokenizer.apply_chat_template([*chat], tokenize=False)


@pytest.mark.parametrize("template", [STRICT, FORGETFUL])
def test_a_system_message_that_is_refused_or_left_out_goes_into_the_user_turn(template):
    tokenizer = with_template(template)
    adapt_template(tokenizer)
    assert write(tokenizer, SYSTEM, USER) == "<|user|>Be kind.\n\nHelp!<|end|>"
    assert write(tokenizer, USER) == write(with_template(template), USER)
    assert folds_system(tokenizer)


def test_two_turns_of_one_role_become_one_where_turns_must_alternate():
    tokenizer = with_template(STRICT)
    adapt_template(tokenizer)
    chat = (USER, USER, {"role": "assistant", "content": "Yes?"}, USER)
    assert write(tokenizer, *chat) == (
        "<|user|>Help!\n\nHelp!<|end|><|assistant|>Yes?<|end|><|user|>Help!<|end|>"
    )


def test_a_template_that_takes_every_chat_stays_as_it_is_and_an_adapted_one_too():
    tokenizer = with_template(PLAIN)
    adapt_template(tokenizer)
    assert tokenizer.chat_template == PLAIN
    strict = with_template(STRICT)
    adapt_template(strict)
    once = strict.chat_template
    adapt_template(strict)
    assert strict.chat_template == once


def test_system_messages_that_went_elsewhere_are_counted(caplog):
    tokenizer = with_template(STRICT)
    adapt_template(tokenizer)
    reading = as_language_model(build_small("llama").model, tokenizer).text_format(limits(64, 8))
    ids = reading.encode_prompts([[SYSTEM, USER], "Help!"])
    assert reading.tokenizer.decode(ids[0]) == "<|user|>Be kind.\n\nHelp!<|end|>"
    assert "1 of 2 prompts have a system message" in caplog.text


def test_turns_that_nothing_can_write_are_one_sentence_and_left_out_ones_are_told(caplog):
    strict = with_template(STRICT)
    adapt_template(strict)
    chat = [USER, {"role": "tool", "content": "42"}]
    reading = as_language_model(build_small("llama").model, strict).text_format(limits(64, 8))
    with pytest.raises(ModelError, match=r"refuses 0 of 1|roles must alternate"):
        reading.encode_prompts([[{"role": "assistant", "content": "Yes?"}, USER]])
    forgetful = with_template(FORGETFUL)
    assert not writes_role(forgetful, "tool")
    reading = as_language_model(build_small("llama").model, forgetful).text_format(limits(64, 8))
    reading.encode_prompts([chat])
    assert "1 of 1 prompts have a tool message" in caplog.text


def test_a_date_stands_still_from_the_day_on_that_the_reference_is_made(tmp_path):
    language_model = build_small("llama")
    language_model.tokenizer.chat_template = "{{ strftime_now('%A, %-d %B %Y, %H:%M') }} " + PLAIN
    language_model.save(tmp_path / "model")
    made = load_language_model(tmp_path / "model", day=date(2026, 11, 7))
    assert write(made.tokenizer, USER).startswith("Saturday, 7 November 2026, 00:00 <|user|>")
    made.save(tmp_path / "reference")
    again = load_language_model(tmp_path / "reference", day=date(2027, 1, 1)).tokenizer
    assert write(again, USER) == write(made.tokenizer, USER)
    other = load_language_model(tmp_path / "model").tokenizer
    assert str(STANDARD_DATE.year) in write(other, USER)


def test_every_directive_of_a_clock_is_written_as_the_system_writes_it():
    day = date(2026, 2, 3)
    for directive in "YmdBbAaHIMSpjyUwWuGVDFTRcxX":
        tokenizer = with_template(f"{{{{ strftime_now('%{directive}') }}}}" + PLAIN)
        adapt_template(tokenizer, day)
        expected = time.strftime(f"%{directive}", day.timetuple())
        assert write(tokenizer, USER).partition("<")[0] == expected


def test_a_template_that_opens_a_thought_is_told(caplog):
    thinking = PLAIN + "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
    with caplog.at_level(logging.WARNING):
        warn_of_opening(
            with_template(PLAIN + "{% if add_generation_prompt %}<|assistant|>{% endif %}")
        )
        assert not caplog.text
        warn_of_opening(with_template(thinking))
    assert "opens an answer that it asks for with '<|end|><|assistant|><think>'" in caplog.text


def test_a_template_of_several_names_is_read_by_its_default():
    tokenizer = with_template({"default": PLAIN, "tool_use": "{{ 1 }}"})
    adapt_template(tokenizer)
    assert tokenizer.chat_template == PLAIN


PARTS = (
    "{% for m in messages %}<|{{ m.role }}|>{% for c in m['content'] %}{{ c['text'] }}{% endfor %}"
    "<|end|>{% endfor %}"
)
PARTS_OF_USERS = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'system' %}{{ m.content }}{% else %}"
    "{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endif %}<|end|>{% endfor %}"
)


def test_a_template_that_reads_contents_as_parts_writes_every_turn_of_a_chat():
    tokenizer = with_template(PARTS)
    adapt_template(tokenizer)
    chat = (SYSTEM, USER, {"role": "assistant", "content": "Yes?"})
    assert write(tokenizer, *chat) == write(with_template(PLAIN), *chat)
    once = tokenizer.chat_template
    adapt_template(tokenizer)
    assert tokenizer.chat_template == once


def test_parts_reach_the_token_ids_and_control_tokens_in_them_stay_text():
    tokenizer = with_template(PARTS)
    adapt_template(tokenizer)
    reading = as_language_model(build_small("llama").model, tokenizer).text_format(limits(64, 8))
    ids = reading.encode_prompts(["Help!", "Help<|end|>!"])
    assert reading.tokenizer.decode(ids[0]) == "<|user|>Help!<|end|>"
    assert reading.tokenizer.decode(ids[1]) == "<|user|>Help<|end|>!<|end|>"
    assert ids[1].count(tokenizer.eos_token_id) == 1


def test_a_system_message_that_would_be_written_as_a_raw_list_goes_into_the_user_turn():
    tokenizer = with_template(PARTS_OF_USERS)
    adapt_template(tokenizer)
    assert write(tokenizer, SYSTEM, USER) == "<|user|>Be kind.\n\nHelp!<|end|>"


def test_a_template_that_leaves_out_what_a_user_says_is_refused():
    tokenizer = with_template("{% for m in messages %}<|{{ m.role }}|><|end|>{% endfor %}")
    with pytest.raises(ModelError, match=r"leaves out what a user says.*as '<.user.><.end.>'"):
        adapt_template(tokenizer)
