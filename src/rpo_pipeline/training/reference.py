"""Makes the reference: it is loaded or built, warm-started on the train rows, and kept."""

import json
import logging
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from rpo_pipeline.engine import make_language_model
from rpo_pipeline.errors import ConfigError
from rpo_pipeline.params import PolicyParams, TrainingParams
from rpo_pipeline.storage import named_content
from rpo_pipeline.training.job import TrainingJob
from rpo_pipeline.training.launch import launch
from rpo_pipeline.training.log_overlap import name_log, share_of, sketch_log

logger = logging.getLogger(__name__)

ORIGIN_FILE = "origin.json"
LOG = "log"
"""Key, in the origin file, of the sketch of the log that the reference was made from, if any."""
CONTENT = "content"
"""Key, in the origin file, of the hash of the folder that the reference was loaded from, if any."""
ORIGIN_KEYS = {
    "name_or_path",
    "revision",
    "from_config",
    "warm_start_epochs",
    "warm_start_learning_rate",
}


def prepare_reference(
    existing: Path | None,
    feedback: pd.DataFrame,
    policy: PolicyParams,
    training: TrainingParams,
    workspace: Path,
    *,
    last_log: Mapping[str, Any] | None = None,
) -> Path:
    """Make the reference on the first run, and reuse it after that.

    Args:
        existing: Directory of the reference of earlier runs.
        feedback: Columns row_id, prompt_id, prompt, response, split, origin.
        policy: Origin of the model, and settings of the warm start.
        training: Batch size and seed of the warm start.
        workspace: Folder in which it is made.
        last_log: Sketch of the log that the reference was last used with.

    Returns:
        Directory of the reference.

    Raises:
        ConfigError: If the existing reference was made from other settings, another model in the
            same folder, or another log.
        ModelError: If the model cannot be loaded or built.
    """
    origin = policy.model_dump(mode="json", include=ORIGIN_KEYS)
    if existing and not policy.reset_reference:
        made_from = _read_origin(existing)
        _check_origin(existing, made_from, origin)
        _check_content(existing, made_from.get(CONTENT), policy)
        _check_log(existing, [made_from.get(LOG), last_log], feedback, policy)
        logger.info("reusing the reference in %s", existing)
        return existing
    if policy.name_or_path:
        origin[CONTENT] = named_content(policy).get(policy.name_or_path)
    directory = workspace / "initial"
    train = feedback[feedback["split"] == "train"]
    texts = chain(train["prompt"].drop_duplicates(), train["response"])
    make_language_model(policy, texts, seed=training.seed).save(directory)
    if policy.warm_start_epochs > 0:
        directory = _warm_start(directory, feedback, policy, training, workspace)
    if _learns(policy):
        origin[LOG] = sketch_log(train)
    (directory / ORIGIN_FILE).write_text(json.dumps(origin, indent=2))
    return directory


def _warm_start(
    initial: Path,
    feedback: pd.DataFrame,
    policy: PolicyParams,
    training: TrainingParams,
    workspace: Path,
) -> Path:
    """Fine-tune every weight on all responses of train."""
    settings = {
        "objective": "sft",
        "num_epochs": policy.warm_start_epochs,
        "learning_rate": policy.warm_start_learning_rate,
        "patience": None,
    }
    job = TrainingJob(
        start=initial,
        workspace=workspace,
        area="warm_start",
        policy=policy.model_copy(update={"lora": None}),
        training=training.model_copy(update=settings),
    )
    logger.info("warm start: %s", launch(job.write(feedback)))
    return workspace / "best"


def _learns(policy: PolicyParams) -> bool:
    """Tell whether a reference, or at least its tokenizer, is fitted on rows of the log."""
    return policy.warm_start_epochs > 0 or policy.from_config is not None


def _read_origin(existing: Path) -> dict[str, Any]:
    file = existing / ORIGIN_FILE
    origin: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return origin


def _check_log(
    existing: Path,
    sketches: list[Mapping[str, Any] | None],
    feedback: pd.DataFrame,
    policy: PolicyParams,
) -> None:
    """Refuse a reference that was neither made from this log nor last used with it.

    A log that loses its oldest rows still shares most of its rows with the log of the last run.
    """
    known = [sketch for sketch in sketches if sketch]
    if not known or not _learns(policy):
        return
    share = max(share_of(sketch, feedback) for sketch in known)
    if share < policy.min_log_overlap:
        raise ConfigError(
            f"the reference in {existing} was made from another log: {share:.0%} of its rows "
            f"({name_log(known[-1])}) are in this log ({name_log(sketch_log(feedback))}), and "
            f"policy.min_log_overlap is {policy.min_log_overlap:g}. To make one from this log: "
            "`kedro run --params policy.reset_reference=true`; to keep both, give each log a data "
            "folder (conf/*/globals.yml); for a log whose rows are replaced as a whole: "
            "policy.min_log_overlap: 0"
        )


def _check_content(existing: Path, made_from: str | None, policy: PolicyParams) -> None:
    """Refuse a reference whose model folder was replaced; a missing folder is accepted."""
    now = named_content(policy).get(policy.name_or_path or "")
    if made_from and now and made_from != now:
        raise ConfigError(
            f"the reference in {existing} was made from another model than the one that is now in "
            f"policy.name_or_path: {policy.name_or_path} (its weights, configuration or tokenizer "
            "were replaced); put the former one back, or rebuild the reference from the new one "
            "with `kedro run --params policy.reset_reference=true`"
        )


def _check_origin(existing: Path, made_from: dict[str, Any], origin: dict[str, Any]) -> None:
    changed = sorted(key for key in origin if made_from.get(key) != origin[key])
    if changed:
        changes = ", ".join(f"policy.{k}: {made_from.get(k)} -> {origin[k]}" for k in changed)
        raise ConfigError(
            f"the reference in {existing} was made from other settings ({changes}); change them "
            "back, or rebuild it with `kedro run --params policy.reset_reference=true`"
        )
