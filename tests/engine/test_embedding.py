"""Embeddings against plain forward passes."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from rpo_pipeline.engine.embedding import SentenceEncoder, embed_responses
from rpo_pipeline.errors import ModelError
from tests.conftest import build_small

PROMPTS = ["Hello, my kettle leaks.", "Hello, my kettle leaks.", "Can you help?"]
RESPONSES = ["We are sorry.", "Go away, you fool.", "Hi"]
LIMITS = {"max_tokens": 32, "micro_batch_tokens": 64}


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_an_embedding_is_the_mean_state_from_which_the_response_is_told(model_type):
    language_model = build_small(model_type)
    embedded = embed_responses(language_model, PROMPTS, RESPONSES, **LIMITS)
    tokenizer = language_model.tokenizer
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        turns = [{"role": "user", "content": prompt}]
        start = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        ids = [*start, *tokenizer(response)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            states = language_model.model(
                torch.tensor([ids]), output_hidden_states=True
            ).hidden_states[-1][0]
        expected = states[len(start) - 1 : -1].mean(dim=0).numpy()
        np.testing.assert_allclose(embedded[row], expected, rtol=1e-4, atol=1e-5)


def test_an_encoder_decoder_reads_the_prompt_too():
    embedded = embed_responses(
        build_small("t5"), ["Help!", "Hello"], ["We are sorry."] * 2, **LIMITS
    )
    assert np.isfinite(embedded).all()
    assert np.abs(embedded[0] - embedded[1]).max() > 1e-3


@pytest.fixture
def encoder_directory(tmp_path):
    tokenizer = build_small("gpt2").tokenizer
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    config = BertConfig(vocab_size=len(tokenizer), num_hidden_layers=1, **sizes)
    BertModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_text_is_the_mean_of_its_tokens_whatever_stands_beside_it(encoder_directory):
    encoder = SentenceEncoder(str(encoder_directory), None)
    embedded = encoder.embed([*RESPONSES, "x" * 500], max_tokens=16, micro_batch_tokens=40)
    model = BertModel.from_pretrained(encoder_directory).eval()
    for row, text in enumerate([*RESPONSES, "x" * 500]):
        ids = build_small("gpt2").tokenizer(text)["input_ids"][:16]
        with torch.no_grad():
            mean = model(torch.tensor([ids])).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(embedded[row], mean / mean.norm(), rtol=1e-4, atol=1e-5)


def test_a_folder_without_a_model_is_an_error_that_says_what_is_needed(tmp_path):
    with pytest.raises(ModelError, match=r"\*\.safetensors and the tokenizer"):
        SentenceEncoder(str(tmp_path), None)
