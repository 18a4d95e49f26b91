import logging

from rpo_pipeline.data.tokenisation import tokenise_groups


def text_format(language_model, prompt=64, response=64):
    return language_model.text_format(max_prompt_tokens=prompt, max_response_tokens=response)


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
