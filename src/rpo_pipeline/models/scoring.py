"""Log-probabilities of prompt groups: one code path for caching, training and evaluation.

Shapes: P prompts, R rows (responses), L tokens of the longest, T scored tokens.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from rpo_pipeline.core.logps import projected_logps, sum_by_row, token_logps
from rpo_pipeline.data.groups import (
    Group,
    GroupBatch,
    collate,
    pack,
    rowwise_tokens,
    shared_tokens,
    tree_tokens,
)
from rpo_pipeline.models.loading import LanguageModel
from rpo_pipeline.models.routes import Reading, Route, read_responses

logger = logging.getLogger(__name__)

PADDED_TOKENS: dict[Route, Callable[[Sequence[Group]], int]] = {
    "off": rowwise_tokens,
    "tree": tree_tokens,
    "cache": shared_tokens,
}
EXACT = 1e-4
"""Nats a token by which a route may differ from scoring row by row, in float32."""
CACHE_OVERHEAD = 1.1
"""Two passes instead of one, and keys and values copied for each response."""


def micro_batches(
    language_model: LanguageModel, groups: Sequence[Group], max_tokens: int
) -> Iterator[tuple[GroupBatch, Route]]:
    """Cut groups into batches of a token budget, and choose the cheapest route through the model.

    Args:
        language_model: The model that will score.
        groups: In any order.
        max_tokens: Tokens of one forward pass, padding included.

    Yields:
        Padded batches on the model's device that together hold every row once, and the route to
        score each by.
    """
    model, pad_token_id = language_model.model, language_model.tokenizer.pad_token_id
    window = _window(model)
    long = [group for group in groups if _longest_row(group) > window]
    if long:
        _warn_of_window(language_model, window)
    short = [group for group in groups if _longest_row(group) <= window]
    for part in filter(None, (short, long)):
        route = choose_route(language_model, part)
        shared = language_model.is_encoder_decoder or route == "cache"
        padded_tokens = shared_tokens if shared else PADDED_TOKENS[route]
        for batch in pack(part, max_tokens, padded_tokens, by_prompt=shared):
            yield collate(batch, pad_token_id).to(model.device), route


def group_logps(language_model: LanguageModel, batch: GroupBatch, route: Route = "off") -> Tensor:
    """Log-probability of each response given its prompt, summed over its tokens.

    The vocabulary projection runs on response tokens only, whatever the route. Gradients flow.

    Args:
        language_model: The model that scores.
        batch: Groups, padded, on the model's device.
        route: How the responses come by their prompts.

    Returns:
        In nats, float32, shape ``(R,)``.
    """
    return _read(language_model, batch, route)[0]


def group_scores(
    language_model: LanguageModel, batch: GroupBatch, route: Route = "off"
) -> tuple[Tensor, Tensor]:
    """``group_logps``, and what the model knows of each prompt, for a value head.

    Args:
        language_model: The model that scores.
        batch: Groups, padded, on the model's device.
        route: How the responses come by their prompts.

    Returns:
        Summed log-probabilities in nats, float32, shape ``(R,)``, and states of the prompts,
        detached, float32, shape ``(P, H)``: the mean of the encoder's over the prompt's tokens, or
        for a decoder the last layer's at the prompt's last token.
    """
    logps, reading = _read(language_model, batch, route)
    if reading.prompts is not None:
        mask = batch.prompt_mask[:, :, None]
        states = (reading.prompts.detach().float() * mask).sum(dim=1) / mask.sum(dim=1)
    else:
        first_token = batch.num_tokens.cumsum(0) - batch.num_tokens
        states = reading.states.new_empty(len(batch.prompt_ids), reading.states.shape[1])
        # All responses of a prompt start from the same state.
        states[batch.prompt_index] = reading.states.detach()[first_token]
    return logps, states.float()


def choose_route(language_model: LanguageModel, groups: Sequence[Group]) -> Route:
    """The cheapest route through a model that is exact for these groups.

    Args:
        language_model: Its ``prefix_sharing`` is the wish: a route, or ``auto`` by cost.
        groups: What will be scored.

    Returns:
        ``off`` where sharing cannot be exact: a sliding window that is shorter than a row, or a
        model that failed the check at its first use. An encoder-decoder has no tree.
    """
    model, wish = language_model.model, language_model.prefix_sharing
    if wish == "off" or any(_longest_row(group) > _window(model) for group in groups):
        return "off"
    if all(len(group.rows) == 1 for group in groups):
        return "off"
    route: Route
    if language_model.is_encoder_decoder:
        route = "cache"
    else:
        route = _cheapest(model.config.hidden_size, groups) if wish == "auto" else wish
    # Checkpointing empties a cache, and processes that share weights must make the same passes.
    if route == "cache" and (model.is_activation_checkpointing or language_model.is_sharded):
        route = "off" if language_model.is_encoder_decoder else "tree"
    if route != "off" and route not in language_model.checked_routes:
        language_model.checked_routes[route] = _is_exact(language_model, groups, route)
    return route if language_model.checked_routes.get(route) else "off"


def check_routes(language_model: LanguageModel, groups: Sequence[Group]) -> None:
    """Compare the routes with scoring row by row now: once a model is sharded, it is too late."""
    if language_model.prefix_sharing == "auto":
        for route in ("tree", "cache"):
            choose_route(replace(language_model, prefix_sharing=route), groups)
    else:
        choose_route(language_model, groups)


def score_groups(
    language_model: LanguageModel, groups: Sequence[Group], *, micro_batch_tokens: int, title: str
) -> Tensor:
    """Score groups without gradients, in micro-batches of a token budget.

    Args:
        language_model: The model that scores.
        groups: Whose rows are 0 to R - 1, each once.
        micro_batch_tokens: Tokens of a forward pass, padding included.
        title: Of the progress bar.

    Returns:
        Summed log-probabilities in nats, float32, on the CPU, shape ``(R,)``, by ``Group.rows``.
    """
    num_rows = sum(len(group.rows) for group in groups)
    logps = torch.zeros(num_rows)
    with (
        torch.inference_mode(),
        tqdm(total=num_rows, desc=title, unit="row", disable=None, leave=None) as bar,
    ):
        for batch, route in micro_batches(language_model, groups, micro_batch_tokens):
            logps[batch.rows.cpu()] = group_logps(language_model, batch, route).cpu()
            bar.update(len(batch.rows))
    return logps


def _read(language_model: LanguageModel, batch: GroupBatch, route: Route) -> tuple[Tensor, Reading]:
    model, checked = language_model.model, language_model.checked_routes
    labels = batch.response_ids[batch.loss_mask]
    with language_model.autocast():
        reading = read_responses(
            model,
            batch,
            route,
            with_logits=not checked.get("head", True),
            in_one_pass=language_model.is_sharded,
        )
        head = model.get_output_embeddings()
        if "head" not in checked:
            checked["head"] = _ends_with(head, reading)
            if not checked["head"]:
                reading = read_responses(model, batch, route)
        if reading.logits is None:
            scored = projected_logps(reading.states, head.weight, head.bias, labels)
        else:
            scored = token_logps(reading.logits, labels)
    rows = torch.arange(len(batch.rows), device=labels.device).repeat_interleave(batch.num_tokens)
    return sum_by_row(scored, rows, len(batch.rows)), reading


def _ends_with(head: nn.Module, reading: Reading) -> bool:
    """Whether a model's logits are what a plain linear head puts out, neither scaled nor capped."""
    states, logits = reading.sample
    with torch.no_grad():
        plain = type(head) is nn.Linear and torch.equal(head(states), logits)
    if not plain:
        logger.warning(
            "the model changes its logits after the vocabulary head (or the head is no plain "
            "linear layer): all logits of a micro-batch are kept"
        )
    return plain


