"""Sampling responses, repeatable row by row.

``generate()`` draws from one global random state, so what a row gets would depend on its batch.
Here each row adds Gumbel noise from a seed of its own and the arg max is taken, which samples from
the softmax exactly (Gumbel-max trick); two models given the same seed meet the same noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList

from rpo_pipeline.data.encoding import decode_answer, until_end
from rpo_pipeline.models.loading import LanguageModel


@dataclass(frozen=True)
class SampledResponse:
    """A response as the model wrote it."""

    text: str
    token_ids: list[int]
    """End token included, unless the limit cut the response."""


class GumbelNoise(LogitsProcessor):
    """Adds to each row's logits Gumbel noise that depends on the row's seed and the step only."""

    def __init__(self, seeds: Sequence[int], sampling_temperature: float) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature = sampling_temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 (an interface)
        """Perturb the logits of the next token, shape ``(B, V)``."""
        uniform = torch.stack(
            [torch.rand(scores.shape[1], generator=g) for g in self._generators]
        ).clamp_(min=torch.finfo(torch.float32).tiny)
        gumbel = -torch.log(-torch.log(uniform)).to(scores.device)
        return scores.float() / self._temperature + gumbel


def row_seed(*parts: object) -> int:
    """Seed of a row's noise from what names it, such as run seed, prompt_id and sample."""
    text = "/".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=7).digest())


def sample_responses(
    language_model: LanguageModel,
    prompts: Sequence[list[int]],
    *,
    seeds: Sequence[int],
    sampling_temperature: float,
    max_new_tokens: int,
    batch_size: int = 128,
) -> list[SampledResponse]:
    """Sample one response per (prompt, seed).

    Args:
        language_model: The model that writes.
        prompts: Token ids of each prompt.
        seeds: One per prompt; the same seed and prompt give the same noise for every model.
        sampling_temperature: 1 samples from the model's own distribution; 0 takes the most likely
            token each time.
        max_new_tokens: Longer responses are cut.
        batch_size: Rows generated together.

    Returns:
        Responses in the order of the prompts.
    """
    # Neighbours of one length share a batch, and a repeated prompt is not padded at all.
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    sampled: dict[int, SampledResponse] = {}
    with tqdm(total=len(prompts), desc="sampling", unit="row", disable=None, leave=None) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            noise = LogitsProcessorList()
            if sampling_temperature > 0:
                noise.append(GumbelNoise([seeds[row] for row in rows], sampling_temperature))
            ids = _generate(language_model, [prompts[row] for row in rows], noise, max_new_tokens)
            sampled |= zip(rows, (_to_response(language_model, row) for row in ids), strict=True)
            bar.update(len(rows))
    return [sampled[row] for row in range(len(prompts))]


def _generate(
    language_model: LanguageModel,
    prompts: list[list[int]],
    noise: LogitsProcessorList,
    max_new_tokens: int,
) -> list[list[int]]:
    model, tokenizer = language_model.model, language_model.tokenizer
    ends = model.generation_config.eos_token_id
    side = "right" if language_model.is_encoder_decoder else "left"
    batch = tokenizer.pad({"input_ids": prompts}, padding_side=side, return_tensors="pt")
    with torch.inference_mode(), language_model.autocast():
        output: Tensor = model.generate(  # type: ignore[operator] # typed as a module's attribute
            **batch.to(model.device),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            logits_processor=noise,
        )
    given = 1 if language_model.is_encoder_decoder else batch["input_ids"].shape[1]
    return [until_end(row, ends) for row in output[:, given:].tolist()]


def _to_response(language_model: LanguageModel, ids: list[int]) -> SampledResponse:
    ends = language_model.model.generation_config.eos_token_id
    return SampledResponse(decode_answer(language_model.tokenizer, ids, ends), ids)
