import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rpo_pipeline.engine.batches import score_groups
from rpo_pipeline.engine.groups import Group
from rpo_pipeline.engine.loading import as_language_model
from rpo_pipeline.engine.sampling import GumbelNoise, sample_responses
from tests.conftest import build_small, limits


def sample(language_model, texts, seeds, **settings):
    text_format = language_model.text_format(limits(64, 64))
    settings = {"sampling_temperature": 1.0, "max_new_tokens": 12, **settings}
    prompts = text_format.encode_prompts(texts)
    return prompts, sample_responses(language_model, prompts, seeds=seeds, **settings)


TEXTS = ["Help!", "Hello, my kettle leaks. Can you help?", "Hi"]


def test_a_row_gets_the_same_response_in_any_batch(language_model):
    _, together = sample(language_model, TEXTS, [1, 2, 3])
    _, one_by_one = sample(language_model, TEXTS, [1, 2, 3], batch_size=1)
    assert together == one_by_one


def test_another_seed_gives_another_response(language_model):
    _, responses = sample(language_model, ["Help!"] * 4, [1, 2, 3, 4])
    assert len({tuple(response.token_ids) for response in responses}) > 1


def test_a_response_stops_at_the_end_token_or_at_the_limit(language_model):
    _, responses = sample(language_model, TEXTS * 10, range(30))
    eos = language_model.tokenizer.eos_token_id
    for response in responses:
        assert len(response.token_ids) == 12 or response.token_ids[-1] == eos
        assert eos not in response.token_ids[:-1]


def test_temperature_zero_takes_the_most_likely_token(language_model):
    prompts, (response, *_) = sample(language_model, ["Help!"], [7], sampling_temperature=0)
    for other in range(5):
        changed = [other, *response.token_ids[1:2]]
        pair = Group(prompts[0], [response.token_ids[:1], changed[:1]], [0, 1])
        scores = score_groups(language_model, [pair], micro_batch_tokens=500)
        assert scores[0] >= scores[1]


def test_gumbel_noise_samples_from_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0]).log_softmax(0).repeat(20_000, 1)
    noise = GumbelNoise(range(20_000), sampling_temperature=1.0)
    drawn = noise(torch.zeros(20_000, 1), logits).argmax(dim=1)
    shares = torch.bincount(drawn, minlength=3) / 20_000
    torch.testing.assert_close(shares, logits[0].exp(), atol=0.015, rtol=0)


def test_sampling_stops_at_the_end_of_a_turn():
    language_model = build_small("llama")
    tokenizer = language_model.tokenizer
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|user|>{% endfor %}"
    language_model = as_language_model(language_model.model, tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|user|>")
    _, responses = sample(language_model, ["Help!"] * 60, range(60), max_new_tokens=40)
    ended = [r.token_ids for r in responses if end in r.token_ids]
    assert ended
    assert all(ids.index(end) == len(ids) - 1 for ids in ended)


@pytest.mark.parametrize("texts", [[*TEXTS, "Hi"], ["Hi"] * 3])
def test_a_model_that_mixes_rows_gives_a_row_the_response_that_it_gives_it_alone(texts, caplog):
    tokenizer = build_small("llama").tokenizer
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": len(tokenizer)}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("rwkv", **sizes))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4 if weight.dim() > 1 else 1)
    language_model = as_language_model(model, tokenizer)
    _, together = sample(language_model, texts, range(len(texts)))
    assert "samples them one by one" in caplog.text
    alone = [sample(language_model, [text], [row])[1][0] for row, text in enumerate(texts)]
    assert together == alone


def test_rows_that_share_a_batch_exactly_are_told_of_nowhere(language_model, caplog):
    sample(language_model, TEXTS, [1, 2, 3])
    assert language_model.trials.samples_by_padding[True]
    assert "one by one" not in caplog.text
