"""Micro-batches of prompt groups, and the route by which each goes through the model."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from rpo_pipeline.engine.groups import (
    Group,
    GroupBatch,
    collate,
    pack,
    rowwise_tokens,
    shared_tokens,
    tree_tokens,
)
from rpo_pipeline.engine.lengths import attention_window, row_kind
from rpo_pipeline.engine.loading import LanguageModel
from rpo_pipeline.engine.routes import Route
from rpo_pipeline.engine.scoring import group_logps, read_by, warn_of_failure
from rpo_pipeline.engine.single_rows import check_single_rows
from rpo_pipeline.engine.trials import Trials

logger = logging.getLogger(__name__)

PADDED_TOKENS: dict[Route, Callable[[Sequence[Group]], int]] = {
    "off": rowwise_tokens,
    "tree": tree_tokens,
    "cache": shared_tokens,
}
EXACT = 1e-4
"""Nats per token by which a route may differ from scoring row by row, in float32."""
CACHE_OVERHEAD = 1.1
"""Factor for two passes instead of one, and for copies of keys and values for each response."""
NUM_TRIED = 8
"""Number of responses of a group that a route is tried on; a longer window needs more."""


def micro_batches(
    language_model: LanguageModel, groups: Sequence[Group], max_tokens: int
) -> Iterator[tuple[GroupBatch, Route]]:
    """Cut groups into batches of a token budget, and choose the cheapest route through the model.

    The budget counts the tokens of a forward pass, padding included. The padded batches lie on the
    model's device, and together they hold every row once. A ModelError says that the score of a row
    in a batch is not that of the row alone.
    """
    check_single_rows(language_model, groups)
    model, pad_token_id = language_model.model, language_model.tokenizer.pad_token_id
    for part in _companies(language_model, groups):
        route = choose_route(language_model, part)
        shared = language_model.is_encoder_decoder or route == "cache"
        padded_tokens = shared_tokens if shared else PADDED_TOKENS[route]
        for batch in pack(part, max_tokens, padded_tokens, by_prompt=shared):
            yield collate(batch, pad_token_id).to(model.device), route


def choose_route(language_model: LanguageModel, groups: Sequence[Group]) -> Route:
    """Choose the cheapest route through a model that is exact for these groups.

    It is ``off`` if sharing cannot be exact: an attention window is shorter than a row, rotary
    frequencies depend on the length of a row, or the model has failed the check, which is made at
    first use and again for longer groups. An encoder-decoder has no ``tree``. A model whose
    ``prefix_sharing`` is a route takes that one rather than the cheapest.
    """
    model, route = language_model.model, language_model.prefix_sharing
    if route == "off" or any(_is_far(model, group) for group in groups):
        return "off"
    if all(len(group.rows) == 1 for group in groups):
        return "off"
    if language_model.is_encoder_decoder:
        route = "cache"
    elif route == "auto":
        route = _cheapest(model.config.hidden_size, groups)
    # Checkpointing empties a cache, and processes that share weights must make the same passes.
    if route == "cache" and (model.is_activation_checkpointing or language_model.is_sharded):
        route = "off" if language_model.is_encoder_decoder else "tree"
    return route if route == "off" or _is_exact(language_model, groups, route) else "off"


def check_routes(language_model: LanguageModel, groups: Sequence[Group]) -> None:
    """Compare the routes with scoring row by row, which a sharded model cannot do any more."""
    check_single_rows(language_model, groups)
    near = [group for group in groups if not _is_far(language_model.model, group)]
    wish = language_model.prefix_sharing
    for route in ("tree", "cache") if wish == "auto" else (wish,):
        choose_route(replace(language_model, prefix_sharing=route), near)


def score_groups(
    language_model: LanguageModel, groups: Sequence[Group], *, micro_batch_tokens: int
) -> Tensor:
    """Score groups, whose rows are 0 to R - 1, without gradients, in batches of a token budget.

    Returned are summed log-probabilities in nats, float32, on the CPU, shape ``(R,)``, by
    ``Group.rows``.
    """
    num_rows = sum(len(group.rows) for group in groups)
    logps = torch.zeros(num_rows)
    with (
        torch.inference_mode(),
        tqdm(total=num_rows, desc="scoring", unit="row", disable=None, leave=None) as bar,
    ):
        for batch, route in micro_batches(language_model, groups, micro_batch_tokens):
            logps[batch.rows.cpu()] = group_logps(language_model, batch, route).cpu()
            bar.update(len(batch.rows))
    return logps


def _companies(language_model: LanguageModel, groups: Sequence[Group]) -> list[list[Group]]:
    """Divide groups into sets in which no group changes the numbers of another by its length."""
    model = language_model.model
    window = attention_window(model)
    companies: dict[tuple[int, bool], list[Group]] = {}
    for group in groups:
        kinds: dict[int, list[int]] = {}
        for place, ids in enumerate(group.responses):
            kind = row_kind(model, len(group.prompt) + len(ids))
            kinds.setdefault(kind, []).append(place)
        for kind, places in kinds.items():
            piece = group if len(kinds) == 1 else group.take(places)
            key = (kind, _longest_row(piece) > window)
            companies.setdefault(key, []).append(piece)
    if any(beyond_window for _, beyond_window in companies):
        _warn_once(
            language_model.trials,
            "prompt groups with rows over the model's attention window of %d tokens are scored row "
            "by row",
            window,
        )
    if any(kind for kind, _ in companies):
        _warn_once(
            language_model.trials,
            "the model's rotary frequencies depend on the length of a row: rows beyond its trained "
            "length are scored apart, and row by row",
        )
    return [companies[key] for key in sorted(companies)]


def _is_far(model: PreTrainedModel, group: Group) -> bool:
    num_tokens = _longest_row(group)
    return num_tokens > attention_window(model) or row_kind(model, num_tokens) != 0


def _warn_once(trials: Trials, message: str, *values: float) -> None:
    if message not in trials.warnings:
        logger.warning(message, *values)
        trials.warnings.add(message)


def _longest_row(group: Group) -> int:
    return len(group.prompt) + max(map(len, group.responses))


def _cheapest(hidden_size: int, groups: Sequence[Group]) -> Route:
    """Choose by multiply-adds of a layer: 12 h^2 per token, 2 h per pair of attended tokens."""
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
    """Tell whether a route agrees with scoring row by row; longer groups are tried again."""
    trials = language_model.trials
    longest = max(group.num_tokens for group in groups)
    again = longest > trials.route_lengths.get(route, 0) and not language_model.is_sharded
    if trials.routes.get(route, True) and again:
        trials.routes[route] = _agrees(language_model, _tried(language_model.model, groups), route)
        trials.route_lengths[route] = longest
    return trials.routes.get(route, False)


def _tried(model: PreTrainedModel, groups: Sequence[Group]) -> list[Group]:
    """Return the groups of the longest row and of most tokens, cut to what the check needs.

    Two prompts of different length in one batch show whether padding changes a score. Responses
    that together are longer than the window show whether it cuts a tree.
    """
    several = [group for group in groups if len(group.rows) > 1]
    chosen = [max(several, key=_longest_row), max(several, key=lambda group: group.num_tokens)]
    window = attention_window(model)
    tried = []
    for group in chosen[: 1 if chosen[0] is chosen[1] else 2]:
        order = sorted(range(len(group.rows)), key=lambda place: -len(group.responses[place]))
        places, waiting = [order[0], order[-1]], order[1:-1]
        while waiting and (
            group.take(places).num_tokens <= window < math.inf or len(places) < NUM_TRIED
        ):
            places.append(waiting.pop(0))
        tried.append(group.take(places))
    return tried


def _agrees(language_model: LanguageModel, groups: Sequence[Group], route: Route) -> bool:
    batch = collate(groups, language_model.tokenizer.pad_token_id).to(language_model.model.device)
    plain = replace(language_model, dtype=torch.float32)
    try:
        with torch.no_grad():
            by_route = read_by(plain, batch, route)[0]
            difference = by_route - read_by(plain, batch, "off")[0]
    except Exception as err:
        warn_of_failure(route, err)
        return False
    error = float((difference.abs() / batch.num_tokens).max())
    if not error <= EXACT:
        logger.warning("prefix sharing by %s is off by %.2g nats a token: off", route, error)
    return error <= EXACT
