"""Rows of the log with all that is known of them before training: one table for later stages."""

import pandas as pd

COLUMNS = "row_id prompt_id split prompt response behaviour_logps leaked".split()


def join_scores(
    feedback: pd.DataFrame, rewards: pd.DataFrame, reference_logps: pd.DataFrame
) -> pd.DataFrame:
    """Put reward and reference log-probability beside every row of the log.

    Args:
        feedback: The feedback table.
        rewards: Rewards of the labelled rows.
        reference_logps: Log-probabilities of the reference, of every row.

    Returns:
        row_id, prompt_id, split, prompt, response, behaviour_logps and leaked of the log, the
        columns of ``rewards``, null on a row without a label, and those of ``reference_logps``.
    """
    rows = feedback[COLUMNS].merge(rewards, on="row_id", how="left")
    return rows.merge(reference_logps, on="row_id")


def labelled_rows(scored_rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a reward, from ``join_scores``."""
    return scored_rows[scored_rows["reward"].notna()].reset_index(drop=True)
