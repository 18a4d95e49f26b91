"""Exports feedback in formats that TRL trains on."""

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow.parquet as pq

from rpo_pipeline.errors import DataError
from rpo_pipeline.storage import DAMAGED, first_line, replacing

ExportFormat = Literal["trl_kto", "trl_dpo"]
COLUMNS = ("prompt_id", "prompt", "response", "raw_reward", "split")
"""Columns of the feedback table that an export needs."""


def read_feedback(file: Path) -> pd.DataFrame:
    """Read ``COLUMNS`` of the table of feedback that a run wrote; DataError if it is none."""
    hint = "name the feedback.parquet that a run wrote (--feedback), or its environment (--env)"
    if not file.is_file():
        raise DataError(f"there is no file {file}: {hint}")
    try:
        columns = set(pq.read_schema(file).names)
        missing = sorted(set(COLUMNS) - columns)
        if missing:
            raise DataError(
                f"{file} is no table of feedback, it lacks {', '.join(missing)}: {hint}"
            )
        return pd.read_parquet(file, columns=list(COLUMNS))
    except DAMAGED as err:
        raise DataError(f"{file} cannot be read ({first_line(err)}): {hint}") from err


def export_feedback(
    feedback: pd.DataFrame, output: Path, export_format: ExportFormat, *, split: str
) -> int:
    """Write rated rows of a split as JSON lines, and return their number; DataError if it is 0.

    ``trl_kto`` writes each row, desirable if rewarded above the mean of the split; ``trl_dpo`` each
    pair of responses to one prompt with different rewards.
    """
    from rpo_pipeline.ingestion import as_messages, parse_prompt

    rated = feedback[(feedback["split"] == split) & feedback["raw_reward"].notna()]
    # A column of a dataset has one type, so if one prompt is a chat, all become chats.
    if any(not isinstance(parse_prompt(prompt), str) for prompt in rated["prompt"]):
        rated = rated.assign(
            prompt=rated["prompt"].map(as_messages),
            response=rated["response"].map(lambda text: [{"role": "assistant", "content": text}]),
        )
    lines = {"trl_kto": _kto_lines, "trl_dpo": _dpo_lines}[export_format](rated)
    num_lines = 0
    with replacing(output) as prepared, prepared.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            num_lines += 1
        if not num_lines:
            raise DataError(
                f"split {split!r} has {len(rated)} rated rows, and nothing in them makes a line of "
                f"{export_format}: it needs rewards that differ"
            )
    return num_lines


def _kto_lines(rated: pd.DataFrame) -> Iterator[dict[str, Any]]:
    mean = rated["raw_reward"].mean()
    if rated["raw_reward"].nunique() < 2:
        return
    for row in rated.to_dict("records"):
        yield {
            "prompt": row["prompt"],
            "completion": row["response"],
            "label": bool(row["raw_reward"] > mean),
        }


def _dpo_lines(rated: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for _, rows in rated.groupby("prompt_id"):
        ranked = rows.sort_values("raw_reward", ascending=False)
        for better, worse in combinations(ranked.to_dict("records"), 2):
            if better["raw_reward"] > worse["raw_reward"]:
                yield {
                    "prompt": better["prompt"],
                    "chosen": better["response"],
                    "rejected": worse["response"],
                }