def _warn_of_window(language_model: LanguageModel, window: float) -> None:
    if language_model.checked_routes.setdefault("long rows", True):
        logger.warning(
            "prompt groups with rows over the model's sliding window of %d tokens are scored row "
            "by row",
            window,
        )
        language_model.checked_routes["long rows"] = False


def _window(model: PreTrainedModel) -> float:
    """Tokens that every layer looks back on."""
    return getattr(model.config.get_text_config(), "sliding_window", None) or math.inf


def _longest_row(group: Group) -> int:
    return len(group.prompt) + max(map(len, group.responses))


def _cheapest(hidden_size: int, groups: Sequence[Group]) -> Route:
    """Compare multiply-adds of a layer: 12 h^2 a token, 2 h a pair that attention looks at."""
    costs: dict[Route, float] = dict.fromkeys(PADDED_TOKENS, 0.0)
    for group in groups:
        prompt, responses = len(group.prompt), [len(ids) for ids in group.responses]
        shared = prompt + sum(responses)
        pairs = prompt**2 + sum(n * (prompt + n) for n in responses)
        costs["off"] += sum(6 * hidden_size * (prompt + n) + (prompt + n) ** 2 for n in responses)
        costs["tree"] += 6 * hidden_size * shared + shared**2
        costs["cache"] += (6 * hidden_size * shared + pairs) * CACHE_OVERHEAD
    return min(costs, key=lambda route: costs[route])


def _is_exact(language_model: LanguageModel, groups: Sequence[Group], route: Route) -> bool:
    """Score two responses of one prompt by a route and row by row, and compare."""
    group = max(groups, key=lambda group: len(group.rows))
    sample = replace(group, responses=group.responses[:2], rows=group.rows[:2])
    batch = collate([sample], language_model.tokenizer.pad_token_id).to(language_model.model.device)
    plain = replace(language_model, dtype=torch.float32)
    try:
        with torch.no_grad():
            difference = group_logps(plain, batch, route) - group_logps(plain, batch)
        error = float((difference.abs() / batch.num_tokens).max())
    except (RuntimeError, TypeError, ValueError) as err:
        logger.warning("prefix sharing by %s does not work for this model (%s): off", route, err)
        return False
    if error > EXACT:
        logger.warning("prefix sharing by %s is off by %.2g nats a token: off", route, error)
    return error <= EXACT
