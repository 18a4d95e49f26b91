"""A sketch of a log is a small sample of its row ids, by which another log is recognised.

Ids of rows are hashes of their text, so the smallest ones are a random sample of the rows.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

NUM_IDS = 256
"""Number of ids in a sketch, which gives a share of rows to about three in a hundred."""
NUM_FILES = 3
"""Number of files that messages name."""


def sketch_log(feedback: pd.DataFrame) -> dict[str, Any]:
    """Sketch a log.

    Args:
        feedback: Columns row_id and origin.

    Returns:
        num_rows, files (the first few), and row_ids, the smallest ones.
    """
    files = sorted({origin.rpartition(":")[0] or origin for origin in feedback["origin"]})
    shown = files[:NUM_FILES] + (["..."] if len(files) > NUM_FILES else [])
    ids = sorted(feedback["row_id"])[:NUM_IDS]
    return {"num_rows": len(feedback), "files": shown, "row_ids": ids}


def share_of(sketch: Mapping[str, Any] | None, feedback: pd.DataFrame) -> float:
    """Estimate the share of a sketched log's rows that another log holds; 0 without a sketch."""
    if not sketch or not sketch["row_ids"]:
        return 0.0
    return float(pd.Series(sketch["row_ids"]).isin(feedback["row_id"]).mean())


def name_log(sketch: Mapping[str, Any]) -> str:
    """Name a log in a message by its files and its size."""
    return f"{', '.join(sketch['files'])}: {sketch['num_rows']} rows"
