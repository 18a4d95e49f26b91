"""Labels by a Hugging Face reward model, a sequence classifier of prompt and response."""

import logging
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rpo_pipeline.engine import (
    TemplateRefusalError,
    adapt_template,
    check_precision,
    default_device,
    encode_chats,
    load_pretrained,
    loading_errors,
    pack_rows,
)
from rpo_pipeline.errors import ConfigError, ModelError
from rpo_pipeline.ingestion import as_messages, render_prompt
from rpo_pipeline.labeling.labelers import settings_fingerprint
from rpo_pipeline.params import FittedRewardModelParams, RewardModelParams
from rpo_pipeline.storage import MODEL_LIBRARIES, model_fingerprint, use_hub_or_cache

logger = logging.getLogger(__name__)

LATE_POSITIONS = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer"})
"""Model types whose positions begin after that of the padding token."""

Encoded = dict[str, list[int]]
"""One row as the tokenizer returns it: input_ids, attention_mask and, for some models, more."""

# The place of the weights and the batching do not change an answer.
IGNORED = frozenset(
    "name_or_path revision micro_batch_tokens num_processes accelerate_config".split()
)


class RewardModelLabeler:
    """Labels pairs of prompt and response by one logit, or by the difference of two.

    A hub id without a revision raises ``ConfigError``.
    """

    def __init__(self, settings: RewardModelParams) -> None:
        self.name = settings.title
        self._settings = settings
        self._has_warned = False
        self.fingerprint = settings_fingerprint(
            settings,
            weights_name(settings),
            code=[RewardModelLabeler.label],
            libraries=MODEL_LIBRARIES,
            ignored=IGNORED,
        )

    def label(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Label rows; the logits of a head of several labels become components."""
        if rows.empty:
            return pd.DataFrame({"raw_reward": []}, index=rows.index, dtype=float)
        logits = self._logits(self._encode(rows["prompt"].tolist(), rows["response"].tolist()))
        labels = _head_labels(self._model)
        table = pd.DataFrame(logits.double().numpy(), index=rows.index, columns=labels)
        if len(labels) == 1:
            return table.set_axis(["raw_reward"], axis=1)
        positive, negative = self._ends(labels)
        return table.assign(raw_reward=table[positive] - table[negative])

    @cached_property
    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model, tokenizer = _load(self._settings)
        nn.Module.to(model, default_device())  # the method that transformers wraps is untyped
        model.eval()
        return model, tokenizer

    @property
    def _model(self) -> PreTrainedModel:
        return self._loaded[0]

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return self._loaded[1]

    @cached_property
    def _pad_token_id(self) -> int | None:
        own: int | None = self._model.config.get_text_config().pad_token_id
        return own

    def _choose_padding(self, batch: Sequence[Encoded]) -> int:
        """Choose the padding token; models find a row's last token as the last that is no padding.

        A model without a padding token reads single rows at their last token, so a batch is padded
        with a token that is the last of no row.
        """
        if self._pad_token_id is not None:
            return self._pad_token_id
        last = {row["input_ids"][-1] for row in batch}
        free = next(token for token in range(len(batch) + 1) if token not in last)
        self._model.config.get_text_config().pad_token_id = free
        return free

    def _ends(self, labels: Sequence[str]) -> tuple[str, str]:
        ends = (self._settings.positive_label or "", self._settings.negative_label or "")
        positive, negative = (end.lower() for end in ends)
        if {positive, negative} <= {*labels}:
            return positive, negative
        raise ConfigError(
            f"labeler `{self.name}`: the model has a head of {len(labels)} labels, so give "
            f"positive_label and negative_label, each one of {', '.join(labels)}; "
            f"got {ends[0]!r} and {ends[1]!r}"
        )

    def _encode(self, prompts: list[str], responses: list[str]) -> list[Encoded]:
        if self._tokenizer.chat_template:
            return self._encode_chats(prompts, responses)
        prompts = [render_prompt(prompt) for prompt in prompts]
        read = partial(self._tokenizer.__call__, prompts, responses, split_special_tokens=True)
        whole = read(verbose=False)
        num_cut = sum(len(ids) > self._limit for ids in whole["input_ids"])
        self._warn_of_cuts(num_cut, len(prompts))
        if num_cut:
            whole = read(truncation="longest_first", max_length=self._limit)
        return [{name: whole[name][row] for name in whole} for row in range(len(prompts))]

    def _encode_chats(self, prompts: list[str], responses: list[str]) -> list[Encoded]:
        chats = [
            [*as_messages(prompt), {"role": "assistant", "content": response}]
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        try:
            whole = encode_chats(self._tokenizer, chats, add_generation_prompt=False)
        except TemplateRefusalError as err:
            raise ModelError(f"labeler `{self.name}`: {err}") from err
        num_cut = sum(len(ids) > self._limit for ids in whole)
        self._warn_of_cuts(num_cut, len(whole))
        # The reward is read at the last token, so the start of the prompt is cut.
        cut = [ids[-self._limit :] for ids in whole]
        return [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in cut]

    @property
    def _limit(self) -> int:
        config = self._model.config
        positions = getattr(config, "max_position_embeddings", None)
        if positions and config.model_type in LATE_POSITIONS:
            positions -= config.pad_token_id + 1
        readable = min(positions or self._settings.max_tokens, self._tokenizer.model_max_length)
        return min(self._settings.max_tokens, readable)

    def _warn_of_cuts(self, num_cut: int, num_rows: int) -> None:
        if num_cut and not self._has_warned:
            logger.warning(
                "labeler %s: %d of the first %d pairs of prompt and response are cut at %d tokens "
                "(max_tokens, or what the model can read)",
                *(self.name, num_cut, num_rows, self._limit),
            )
            self._has_warned = True

    def _logits(self, encoded: Sequence[Encoded]) -> Tensor:
        """Compute the logits of every row, float32, on the CPU, shape ``(rows, labels)``."""
        model = self._model
        logits = torch.zeros(len(encoded), len(_head_labels(model)))
        lengths = [len(row["input_ids"]) for row in encoded]
        with (
            torch.inference_mode(),
            tqdm(total=len(encoded), desc=self.name, unit="row", disable=None, leave=None) as bar,
        ):
            for rows in pack_rows(lengths, self._settings.micro_batch_tokens):
                batch = [encoded[row] for row in rows]
                padded = _pad(batch, self._choose_padding(batch), model.device)
                logits[rows] = model(**padded).logits.float().cpu()
                bar.update(len(rows))
        return logits


def _pad(rows: Sequence[Encoded], pad_token_id: int, device: torch.device) -> dict[str, Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    filler = {"input_ids": pad_token_id}
    return {
        name: torch.tensor(
            [row[name] + [filler.get(name, 0)] * (longest - len(row[name])) for row in rows],
            device=device,
        )
        for name in rows[0]
    }


def _head_labels(model: PreTrainedModel) -> list[str]:
    named = model.config.id2label or {}
    return [str(label).lower() for _, label in sorted(named.items())]


def _load(settings: RewardModelParams) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load tokenizer and weights in safetensors, and check that they include the head."""
    use_hub_or_cache(settings.name_or_path)
    setting = f"name_or_path of labeler `{settings.title}`"
    with loading_errors(settings.name_or_path, "the reward model", setting):
        model, tokenizer, report = load_pretrained(
            AutoModelForSequenceClassification,
            settings.name_or_path,
            settings.revision,
            dtype=getattr(torch, settings.dtype),
        )
    if report["missing_keys"]:
        raise ModelError(
            f"{settings.name_or_path!r} is no reward model: it has no weights for "
            f"{', '.join(sorted(report['missing_keys']))}, which would be random"
        )
    check_precision(settings.name_or_path, model, settings.revision)
    adapt_template(tokenizer)
    return model, tokenizer


def weights_name(settings: RewardModelParams | FittedRewardModelParams) -> str:
    """Name weights by the hash of their directory, or by hub id and commit."""
    directory = Path(settings.name_or_path)
    if directory.is_dir():
        return model_fingerprint(directory)
    if settings.revision is None:
        raise ConfigError(
            f"labeler `{settings.title}`: {settings.name_or_path!r} is no directory here; if it is "
            "a hub id, give its commit as `revision`"
        )
    return f"{settings.name_or_path}@{settings.revision}"
