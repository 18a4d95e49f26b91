import logging

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rpo_pipeline.engine.tokenisation import (
    TextFormat,
    find_end_token,
    tokenise_groups,
)
from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.chats import render_prompt, write_prompt
from tests.conftest import build_small, limits

CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Help!"},
    {"role": "assistant", "content": "With what?"},
    {"role": "user", "content": "My kettle."},
]
# Of three families, each with an end of turn of its own.
ENDS = {
    "<|im_end|>": "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n",
    "<end_of_turn>": "<start_of_turn>{{ m.role }}\n{{ m.content | trim }}<end_of_turn>\n",
    "<|end|>": "[{{ m.role }}] {{ m.content }}\n",  # no special token: the end of the sequence
}


def text_format(language_model, prompt=64, response=64):
    return language_model.text_format(limits(prompt, response))


def test_a_response_ends_with_the_end_token_and_decodes_to_itself(language_model):
    tokenizer = language_model.tokenizer
    (ids,) = text_format(language_model).encode_responses(["Hi Ada, naïve 🙂!"])
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]) == "Hi Ada, naïve 🙂!"


def test_a_response_cut_at_the_limit_has_no_end_token(language_model):
    (ids,) = text_format(language_model, response=3).encode_responses(["We are sorry, so sorry."])
    assert len(ids) == 3
    assert language_model.tokenizer.eos_token_id not in ids


def test_a_prompt_of_a_chat_model_is_a_user_turn_that_opens_the_answer(language_model):
    tokenizer = language_model.tokenizer
    (ids,) = text_format(language_model).encode_prompts(["Help!"])
    if language_model.is_encoder_decoder:
        assert tokenizer.decode(ids) == "Help!<|end|>"
    else:
        assert tokenizer.decode(ids) == "<|user|>Help!<|assistant|>"


def test_a_cut_prompt_keeps_what_the_model_needs_at_its_end(language_model):
    (ids,) = text_format(language_model, prompt=4).encode_prompts(["Help me with my kettle!"])
    assert len(ids) == 4
    end = "<|end|>" if language_model.is_encoder_decoder else "<|assistant|>"
    assert language_model.tokenizer.decode(ids[-1:]) == end


def test_rows_of_one_prompt_form_one_group_wherever_they_stand(language_model, rows):
    shuffled = rows.sample(frac=1, random_state=1).reset_index(drop=True)
    groups = tokenise_groups(shuffled, text_format(language_model))
    assert [group.prompt_id for group in groups] == ["p0", "p1", "p2"]
    for group in groups:
        assert set(shuffled.loc[group.rows, "prompt_id"]) == {group.prompt_id}
    assert sorted(row for group in groups for row in group.rows) == list(range(len(rows)))


def test_what_is_cut_is_counted_in_a_warning(language_model, rows, caplog):
    with caplog.at_level(logging.WARNING):
        tokenise_groups(rows, text_format(language_model, response=5))
    assert "of 6 responses are cut at policy.max_response_tokens = 5" in caplog.text


def test_a_chat_with_a_system_prompt_and_several_turns_is_written_by_the_template():
    language_model = build_small("llama")
    (ids,) = text_format(language_model).encode_prompts([CHAT])
    assert language_model.tokenizer.decode(ids) == (
        "<|system|>Be kind.<|user|>Help!<|assistant|>With what?<|end|>"
        "<|user|>My kettle.<|assistant|>"
    )


@pytest.mark.parametrize("model_type", ["llama", "t5"])
def test_a_chat_for_a_model_without_a_template_is_an_error_in_words(model_type):
    language_model = build_small(model_type)
    language_model.tokenizer.chat_template = None
    with pytest.raises(DataError, match="has no chat template"):
        text_format(language_model).encode_prompts(["Help!", CHAT])


@pytest.mark.parametrize("end", ENDS)
def test_a_response_ends_as_the_chat_template_ends_an_assistant_turn(end):
    language_model = build_small("llama")
    tokenizer = language_model.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<end_of_turn>"]})
    tokenizer.chat_template = "{% for m in messages %}" + ENDS[end] + "{% endfor %}"
    assert find_end_token(tokenizer) == tokenizer.convert_tokens_to_ids(end)
    (ids,) = text_format(language_model).encode_responses(["Hi"])
    assert tokenizer.decode(ids) == f"Hi{end}"


def test_what_is_cut_is_counted(language_model, rows, caplog):
    whole = text_format(language_model)
    tokenise_groups(rows, whole)
    assert "are cut" not in caplog.text
    lengths = [len(ids) for ids in whole.encode_prompts(rows["prompt"].drop_duplicates().tolist())]
    longest = max(lengths)
    tokenise_groups(rows, text_format(language_model, prompt=longest - 1, response=5))
    responses = whole.encode_responses(rows["response"].tolist())
    assert (
        f"{sum(len(ids) > 5 for ids in responses)} of 6 responses are cut at "
        f"policy.max_response_tokens = 5, and {lengths.count(longest)} of 3 prompts at "
        f"policy.max_prompt_tokens = {longest - 1}"
    ) in caplog.text


def test_a_chat_of_the_prompt_column_is_read_as_its_messages():
    language_model = build_small("llama")
    language_model.tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}"
    )
    reading = text_format(language_model)
    assert reading.encode_prompts([write_prompt(CHAT)]) == reading.encode_prompts([CHAT])


@pytest.mark.parametrize("model_type", ["gpt2", "t5"])
def test_a_model_without_a_template_reads_a_chat_of_the_column_turn_by_turn(model_type, caplog):
    language_model = build_small(model_type)
    language_model.tokenizer.chat_template = None
    reading = text_format(language_model)
    prompts = [write_prompt(CHAT), "Hello"]
    assert reading.encode_prompts(prompts) == reading.encode_prompts(
        [render_prompt(prompts[0]), "Hello"]
    )
    assert "1 of 2 prompts are chats" in caplog.text


def test_tokens_and_line_breaks_that_a_vocabulary_does_not_have_are_counted(rows, caplog):
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, "We": 3, "are": 4}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    rows.loc[0, "response"] = "We\nare sorry"
    tokenise_groups(rows, TextFormat(tokenizer, False, 64, 64))
    assert "(100.0 %) of the prompts are <unk>" in caplog.text
    assert "1 of 6 responses have several lines" in caplog.text
    caplog.clear()
    tokenise_groups(rows, text_format(build_small("llama")))
    assert "<unk>" not in caplog.text
    assert "several lines" not in caplog.text
