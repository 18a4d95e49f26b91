"""Checks whether the model hub can be reached."""

import logging
import os
from pathlib import Path

import requests
from huggingface_hub import constants

logger = logging.getLogger(__name__)

SECONDS = 5


def use_hub_or_cache(name_or_path: str | Path) -> None:
    """Use only the local cache from now on if the hub is needed and does not answer.

    The hub's own client repeats the request for each file of a model, which takes minutes. A
    directory does not need the hub.
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
        os.environ["HF_HUB_OFFLINE"] = "1"  # for worker processes
