"""Models as people have them: each is right, or one sentence says what is wrong with it."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from rpo_pipeline.engine.checks import check_precision
from rpo_pipeline.engine.embedding import SentenceEncoder
from rpo_pipeline.engine.loading import load_checkpoint, load_language_model
from rpo_pipeline.errors import ModelError
from tests.conftest import SIZES, build_small, limits

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path, saved) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    build_small("llama").save(folder)
    return folder


def change_weights(folder, change):
    weights = change(load_file(folder / WEIGHTS))
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def change_config(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def without(name):
    return lambda weights: {key: one for key, one in weights.items() if name not in key}


def test_weights_of_a_compiled_model_are_refused_by_name_rather_than_left_random(folder):
    change_weights(folder, lambda weights: {f"_orig_mod.{k}": one for k, one in weights.items()})
    with pytest.raises(ModelError, match=r"lacks \d+ weights.*_orig_mod\."):
        load_language_model(folder)


def test_one_missing_weight_is_enough_wherever_the_folder_comes_from(folder):
    change_weights(folder, without("layers.1.mlp.up_proj"))
    with pytest.raises(ModelError, match=r"lacks 1 weights.*layers\.1\.mlp\.up_proj\.weight"):
        load_checkpoint(folder, limits(8, 8))


def test_weights_of_another_shape_are_refused_with_both_shapes(folder):
    change_config(folder, intermediate_size=64)
    with pytest.raises(ModelError, match=r"other shapes.*\(48, 32\) for \(64, 32\)"):
        load_language_model(folder)


def test_weights_that_no_layer_uses_are_told(folder, caplog):
    change_weights(folder, lambda weights: weights | {"model.layers.9.gate": torch.zeros(2)})
    with caplog.at_level(logging.WARNING):
        load_language_model(folder)
    assert "has 1 weights that its model does not use: model.layers.9.gate" in caplog.text


def test_tied_weights_are_there_once_and_none_is_missing(tmp_path):
    language_model = build_small("gpt2")
    language_model.save(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / WEIGHTS)
    load_language_model(tmp_path)


def test_a_sentence_encoder_without_a_weight_is_refused_but_nobody_reads_its_pooler(tmp_path):
    sizes = SIZES["llama"] | {"vocab_size": 320, "num_hidden_layers": 1}
    AutoModel.from_config(AutoConfig.for_model("bert", **sizes)).save_pretrained(tmp_path)
    build_small("llama").tokenizer.save_pretrained(tmp_path)
    change_weights(tmp_path, without("pooler"))
    SentenceEncoder(str(tmp_path), None)
    change_weights(tmp_path, without("layer.0.output.dense.weight"))
    with pytest.raises(ModelError, match=r"lacks 1 weights.*output\.dense\.weight"):
        SentenceEncoder(str(tmp_path), None)


def test_tokens_without_an_embedding_are_refused_before_they_are_read(folder):
    tokenizer = load_language_model(folder).tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"has \d+ tokens.*has \d+ rows: <\|im_start\|>"):
        load_language_model(folder)


def test_padding_without_an_embedding_gives_way_to_the_end_token(folder, caplog):
    tokenizer = load_language_model(folder).tokenizer
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    loaded = load_language_model(folder)
    assert loaded.tokenizer.pad_token_id == loaded.tokenizer.eos_token_id
    assert "[PAD]" in caplog.text


def test_more_tokens_than_positions_are_refused_where_a_checkpoint_is_loaded(tmp_path):
    build_small("gpt2").save(tmp_path)
    with pytest.raises(ModelError, match="1024 positions"):
        load_checkpoint(tmp_path, limits(1000, 25))


def as_pickles(folder):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def as_gguf(folder):
    (folder / WEIGHTS).rename(folder / "model-q4.gguf")
    (folder / "config.json").unlink()


def as_adapter(folder):
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')


def without_a_shard(folder):
    index = {"weight_map": dict.fromkeys(load_file(folder / WEIGHTS), "model-00002-of-00002.st")}
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def with_half_an_index(folder):
    without_a_shard(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ')


def truncated(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])


def pointer_to(name):
    """What a clone without Git LFS leaves of a large file."""
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"
    return lambda folder: (folder / name).write_text(text)


def without_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


def without_vocabulary(folder):
    (folder / "tokenizer.json").unlink()


def quantised_in_silence(folder):
    change_weights(folder, lambda ws: {k: (w * 100).to(torch.int8) for k, w in ws.items()})


def in_eight_bits(folder):
    name = "model.layers.1.mlp.up_proj.weight"
    change_weights(folder, lambda ws: ws | {name: ws[name].to(torch.float8_e4m3fn)})


UNUSABLE = {
    "pointers of Git LFS instead of model.safetensors": pointer_to(WEIGHTS),
    "pointers of Git LFS instead of tokenizer.json": pointer_to("tokenizer.json"),
    "holds a model without its tokenizer": without_tokenizer,
    r"backend tokenizer from one of: \(1\) a": without_vocabulary,
    r"stores 21 of its weights as I8 \(lm_head": quantised_in_silence,
    r"stores 1 of its weights as F8_E4M3 \(model.layers.1.mlp.up_proj": in_eight_bits,
    "its weights as pickles": as_pickles,
    "a GGUF file": as_gguf,
    "is an adapter": as_adapter,
    "lacks 1 of its 1 files of weights: model-00002": without_a_shard,
    "index.json' is damaged": with_half_an_index,
    "cannot load a model": truncated,
    "not a valid JSON": lambda folder: (folder / "config.json").write_text('{"model_type"'),
    r"is quantised \(bitsandbytes\)": lambda folder: change_config(
        folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}
    ),
    r"is quantised \(gptq\)": lambda folder: change_config(
        folder, quantization_config={"quant_method": "gptq", "bits": 4}
    ),
    "Python code that comes with it": lambda folder: change_config(
        folder, model_type="mine", auto_map={"AutoConfig": "mine.Config"}
    ),
    "reads texts but writes none": lambda folder: change_config(folder, model_type="bert"),
    "is no language model": lambda folder: change_config(folder, model_type="vit"),
    "a model of text and more": lambda folder: change_config(
        folder, model_type="gemma3", vision_config={}, text_config={}
    ),
    "cannot load a model from": lambda folder: (folder / "tokenizer.json").write_text("{"),
}


@pytest.mark.parametrize("reason", UNUSABLE)
def test_a_folder_that_cannot_be_used_is_one_sentence(folder, reason):
    UNUSABLE[reason](folder)
    with pytest.raises(ModelError, match=reason) as raised:
        load_language_model(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["./models/none", "/no/model", "~/none", "a/b/c", "C:\\model"])
def test_a_path_without_a_folder_is_not_looked_for_on_the_hub(name, caplog):
    with pytest.raises(ModelError, match="does not exist"):
        load_language_model(name)
    assert not caplog.text


def test_a_file_of_weights_is_not_taken_for_a_model(folder):
    with pytest.raises(ModelError, match="is a file, and a model is a folder"):
        load_language_model(folder / WEIGHTS)


def test_whole_numbers_that_are_no_weights_do_no_harm(folder):
    positions = {"model.position_ids": torch.arange(4), "model.layers.0.bias": torch.ones(2) > 0}
    change_weights(folder, lambda weights: weights | positions)
    load_language_model(folder)


def test_precisions_are_read_from_every_file_of_weights(folder):
    loaded = load_language_model(folder)
    in_eight_bits(folder)
    stored = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    shards = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(stored)}
    for shard in set(shards.values()):
        own = {name: weight for name, weight in stored.items() if shards[name] == shard}
        save_file(own, folder / shard, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ModelError, match="stores 1 of its weights as F8_E4M3"):
        check_precision(folder, loaded.model)


def name_ends(folder, ends):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))


def test_an_end_of_generation_may_be_named_by_its_text(folder):
    name_ends(folder, ["<|user|>", -1])
    loaded = load_language_model(folder)
    ends = loaded.model.generation_config.eos_token_id
    assert loaded.tokenizer.convert_ids_to_tokens(ends) == ["<|end|>", "<|user|>"]


@pytest.mark.parametrize("ends", ["<|nowhere|>", 1.5, [[1]], True])
def test_an_end_of_generation_that_is_no_token_is_refused(folder, ends):
    name_ends(folder, ends)
    with pytest.raises(ModelError, match=r"eos_token_id in generation_config.json of .*model' is"):
        load_language_model(folder)


def test_what_ends_an_answer_is_saved_with_the_model_beside_padding_and_beginning(folder):
    loaded = load_language_model(folder)
    loaded.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|user|>{% endfor %}"
    loaded.tokenizer.save_pretrained(folder)
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": [2, 9999]}))
    load_language_model(folder).save(folder)
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    names = loaded.tokenizer.convert_ids_to_tokens(ends)
    assert names == ["<|user|>", "<|end|>"]  # 9999 is no token, and 2 is <|user|>
    assert load_language_model(folder).model.generation_config.eos_token_id == ends
