"""What a person wrote is plain text, whatever control tokens it spells."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from rpo_pipeline.engine.encoding import (
    TemplateRefusalError,
    control_tokens,
    encode_chats,
    encode_prompts,
    encode_texts,
)
from tests.conftest import build_small

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz <>/|_▁.,!"]


def unigram(**settings) -> Tokenizer:
    """As T5's: control tokens stand in the vocabulary as pieces that are likelier than letters."""
    pieces = [*((token, 0.0) for token in ("<pad>", "</s>", "<unk>", "<s>")), ("▁", -2.0)]
    pieces += [(letter, -5.0) for letter in LETTERS if letter not in " ▁"]
    pieces += [("▁hi", -3.0), ("▁the", -3.0), ("re", -3.5)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2))
    backend.normalizer = normalizers.Replace("\n", " ")
    backend.pre_tokenizer = pre_tokenizers.Metaspace(**settings)
    backend.decoder = decoders.Metaspace(**settings)
    return backend


def sentencepiece_bpe() -> Tokenizer:
    """As Llama 2's: spaces are part of the words, and unknown letters come as bytes."""
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", "<pad>"])}
    for token in [*(f"<0x{i:02X}>" for i in range(256)), *LETTERS, "th", "the", "▁the"]:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [("t", "h"), ("th", "e"), ("▁", "the")]
    backend = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return backend


@cache
def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    if kind == "byte-level":
        made = build_small("llama").tokenizer
        made.add_special_tokens({"bos_token": "<s>", "unk_token": "</s>"})
    else:
        backend = {
            "unigram": lambda: unigram(prepend_scheme="always"),
            "unigram, first word": lambda: unigram(prepend_scheme="first"),
            "sentencepiece BPE": sentencepiece_bpe,
        }[kind]()
        made = PreTrainedTokenizerFast(
            tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", bos_token="<s>"
        )
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            special_tokens=[(t, made.convert_tokens_to_ids(t)) for t in ("<s>", "</s>")],
        )
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.chat_template = CHATML
    made.chat_control_tokens = control_tokens(made)
    return made


KINDS = ["byte-level", "unigram", "unigram, first word", "sentencepiece BPE"]
plain = st.text(st.sampled_from([*LETTERS, "\n", "é", "世", "🙂"]), max_size=30).filter(
    lambda text: not any(token in text for token in CONTROL)
)
spiked = st.lists(st.one_of(plain, st.sampled_from(CONTROL)), min_size=1, max_size=5).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(texts=st.lists(plain, min_size=1, max_size=4))
def test_without_control_tokens_the_tokens_are_those_of_the_tokenizer_and_its_template(kind, texts):
    ours = tokenizer(kind)
    chats = [[{"role": "user", "content": text}] for text in texts]
    expected = ours.apply_chat_template(chats, add_generation_prompt=True)["input_ids"]
    assert encode_prompts(ours, texts, is_encoder_decoder=False) == expected
    for add in (True, False):
        got = encode_texts(ours, texts, add_special_tokens=add)
        assert got == ours(texts, add_special_tokens=add)["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(text=spiked)
def test_no_text_becomes_a_control_token_alone_or_in_a_chat(kind, text):
    ours = tokenizer(kind)
    special = {*ours.convert_tokens_to_ids(CONTROL)} - {ours.unk_token_id}
    (ids,) = encode_texts(ours, [text], add_special_tokens=False)
    assert not special & {*ids}
    (whole,) = encode_texts(ours, [text], add_special_tokens=True)
    (empty,) = encode_texts(ours, [""], add_special_tokens=True)
    assert len(whole) - len(ids) == len(empty)
    chats = [[{"role": "user", "content": one}] for one in (text, "hi")]
    with_text, without = encode_chats(ours, chats, add_generation_prompt=True)
    count = [sum(i in special for i in ids) for ids in (with_text, without)]
    assert count[0] == count[1]


def test_the_text_of_a_control_token_is_kept_letter_by_letter():
    ours = tokenizer("byte-level")
    text = "Write <|im_end|> at the end, then <s>."
    (ids,) = encode_texts(ours, [text], add_special_tokens=False)
    assert ours.decode(ids) == text


def test_thoughts_of_a_model_are_its_own_tokens_but_the_marks_of_turns_are_not():
    ours = build_small("llama").tokenizer
    ours.add_tokens(["<think>", "[turn]"])  # neither of them special
    ours.chat_template = "{% for m in messages %}[turn]{{ m.content }}{% endfor %}<think>"[:-7] + (
        "{% if add_generation_prompt %}[turn]<think>{% endif %}"
    )
    ours.chat_control_tokens = control_tokens(ours)
    assert "[turn]" in ours.chat_control_tokens
    (ids,) = encode_texts(ours, ["<think>so</think> [turn]"], add_special_tokens=False)
    thought, turn = ours.convert_tokens_to_ids(["<think>", "[turn]"])
    assert ids.count(thought) == 1
    assert turn not in ids


def test_chats_that_a_template_refuses_are_counted_with_an_example():
    ours = build_small("llama").tokenizer
    ours.chat_template = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}"
        "{% endif %}{{ m.content }}{% endfor %}"
    )
    chats = [[{"role": role, "content": f"from {role}"}] for role in ("user", "tool", "user")]
    with pytest.raises(
        TemplateRefusalError, match=r"refuses 1 of 3 chats.*turns tool.*'from tool': no tools"
    ):
        encode_chats(ours, chats, add_generation_prompt=True)
