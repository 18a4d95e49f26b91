"""The model hub, where it can be reached."""

import logging
import os
from pathlib import Path

import requests
from huggingface_hub import constants

logger = logging.getLogger(__name__)

SECONDS = 5


def use_hub_or_cache(name_or_path: str | Path) -> None:
    """Go offline for good if the hub is needed and does not answer: what it gave before is used.

    The hub's own client tries each of a model's files again and again, which takes minutes.

    Args:
        name_or_path: What is going to be loaded; of a directory no hub is asked.
    """
    if constants.HF_HUB_OFFLINE or Path(name_or_path).is_dir():
        return
    try:
        requests.head(constants.ENDPOINT, timeout=SECONDS)
    except requests.RequestException as err:
        logger.warning(
            "the hub at %s cannot be reached (%s): only what is in its local cache is used",
            constants.ENDPOINT,
            err,
        )
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"  # of workers
