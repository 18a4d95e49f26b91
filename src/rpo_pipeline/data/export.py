"""Feedback in the formats that TRL trains on."""

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from rpo_pipeline.data.chats import parse_prompt
from rpo_pipeline.errors import DataError
from rpo_pipeline.io.durable import put_in_place, temporary_sibling

ExportFormat = Literal["trl_kto", "trl_dpo"]


def export_feedback(
    feedback: pd.DataFrame, output: Path, export_format: ExportFormat, *, split: str
) -> int:
    """Write rated rows as JSON lines.

    Args:
        feedback: The feedback table.
        output: File to write.
        export_format: ``trl_kto``: each row, desirable if rewarded above the mean of the split;
            ``trl_dpo``: each pair of responses to one prompt with different rewards.
        split: Whose rows.

    Returns:
        Number of lines.

    Raises:
        DataError: If there is nothing to write.
    """
    rated = feedback[(feedback["split"] == split) & feedback["raw_reward"].notna()]
    lines = list({"trl_kto": _kto_lines, "trl_dpo": _dpo_lines}[export_format](rated))
    if not lines:
        raise DataError(
            f"split {split!r} has {len(rated)} rated rows, and nothing in them makes a line of "
            f"{export_format}"
        )
    prepared = temporary_sibling(output)
    prepared.write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
    )
    put_in_place(prepared, output)
    return len(lines)


def _kto_lines(rated: pd.DataFrame) -> Iterator[dict[str, Any]]:
    mean = rated["raw_reward"].mean()
    for row in rated.to_dict("records"):
        prompt, (completion,) = _conversation(row["prompt"], [row["response"]])
        yield {"prompt": prompt, "completion": completion, "label": bool(row["raw_reward"] > mean)}


def _dpo_lines(rated: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for _, rows in rated.groupby("prompt_id"):
        ranked = rows.sort_values("raw_reward", ascending=False)
        for better, worse in combinations(ranked.to_dict("records"), 2):
            if better["raw_reward"] > worse["raw_reward"]:
                both = [better["response"], worse["response"]]
                prompt, (chosen, rejected) = _conversation(better["prompt"], both)
                yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _conversation(text: str, responses: list[str]) -> tuple[Any, list[Any]]:
    """Texts as they are; a chat as messages, its responses too."""
    prompt = parse_prompt(text)
    if isinstance(prompt, str):
        return prompt, list(responses)
    return prompt, [[{"role": "assistant", "content": response}] for response in responses]
