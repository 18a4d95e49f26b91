"""Our side: models, the scoring pass and the training step, through the project's own functions."""

import copy
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from rpo_pipeline.engine import TrainView
from rpo_pipeline.engine.batches import score_groups
from rpo_pipeline.engine.groups import Group
from rpo_pipeline.engine.loading import LanguageModel, as_language_model, without_dropout
from rpo_pipeline.operations.environments import open_configuration
from rpo_pipeline.params import PolicyParams, TrainingParams
from rpo_pipeline.training.loop import prepare
from rpo_pipeline.training.objectives import Objective, RpoObjective, SftObjective
from rpo_pipeline.training.step import optimizer_step

MICRO_BATCH_TOKENS = 2048
SPECIAL = ("<pad>", "<end>", "<unknown>")

FLAN_T5_SMALL = T5Config(
    vocab_size=32128, d_model=512, d_ff=1024, d_kv=64, num_heads=6, num_layers=8,
    feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
)  # fmt: skip
LLAMA_4X256 = LlamaConfig(
    vocab_size=32000, hidden_size=256, intermediate_size=1024, num_hidden_layers=4,
    num_attention_heads=4, pad_token_id=0, eos_token_id=1, bos_token_id=None,
)  # fmt: skip
SMOLLM2_135M = LlamaConfig(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
    num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
    pad_token_id=0, eos_token_id=1, bos_token_id=None,
)  # fmt: skip


def word(token: int) -> str:
    """How the tokenizer writes a token."""
    return SPECIAL[token] if token < len(SPECIAL) else f"w{token}"


def build(config: PreTrainedConfig) -> LanguageModel:
    """A model with random weights, whose tokenizer writes each token as a word of its own."""
    torch.manual_seed(0)
    config = without_dropout(copy.deepcopy(config))
    auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = auto_class.from_config(config)
    if config.is_encoder_decoder:  # a randomly built T5 has huge logits
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(0.05)
    words = {word(token): token for token in range(config.vocab_size)}
    backend = Tokenizer(models.WordLevel(words, unk_token=SPECIAL[2]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pad, end, unknown = SPECIAL
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=pad, eos_token=end, unk_token=unknown
    )
    return as_language_model(model, tokenizer)


def twin(language_model: LanguageModel, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """The same weights in a model of its own."""
    model = copy.deepcopy(language_model.model)
    return LanguageModel(model, language_model.tokenizer, dtype)


def score(language_model: LanguageModel, groups: list[Group]) -> Tensor:
    """The partition pass: log-probability of every row, shape ``(R,)``."""
    return score_groups(language_model, groups, micro_batch_tokens=MICRO_BATCH_TOKENS)


class TrainingStep:
    """Optimizer steps on the same groups, one a call."""

    def __init__(
        self, language_model: LanguageModel, groups: list[Group], *, objective: str = "rpo"
    ) -> None:
        num_rows = sum(len(group.rows) for group in groups)
        self.model, self._groups = language_model.model, groups
        shipped = open_configuration(Path())["parameters"]
        policy = PolicyParams(**shipped["policy"])
        view = TrainView(language_model, policy, MICRO_BATCH_TOKENS)
        self._trainee, _ = prepare(
            view,
            _objective(objective, num_rows),
            TrainingParams(**shipped["training"]),
            num_steps=1,
        )

    def __call__(self) -> None:
        """Take one step."""
        optimizer_step(self._trainee, self._groups)


def _objective(name: str, num_rows: int) -> Objective:
    if name == "sft":
        return SftObjective()
    zeros = torch.zeros(num_rows)
    return RpoObjective(ref_logps=zeros, targets=zeros, per_token=True)
