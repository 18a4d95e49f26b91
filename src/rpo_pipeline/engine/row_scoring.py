"""Log-probabilities of rows and tables, which ``scoring`` computes group by group."""

from collections.abc import Sequence

import pandas as pd
import torch

from rpo_pipeline.engine.batches import score_groups
from rpo_pipeline.engine.groups import Group
from rpo_pipeline.engine.loading import LanguageModel
from rpo_pipeline.engine.tokenisation import tokenise_groups
from rpo_pipeline.params import PolicyParams


def score_rows(
    language_model: LanguageModel,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    *,
    micro_batch_tokens: int,
    title: str,
) -> pd.DataFrame:
    """Score (prompt, response) pairs given as token ids.

    Rows that share a prompt are scored together.

    Args:
        language_model: The model that scores.
        prompts: Token ids of each row's prompt.
        responses: Token ids of each row's response.
        micro_batch_tokens: Tokens of a forward pass, padding included.
        title: Of the progress bar.

    Returns:
        Columns logps (summed, nats) and num_tokens, in the order of the input.
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        members.setdefault(tuple(prompt), []).append(row)
    groups = [Group(list(p), [responses[r] for r in rows], rows) for p, rows in members.items()]
    logps = score_groups(language_model, groups, micro_batch_tokens=micro_batch_tokens, title=title)
    return pd.DataFrame({"logps": logps.numpy(), "num_tokens": [len(ids) for ids in responses]})


def score_table(
    language_model: LanguageModel,
    table: pd.DataFrame,
    policy: PolicyParams,
    *,
    micro_batch_tokens: int,
) -> pd.DataFrame:
    """Score every row of a table of text.

    Args:
        language_model: The model that scores.
        table: Columns row_id, prompt_id, prompt, response.
        policy: Limits on tokens.
        micro_batch_tokens: Budget of a forward pass.

    Returns:
        row_id, logps (summed, nats) and num_tokens, in the order of the table.
    """
    text_format = language_model.text_format(policy)
    groups = tokenise_groups(table, text_format)
    logps = score_groups(
        language_model, groups, micro_batch_tokens=micro_batch_tokens, title="scoring"
    )
    num_tokens = torch.zeros(len(table), dtype=torch.int64)
    for group in groups:
        num_tokens[group.rows] = torch.tensor([len(ids) for ids in group.responses])
    return pd.DataFrame(
        {
            "row_id": table["row_id"].to_numpy(),
            "logps": logps.numpy(),
            "num_tokens": num_tokens.numpy(),
        }
    )
