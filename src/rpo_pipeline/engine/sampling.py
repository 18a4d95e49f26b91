"""Sampling responses, repeatable row by row.

``generate()`` draws from one global random state, so a row's response would depend on its batch.
Here Gumbel noise from a seed of the row is added to its logits and the arg max is taken, which
samples from the softmax exactly (Gumbel-max trick). The same seed gives two models the same noise.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList

from rpo_pipeline.engine.encoding import decode_answer, until_end
from rpo_pipeline.engine.loading import LanguageModel

logger = logging.getLogger(__name__)

ROUNDING = 1e-2
"""Difference allowed in the probability of a token between a prompt in a batch and alone."""
NUM_TRIED = 2
"""Number of compared tokens of an answer; the second depends on the state after the first."""


@dataclass(frozen=True)
class SampledResponse:
    """A response as the model wrote it."""

    text: str
    token_ids: list[int]
    """End token included, unless the limit cut the response."""


class GumbelNoise(LogitsProcessor):
    """Adds Gumbel noise to each row's logits, which depends on the row's seed and the step only."""

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
    """Derive the seed of a row's noise from its names, such as run seed, prompt_id and sample."""
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
    """Sample one response per (prompt, seed), in the order of the prompts, which are token ids.

    The same seed and prompt give the same noise for every model. Temperature 1 samples from the
    model's own distribution, 0 takes the most likely token each time. A response is cut at
    ``max_new_tokens``. ``batch_size`` rows are generated together, or single ones if the model does
    not keep rows apart.
    """
    ends = language_model.model.generation_config.eos_token_id
    sampled: dict[int, SampledResponse] = {}
    with tqdm(total=len(prompts), desc="sampling", unit="row", disable=None, leave=None) as bar:
        for rows in _batches(language_model, prompts, batch_size):
            noise = LogitsProcessorList()
            if sampling_temperature > 0:
                noise.append(GumbelNoise([seeds[row] for row in rows], sampling_temperature))
            output, given = _call(
                language_model,
                [prompts[row] for row in rows],
                max_new_tokens,
                logits_processor=noise,
            )
            for row, written in zip(rows, output[:, given:].tolist(), strict=True):
                ids = until_end(written, ends)
                text = decode_answer(language_model.tokenizer, ids, ends)
                sampled[row] = SampledResponse(text, ids)
            bar.update(len(rows))
    return [sampled[row] for row in range(len(prompts))]


def _batches(
    language_model: LanguageModel, prompts: Sequence[list[int]], batch_size: int
) -> Iterator[list[int]]:
    """Yield the rows that are generated together, shortest prompts first.

    Neighbours of one length share a batch, and a repeated prompt is not padded at all.
    """
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    together = min(batch_size, len(order)) > 1
    if together and not _batches_exactly(language_model, prompts[order[0]], prompts[order[-1]]):
        batch_size = 1
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _batches_exactly(language_model: LanguageModel, *prompts: list[int]) -> bool:
    """Tell whether two prompts that share a batch get the first tokens that each gets alone.

    The check is made at first use, and again for the first prompts of unequal length: a model with
    a recurrent state may carry padding or another row in it.
    """
    found = language_model.trials.samples_by_padding
    is_padded = len({*map(len, prompts)}) > 1
    if is_padded not in found:
        together = _first_logps(language_model, prompts)
        alone = [_first_logps(language_model, [prompt])[0] for prompt in prompts]
        pairs = zip(alone, together, strict=True)
        error = max(_difference(one, other) for one, other in pairs)
        found[is_padded] = error <= ROUNDING
        if error > ROUNDING:
            logger.warning(
                "the model writes other responses to prompts in a batch than to each alone (the "
                "probability of a token is off by %.2g): it samples them one by one, which takes "
                "longer",
                error,
            )
    return all(found.values())


def _first_logps(language_model: LanguageModel, prompts: Sequence[list[int]]) -> Tensor:
    """Compute log-probabilities at the first tokens of greedy answers, shape ``(B, S, V)``."""
    plain = replace(language_model, dtype=torch.float32)
    output = _call(plain, prompts, NUM_TRIED, output_logits=True, return_dict_in_generate=True)[0]
    return torch.stack(output.logits, dim=1).float().log_softmax(dim=-1)


def _difference(alone: Tensor, together: Tensor) -> float:
    """Return the largest difference in probability, up to the first token with another arg max."""
    worst = 0.0
    for one, other in zip(alone, together, strict=False):
        if one.isfinite().any():
            difference = (one.exp() - other.exp()).abs().nan_to_num(nan=torch.inf)
            worst = max(worst, float(difference.max()))
        if one.argmax() != other.argmax():
            break
    return worst


def _call(
    language_model: LanguageModel,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    **options: Any,  # noqa: ANN401 (of transformers)
) -> tuple[Any, int]:
    """Run ``generate`` on padded prompts; return its output and how many tokens of it are given."""
    model, tokenizer = language_model.model, language_model.tokenizer
    side = "right" if language_model.is_encoder_decoder else "left"
    batch = tokenizer.pad({"input_ids": [*prompts]}, padding_side=side, return_tensors="pt")
    with torch.inference_mode(), language_model.autocast():
        output = model.generate(  # type: ignore[operator] # typed as a module's attribute
            **batch.to(model.device), do_sample=False, max_new_tokens=max_new_tokens, **options
        )
    return output, 1 if language_model.is_encoder_decoder else batch["input_ids"].shape[1]
