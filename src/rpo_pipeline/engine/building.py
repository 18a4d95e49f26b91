"""Builds a small model and its tokenizer from a config block, if there is no checkpoint."""

import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from rpo_pipeline.engine.chat_templates import warn_of_opening
from rpo_pipeline.engine.checks import check_kind
from rpo_pipeline.engine.lengths import check_positions
from rpo_pipeline.engine.loading import (
    LanguageModel,
    as_language_model,
    load_language_model,
    without_dropout,
    writer_class,
)
from rpo_pipeline.errors import ModelError
from rpo_pipeline.params import FromConfigParams, PolicyParams

logger = logging.getLogger(__name__)

REFUSALS = (ValueError, TypeError, KeyError, StrictDataclassError)
"""Errors of transformers for a configuration that it cannot use."""
PAD, EOS, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def check_architecture(settings: FromConfigParams) -> PreTrainedConfig:
    """Refuse a model that could not be built, before anything is computed for it.

    A ModelError says that transformers knows no such architecture or refuses the configuration,
    that a setting is misspelt, or that the model does not write text. Otherwise the configuration
    is returned in the form of transformers.
    """
    kind = settings.model_type
    sizes = settings.model_dump(exclude={"model_type", "vocab_size"}, exclude_none=True)
    try:
        config: PreTrainedConfig = AutoConfig.for_model(kind, **sizes)
        known = AutoConfig.for_model(kind)
    except REFUSALS as err:
        raise _cannot_build(kind, sizes, err) from err
    names = {name for name in (*known.to_dict(), *known.attribute_map) if name[:1] != "_"}
    for name in sizes:
        if hasattr(known, name) or hasattr(known, f"_{name}"):
            continue
        if close := get_close_matches(name, names, n=1, cutoff=0.85):
            raise ModelError(
                f"a {kind!r} model has no setting {name!r}: did you mean {close[0]}? "
                "(policy.from_config in conf/*/parameters_policy.yml)"
            )
        logger.warning("policy.from_config.%s is no setting of a %r model", name, kind)
    check_kind("policy.from_config", config, writer_class(config))
    return config


def make_language_model(policy: PolicyParams, texts: Iterable[str], *, seed: int) -> LanguageModel:
    """Load the model that a reference starts from, or build it where there is no checkpoint.

    The tokenizer of a built model is fitted on the texts, and its weights come from the seed. The
    chat template of a loaded model, if any, writes today's date. A ModelError says that the model
    cannot be loaded or built, or has fewer positions than the limits allow tokens.
    """
    if policy.from_config:
        language_model = build_language_model(
            policy.from_config, texts, seed=seed, dtype=policy.dtype
        )
    else:
        language_model = load_language_model(
            str(policy.name_or_path),
            dtype=policy.dtype,
            revision=policy.revision,
            day=datetime.now(UTC).date(),
        )
    check_positions(language_model.model, policy)
    warn_of_opening(language_model.tokenizer)
    return language_model


def build_language_model(
    settings: FromConfigParams, texts: Iterable[str], *, seed: int, dtype: str
) -> LanguageModel:
    """Build a model with random weights and every dropout 0, and fit its tokenizer on texts.

    A ModelError says that transformers knows no such architecture or refuses the configuration.
    """
    config = check_architecture(settings)
    try:
        fitted = fit_tokenizer(
            texts,
            vocab_size=settings.vocab_size,
            is_encoder_decoder=bool(config.is_encoder_decoder),
        )
        tokenizer = _reopened(fitted, config)
        config.vocab_size = len(tokenizer)
        config.pad_token_id = config.decoder_start_token_id = tokenizer.pad_token_id
        config.eos_token_id, config.bos_token_id = tokenizer.eos_token_id, None
        torch.manual_seed(seed)
        model = writer_class(config).from_config(without_dropout(config))
    except REFUSALS as err:
        raise _cannot_build(settings.model_type, settings.model_extra or {}, err) from err
    return as_language_model(model, tokenizer, dtype=dtype)


def _cannot_build(kind: str, sizes: Mapping[str, Any], error: Exception) -> ModelError:
    said = " ".join(str(error).split())
    return ModelError(f"cannot build a {kind!r} model from policy.from_config {sizes}: {said}")


def fit_tokenizer(
    texts: Iterable[str], *, vocab_size: int, is_encoder_decoder: bool
) -> PreTrainedTokenizerBase:
    """Fit a byte-level BPE tokenizer: any text has ids, and ids give the text back exactly.

    For a decoder it carries a chat template with a user and an assistant turn; for an
    encoder it ends each prompt with the end token, as T5's does.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if is_encoder_decoder:
        backend.post_processor = processors.TemplateProcessing(
            single=f"$A {EOS}", special_tokens=[(EOS, backend.token_to_id(EOS))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        additional_special_tokens=[USER, ASSISTANT],
    )
    if not is_encoder_decoder:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _reopened(
    tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig
) -> PreTrainedTokenizerBase:
    """Return a tokenizer as it is loaded from a saved model of this type.

    For some types (Qwen), transformers takes another class, which may add a token and splits texts
    in another way.
    """
    with TemporaryDirectory() as name:
        tokenizer.save_pretrained(name)
        (Path(name) / "config.json").write_text(json.dumps({"model_type": config.model_type}))
        reopened: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name, trust_remote_code=False
        )
    reopened.name_or_path = tokenizer.name_or_path
    return reopened
