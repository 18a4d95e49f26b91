"""Log-probabilities of prompt groups: one code path for caching, training and evaluation.

Shapes: P prompts, R rows (responses), L tokens of the longest, T scored tokens.
"""

import logging

import torch
from torch import Tensor, nn

from rpo_pipeline.core import projected_logps, sum_by_row, token_logps
from rpo_pipeline.engine.groups import GroupBatch
from rpo_pipeline.engine.lengths import forget_lengths
from rpo_pipeline.engine.loading import LanguageModel
from rpo_pipeline.engine.routes import Reading, Route, read_responses

logger = logging.getLogger(__name__)


def group_logps(language_model: LanguageModel, batch: GroupBatch, route: Route = "off") -> Tensor:
    """Compute the log-probability of each response given its prompt, summed over its tokens.

    The vocabulary projection runs on response tokens only, whatever the route. Gradients flow.
    Returned are nats, float32, shape ``(R,)``.
    """
    return _read(language_model, batch, route)[0]


def group_scores(
    language_model: LanguageModel, batch: GroupBatch, route: Route = "off"
) -> tuple[Tensor, Tensor]:
    """Compute ``group_logps``, and the states of the prompts, which a value head reads.

    The states are detached, float32, shape ``(P, H)``: the mean of the encoder's over the prompt's
    tokens, or for a decoder the last layer's at the prompt's last token.
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


def _read(language_model: LanguageModel, batch: GroupBatch, route: Route) -> tuple[Tensor, Reading]:
    trials = language_model.trials
    if not trials.routes.get(route, True):  # the route failed after this batch was made
        route = "off"
    try:
        return read_by(language_model, batch, route)
    except Exception as err:
        # Processes that share weights must make the same passes, so none may choose another.
        if route == "off" or language_model.is_sharded or isinstance(err, torch.OutOfMemoryError):
            raise
        warn_of_failure(route, err)
        trials.routes[route] = False
        return read_by(language_model, batch, "off")


def read_by(
    language_model: LanguageModel, batch: GroupBatch, route: Route
) -> tuple[Tensor, Reading]:
    """Score a batch by one route, without a check of the numbers.

    Returned are summed log-probabilities in nats, float32, shape ``(R,)``, and the inputs of the
    head.
    """
    model, trials = language_model.model, language_model.trials
    labels = batch.response_ids[batch.loss_mask]
    forget_lengths(model)
    with language_model.autocast():
        reading = read_responses(
            model,
            batch,
            route,
            with_logits=trials.head_is_plain is False,
            in_one_pass=language_model.is_sharded,
        )
        head = model.get_output_embeddings()
        if trials.head_is_plain is None:
            trials.head_is_plain = _ends_with(head, reading)
            if not trials.head_is_plain:
                reading = read_responses(model, batch, route)
        if reading.logits is None:
            scored = projected_logps(reading.states, head.weight, head.bias, labels)
        else:
            scored = token_logps(reading.logits, labels)
    rows = torch.arange(len(batch.rows), device=labels.device).repeat_interleave(batch.num_tokens)
    return sum_by_row(scored, rows, len(batch.rows)), reading


def _ends_with(head: nn.Module, reading: Reading) -> bool:
    """Tell whether a model's logits are those of a linear head, neither scaled nor capped."""
    states, logits = reading.sample
    with torch.no_grad():
        plain = type(head) is nn.Linear and torch.equal(head(states), logits)
    if not plain:
        logger.warning(
            "the model changes its logits after the vocabulary head (or the head is no plain "
            "linear layer): all logits of a micro-batch are kept"
        )
    return plain


def warn_of_failure(route: Route, err: Exception) -> None:
    """Warn that a route is not used any more because of an error."""
    logger.warning(
        "prefix sharing by %s does not work for this model (%s: %s): off",
        *(route, type(err).__name__, err),
    )
