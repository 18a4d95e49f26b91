"""Checks that a row in a batch gets the numbers that the model gives it alone."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rpo_pipeline.engine.groups import Group, collate
from rpo_pipeline.engine.loading import LanguageModel, reason_of
from rpo_pipeline.engine.scoring import read_by
from rpo_pipeline.errors import ModelError

ROUNDING = 1e-2
"""Nats per token by which a row may differ; errors of a model are far larger."""


def check_single_rows(language_model: LanguageModel, groups: Sequence[Group]) -> None:
    """Compare the route ``off`` with rows that go through the model alone, at first use.

    The shortest row and one of about middle length share a batch, so that one is padded. A
    ModelError says that the model cannot score them, or that the score of a row depends on its
    batch.
    """
    trials = language_model.trials
    if trials.compared_rows or language_model.is_sharded:
        return
    rows = [
        group.take([place])
        for group in groups
        for place, ids in enumerate(group.responses)
        if group.prompt and ids
    ]
    if not rows:
        return
    trials.compared_rows = True
    rows.sort(key=lambda row: row.num_tokens)
    shortest = rows[0]
    # A longer row makes a decoder pad the shortest one, and a prompt of another length an encoder.
    padding = (
        row
        for row in rows[len(rows) // 2 :]
        if row.num_tokens > shortest.num_tokens and len(row.prompt) != len(shortest.prompt)
    )
    tried = [shortest, next(padding, rows[-1])]
    kind = language_model.model.config.model_type
    with torch.no_grad():
        try:
            difference = _difference(language_model, tried)
        except torch.OutOfMemoryError:
            raise
        except Exception as err:  # a model may raise any error
            raise ModelError(
                f"a model of type {kind} cannot be scored here ({type(err).__name__}: "
                f"{reason_of(err)}); name a model of another type in policy.name_or_path"
            ) from err
    if difference > ROUNDING:
        raise ModelError(
            f"a model of type {kind} gives a row in a batch other log-probabilities than the row "
            f"alone (by {difference:.2g} nats a token, at most {ROUNDING} allowed), so its scores "
            "would be wrong; name a model of another type in policy.name_or_path"
        )


def _difference(language_model: LanguageModel, rows: Sequence[Group]) -> float:
    """Compute the difference in nats per token; 0 if the model itself gives no numbers."""
    model = language_model.model
    batch = collate(rows, language_model.tokenizer.pad_token_id).to(model.device)
    together = read_by(replace(language_model, dtype=torch.float32), batch, "off")[0]
    alone = torch.stack([_alone(language_model, row) for row in rows])
    difference = ((together - alone).abs() / batch.num_tokens)[alone.isfinite()]
    return float(difference.nan_to_num(nan=torch.inf).max()) if len(difference) else 0.0


def _alone(language_model: LanguageModel, row: Group) -> Tensor:
    """Score a row by the plainest call of the model, without masks, positions or a cache."""
    model, prompt, response = language_model.model, row.prompt, row.responses[0]

    def ids(*tokens: int) -> Tensor:
        return torch.tensor([tokens], device=model.device)

    if language_model.is_encoder_decoder:
        read = ids(model.config.decoder_start_token_id, *response[:-1])
        logits = model(input_ids=ids(*prompt), decoder_input_ids=read).logits[0]
    else:
        whole = model(input_ids=ids(*prompt, *response), use_cache=False).logits[0]
        logits = whole[len(prompt) - 1 : -1]
    logps: Tensor = logits.float().log_softmax(dim=-1)
    return logps.gather(1, ids(*response).T).sum()
