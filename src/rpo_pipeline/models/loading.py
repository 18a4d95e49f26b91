"""Language models as directories of safetensors."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
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

from rpo_pipeline.data.tokenisation import TextFormat
from rpo_pipeline.errors import ModelError
from rpo_pipeline.io.hub import use_hub_or_cache
from rpo_pipeline.models.adapters import FOLDER, merged_weights, save_adapters
from rpo_pipeline.params import PolicyParams, PrefixSharing

logger = logging.getLogger(__name__)

transformers_logging.disable_progress_bar()  # ours tell how far a run is, not how far a file


@dataclass(frozen=True)
class LanguageModel:
    """A model and its tokenizer, in evaluation mode and without dropout."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    dtype: torch.dtype = torch.float32
    """Precision of the forward pass; the weights stay float32."""
    prefix_sharing: PrefixSharing = "auto"
    """How a decoder computes a prompt once for all its responses."""
    checked_routes: dict[str, bool] = field(default_factory=dict, compare=False)
    """Routes that were compared with row-by-row scoring, and whether they agreed."""
    checked_lengths: dict[str, int] = field(default_factory=dict, compare=False)
    """Tokens of the longest row that each route was compared with."""

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether an encoder reads the prompt."""
        return bool(self.model.config.is_encoder_decoder)

    @property
    def is_sharded(self) -> bool:
        """Whether its weights are spread over processes, which then must make the same passes."""
        return any(isinstance(weight, DTensor) for weight in self.model.parameters())

    def text_format(self, policy: PolicyParams) -> TextFormat:
        """How this model reads prompts and writes responses, within the limits on tokens."""
        return TextFormat(
            self.tokenizer,
            self.is_encoder_decoder,
            policy.max_prompt_tokens,
            policy.max_response_tokens,
        )

    def autocast(self) -> torch.autocast:
        """Context of every forward pass, in training and scoring alike."""
        return torch.autocast(
            self.model.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )

    def save(self, directory: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write weights, configuration and tokenizer, as transformers reads them.

        Args:
            directory: Where to.
            weights: Whole state dict, where the model itself holds a part of it; null: its own.
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
) -> LanguageModel:
    """Load a causal or encoder-decoder model with its tokenizer.

    Args:
        name_or_path: Model directory or hub id.
        dtype: ``float32`` or ``bfloat16``, of the forward pass.
        prefix_sharing: How a decoder computes a prompt once for all its responses.
        revision: Commit of a hub id.

    Returns:
        The model in evaluation mode, float32 weights, every dropout 0.

    Raises:
        ModelError: If there is no such model, or it has no safetensors weights, or its
            tokenizer lacks an end-of-sequence token.
    """
    if revision is None and not Path(name_or_path).is_dir():
        logger.warning(
            "%s is taken from the hub as it is today, which may change: pin its commit "
            "(policy.revision)",
            name_or_path,
        )
    use_hub_or_cache(name_or_path)
    try:
        config = AutoConfig.from_pretrained(
            name_or_path, revision=revision, trust_remote_code=False
        )
        auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = auto_class.from_pretrained(
            name_or_path,
            config=without_dropout(config),
            revision=revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            name_or_path, revision=revision, trust_remote_code=False
        )
    except (OSError, ValueError, SafetensorError) as err:
        reason = str(err).strip().splitlines()[0]
        raise ModelError(
            f"cannot load a model from {str(name_or_path)!r}: {reason} "
            "(policy.name_or_path: a hub id that can be reached, or a directory with config.json, "
            "*.safetensors and the tokenizer)"
        ) from err
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {str(name_or_path)!r} has no end-of-sequence token")
    nn.Module.to(model, default_device())  # transformers' own wrapper of it is untyped
    language_model = as_language_model(model, tokenizer, dtype=dtype)
    return replace(language_model, prefix_sharing=prefix_sharing)


def default_device() -> torch.device:
    """The accelerator of this process, or the CPU."""
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def load_checkpoint(directory: Path, policy: PolicyParams) -> LanguageModel:
    """Load a model that the project made, with the precision and sharing of the parameters."""
    return load_language_model(directory, dtype=policy.dtype, prefix_sharing=policy.prefix_sharing)


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
    # A checkpoint's own may hold top_p or a repetition penalty: samples would not be the policy's.
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )
    return LanguageModel(model.eval(), tokenizer, getattr(torch, dtype))


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
