import pytest
import torch

from rpo_pipeline.engine.building import build_language_model, check_architecture
from rpo_pipeline.engine.loading import load_language_model
from rpo_pipeline.errors import ModelError
from rpo_pipeline.params import FromConfigParams
from rpo_pipeline.storage.digests import model_fingerprint
from tests.conftest import SIZES, TEXTS, build_small


def test_a_saved_model_loads_with_the_same_weights_tokenizer_and_no_pickle(
    language_model, tmp_path
):
    language_model.save(tmp_path / "model")
    loaded = load_language_model(tmp_path / "model")
    assert loaded.tokenizer.get_vocab() == language_model.tokenizer.get_vocab()
    assert loaded.tokenizer.chat_template == language_model.tokenizer.chat_template
    for one, other in zip(
        loaded.model.parameters(), language_model.model.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    assert not list((tmp_path / "model").glob("*.bin"))


def test_every_dropout_is_off_even_in_training_mode(language_model, tmp_path):
    language_model.save(tmp_path / "model")
    loaded = load_language_model(tmp_path / "model")
    loaded.model.train()
    rates = [m.p for m in loaded.model.modules() if isinstance(m, torch.nn.Dropout)]
    assert not any(rates)


def test_a_directory_that_is_no_model_is_an_error_that_says_what_is_needed(tmp_path):
    with pytest.raises(ModelError, match=r"policy\.name_or_path"):
        load_language_model(tmp_path)


def test_an_architecture_that_does_not_exist_is_an_error_that_names_it():
    settings = FromConfigParams(model_type="lama", vocab_size=320)
    with pytest.raises(ModelError, match="lama"):
        build_language_model(settings, ["text"], seed=0, dtype="float32")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model_type": "llama", "hidden_size": 32, "num_attention_heads": 3}, "not a multiple"),
        ({"model_type": "llama", "hidden_size": "x"}, "expected int, got str"),
        ({"model_type": "llama", "hiden_size": 32}, "did you mean hidden_size?"),
        ({"model_type": "t5", "num_decoder_layer": 2}, "did you mean num_decoder_layers?"),
        ({"model_type": "bert"}, "an encoder"),
        ({"model_type": "vit"}, "no language model"),
    ],
)
def test_a_configuration_that_cannot_work_is_one_sentence_before_anything_is_built(settings, said):
    with pytest.raises(ModelError) as error:
        check_architecture(FromConfigParams(vocab_size=320, **settings))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "llama", "hidden_size": 32, "rope_theta": 1e4, "num_key_value_heads": None},
        {"model_type": "t5", "num_decoder_layers": 2, "hidden_size": 32, "intermediate_size": None},
    ],
)
def test_a_setting_by_its_common_name_is_taken(settings):
    assert check_architecture(FromConfigParams(vocab_size=320, **settings)).hidden_size == 32


def test_a_model_without_layers_is_refused_with_the_parameters():
    with pytest.raises(ValueError, match="num_hidden_layers must be at least 1, got 0"):
        FromConfigParams(model_type="llama", vocab_size=320, num_hidden_layers=0)


def test_the_same_seed_builds_the_same_model_and_another_seed_another(tmp_path):
    prints = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build_small("llama", seed).save(tmp_path / name)
        prints.append(model_fingerprint(tmp_path / name))
    assert prints[0] == prints[1] != prints[2]


def test_half_precision_on_a_processor_without_it_is_warned_of(tmp_path, caplog):
    build_small("llama").save(tmp_path / "model")
    load_language_model(tmp_path / "model", dtype="bfloat16")
    supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert ("many times slower" in caplog.text) is not supported


@pytest.mark.parametrize("model_type", ["qwen2", "llama"])
def test_a_built_model_reads_texts_as_it_does_once_it_is_saved_and_loaded(model_type, tmp_path):
    settings = FromConfigParams(model_type=model_type, vocab_size=320, **SIZES["llama"])
    built = build_language_model(settings, TEXTS, seed=0, dtype="float32")
    built.save(tmp_path)
    loaded = load_language_model(tmp_path)
    assert loaded.tokenizer.get_vocab() == built.tokenizer.get_vocab()
    text = "Hello  kettle,\n\n don't 2024 naïve"
    ids = built.tokenizer(text)["input_ids"]
    assert loaded.tokenizer(text)["input_ids"] == ids
    assert loaded.tokenizer.decode(ids) == text
    assert len(built.model.get_input_embeddings().weight) == len(built.tokenizer)
