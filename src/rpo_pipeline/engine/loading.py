"""Language models as directories of safetensors."""

import logging
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from rpo_pipeline.engine.adapters import FOLDER, merged_weights, save_adapters
from rpo_pipeline.engine.chat_templates import STANDARD_DATE, adapt_template
from rpo_pipeline.engine.checks import (
    check_folder,
    check_kind,
    check_precision,
    check_settings,
    check_vocabulary,
    check_weights,
)
from rpo_pipeline.engine.encoding import control_tokens
from rpo_pipeline.engine.lengths import check_positions
from rpo_pipeline.engine.tokenisation import TextFormat, find_end_token
from rpo_pipeline.engine.trials import Trials
from rpo_pipeline.errors import ModelError, RpoError
from rpo_pipeline.params import PolicyParams, PrefixSharing
from rpo_pipeline.storage import use_hub_or_cache

logger = logging.getLogger(__name__)

REASON_CHARACTERS = 300

transformers_logging.disable_progress_bar()  # the bars of the project show a run, not each file


@dataclass(frozen=True)
class LanguageModel:
    """A model and its tokenizer, in evaluation mode and without dropout."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    dtype: torch.dtype = torch.float32
    """Precision of the forward pass; the weights stay float32."""
    prefix_sharing: PrefixSharing = "auto"
    """Way in which a decoder computes a prompt once for all its responses."""
    trials: Trials = field(default_factory=Trials, compare=False)
    """Results of what was tried on the model."""

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether an encoder reads the prompt."""
        return bool(self.model.config.is_encoder_decoder)

    @property
    def reads_chats(self) -> bool:
        """Whether the model is a decoder that reads a prompt through a chat template."""
        return bool(self.tokenizer.chat_template) and not self.is_encoder_decoder

    @property
    def is_sharded(self) -> bool:
        """Whether the weights are spread over processes, which then must make the same passes."""
        return any(isinstance(weight, DTensor) for weight in self.model.parameters())

    def text_format(self, policy: PolicyParams) -> TextFormat:
        """Return how this model reads prompts and writes responses, within the limits on tokens."""
        return TextFormat(
            self.tokenizer,
            self.is_encoder_decoder,
            policy.max_prompt_tokens,
            policy.max_response_tokens,
        )

    def autocast(self) -> torch.autocast:
        """Return the context of every forward pass, in training and scoring alike."""
        return torch.autocast(
            self.model.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )

    def save(self, directory: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write weights, configuration and tokenizer into a folder, as transformers reads them.

        The weights are the whole state dict, if the model holds only a part of it; else null.
        """
        weights = weights or self.model.state_dict()
        self.model.save_pretrained(directory, state_dict=merged_weights(self.model, weights))
        self.tokenizer.save_pretrained(directory)
        save_adapters(self.model, weights, directory / FOLDER)


def load_language_model(
    name_or_path: str | Path,
    *,
    dtype: str = "float32",
    prefix_sharing: PrefixSharing = "auto",
    revision: str | None = None,
    day: date = STANDARD_DATE,
) -> LanguageModel:
    """Load a causal or encoder-decoder model with its tokenizer, in evaluation mode.

    The weights are float32 whatever the precision of the forward pass, ``float32`` or ``bfloat16``,
    and every dropout is 0. From now on, a chat template that asks for the date writes ``day``. A
    ModelError says that there is no such model, that it cannot be trained here, or that its weights
    or its tokenizer are not those of its architecture.
    """
    with loading_errors(name_or_path, "a model from", "policy.name_or_path"):
        if revision is None and not Path(name_or_path).is_dir():
            logger.warning(
                "%s is no folder here, so it is taken from the hub as it is today, which may "
                "change: pin its commit (policy.revision)",
                name_or_path,
            )
        use_hub_or_cache(name_or_path)
        check_settings(
            name_or_path, PreTrainedConfig.get_config_dict(name_or_path, revision=revision)[0]
        )
        config = AutoConfig.from_pretrained(
            name_or_path, revision=revision, trust_remote_code=False
        )
        auto_class = writer_class(config)
        check_kind(name_or_path, config, auto_class)
        model, tokenizer, report = load_pretrained(
            auto_class,
            name_or_path,
            revision,
            config=without_dropout(config),
            ignore_mismatched_sizes=True,  # check_weights names them all
        )
    check_weights(name_or_path, report)
    check_precision(name_or_path, model, revision)
    check_vocabulary(name_or_path, model, tokenizer)
    adapt_template(tokenizer, day)
    nn.Module.to(model, default_device())  # transformers' own wrapper of it is untyped
    language_model = as_language_model(model, tokenizer, dtype=dtype)
    return replace(language_model, prefix_sharing=prefix_sharing)


def writer_class(config: PreTrainedConfig) -> Any:  # noqa: ANN401 (transformers' factories share no type)
    """Return the factory of transformers for models of text of this configuration."""
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


@contextmanager
def loading_errors(name_or_path: str | Path, what: str, setting: str) -> Iterator[None]:
    """Check the folder of a model, and raise a ModelError for every error of its readers.

    The error says what cannot be loaded, why, and which setting names it.
    """
    try:
        check_folder(name_or_path)
        yield
    except RpoError:
        raise
    except Exception as err:  # readers of files may raise any error
        raise ModelError(
            f"cannot load {what} {str(name_or_path)!r}: {reason_of(err)} ({setting}: a hub id that "
            "can be reached, or a directory with config.json, *.safetensors and the tokenizer)"
        ) from err


def load_pretrained(
    auto_class: Any,  # noqa: ANN401 (transformers' factories share no type)
    name_or_path: str | Path,
    revision: str | None,
    *,
    dtype: torch.dtype = torch.float32,
    **options: Any,  # noqa: ANN401 (of transformers)
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """Load a model and its tokenizer, and with them transformers' report on the weights."""
    model, report = auto_class.from_pretrained(
        name_or_path,
        revision=revision,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **options,
    )
    tokenizer = AutoTokenizer.from_pretrained(
        name_or_path, revision=revision, trust_remote_code=False
    )
    return model, tokenizer, report


def reason_of(err: Exception) -> str:
    """Return the first sentence of an error of another package, or a plainer one in its place."""
    if "trust_remote_code" in str(err):
        return (
            "it needs Python code that comes with it (auto_map), which is not run here; name a "
            "model of an architecture that transformers has itself"
        )
    lines = [" ".join(line.split()) for line in str(err).strip().splitlines()]
    if lines and lines[0].endswith(":"):  # the next lines hold what it announces
        return textwrap.shorten(" ".join(lines), REASON_CHARACTERS)
    return (lines or [type(err).__name__])[0]


def default_device() -> torch.device:
    """Return the accelerator of this process, or the CPU."""
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def load_checkpoint(directory: Path, policy: PolicyParams) -> LanguageModel:
    """Load a model that the project made, with the precision and sharing of the parameters.

    A ModelError says that it cannot be loaded, or has fewer positions than the limits allow tokens.
    """
    language_model = load_language_model(
        directory, dtype=policy.dtype, prefix_sharing=policy.prefix_sharing
    )
    check_positions(language_model.model, policy)
    return language_model


def as_language_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, dtype: str = "float32"
) -> LanguageModel:
    """Pair a model with its tokenizer, ready to score and to sample."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if dtype == "bfloat16" and model.device.type == "cpu" and not _multiplies_in_bfloat16():
        logger.warning(
            "policy.dtype: bfloat16 is many times slower than float32 on this processor, which has "
            "no instructions for it"
        )
    if tokenizer.chat_control_tokens is None:
        tokenizer.chat_control_tokens = control_tokens(tokenizer)
    if model.config.is_encoder_decoder and model.config.decoder_start_token_id is None:
        raise ModelError(
            "the model has no decoder_start_token_id in its config.json, so that its decoder has "
            "nothing to begin with"
        )
    # The checkpoint's own one may hold top_p or a repetition penalty, which change the samples.
    model.generation_config = GenerationConfig(
        eos_token_id=find_end_tokens(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )
    return LanguageModel(model.eval(), tokenizer, getattr(torch, dtype))


def find_end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end an answer, in sampling, evaluation and serving alike.

    The first ends the responses of the log; generation_config.json may name more, each by its id or
    its text, or a ModelError is raised.
    """
    named = getattr(model.generation_config, "eos_token_id", None)
    others = named if isinstance(named, list) else [named]
    ids = tokenizer.get_vocab()
    others = [ids.get(token, token) if isinstance(token, str) else token for token in others]
    if wrong := [token for token in others if token is not None and type(token) is not int]:
        raise ModelError(
            f"eos_token_id in generation_config.json of {model.name_or_path!r} is "
            f"{', '.join(map(repr, wrong))}, and it must be the id or the text of a token, or a "
            "list of these"
        )
    embedding: Any = model.get_input_embeddings()
    rows = len(embedding.weight)
    known = [token for token in others if token is not None and 0 <= token < rows]
    return [*dict.fromkeys([find_end_token(tokenizer), int(tokenizer.eos_token_id), *known])]


def _multiplies_in_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def without_dropout(config: PreTrainedConfig) -> PreTrainedConfig:
    """Set every dropout probability of a configuration to 0.

    At step 0 the log-ratio to the cached reference must be 0, and dropout would add noise to it.
    """
    for name, value in list(vars(config).items()):
        if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
            setattr(config, name, 0.0)
    return config
