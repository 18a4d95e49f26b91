"""Moves the alias of the champion: promotion and rollback.

MLflow sets an alias without comparing it first. On one host a lock file makes promotions wait for
each other. A change by another host is noticed by reading the alias again a little later.
"""

import json
import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient

from rpo_pipeline.params import PromotionParams, database_file
from rpo_pipeline.records import Decision, RunAddress, to_json
from rpo_pipeline.registry import moves
from rpo_pipeline.registry.gate import require_artifacts, waived
from rpo_pipeline.registry.moves import PREVIOUS, PROMOTION_TAG, ROLLBACK_TAG, Move, read_standing
from rpo_pipeline.tracking import needs_registry

logger = logging.getLogger(__name__)

LOCK = "promotion.lock"
"""Lock file in the folder of the champion's checkpoints; promotions on one host wait for it."""
ARTIFACTS, DECISION = "artifacts", "gate.json"
NOBODY = "none"
"""Value of a tag that names the champion, if there was none."""
SETTLE_SECONDS = 2.0
"""Pause, longer than the time that a host takes from reading the champion to replacing it."""
ANOTHER = "kedro run --pipelines promotion --params promotion.version="


@needs_registry
def apply_decision(
    run: RunAddress,
    version: str,
    gate: Decision,
    promotion: PromotionParams,
    workspace: Path,
) -> dict[str, Any]:
    """Move the aliases as the gate decided, and write the decision on the challenger's version.

    The required artifacts are checked here. The workspace, which is the folder of the champion's
    checkpoints, is locked while aliases move. The result holds version, promoted, champion_before,
    champion_after, reason and gate.
    """
    client, name = MlflowClient(run.tracking_uri), promotion.model_name
    model_id = moves.model_id_of(client.get_model_version(name, version))
    kept = client.list_logged_model_artifacts(model_id, ARTIFACTS)
    present = [Path(file.path).name for file in kept]
    gate = require_artifacts(gate, promotion.required_artifacts, present)
    with FileLock(workspace / LOCK):
        finished = moves.finish(client, name)
        before = after = read_standing(client, name).champion
        if before != version:
            after, reason = _decide(client, version, gate, promotion, before)
        elif finished and finished.kind == "promotion":
            before, reason = finished.leaves, finished.reason
        else:
            reason = "it is champion already"
    logger.info("version %s of %s: %s", version, name, reason)
    return {
        "version": version,
        "promoted": before != after == version,
        "champion_before": before,
        "champion_after": after,
        "reason": reason,
        "gate": to_json(gate),
    }


@needs_registry
def roll_back(run: RunAddress, model_name: str, workspace: Path, *, cause: str) -> dict[str, Any]:
    """Make the previous champion champion again.

    The version that was champion is tagged, and no later run promotes it unless a person names it.
    After that there is no ``previous``, so a second call changes nothing. The result holds
    rolled_back, champion_before, champion_after and reason; the workspace is locked as by
    ``apply_decision``.
    """
    client = MlflowClient(run.tracking_uri)
    with FileLock(workspace / LOCK):
        finished = moves.finish(client, model_name)
        standing = read_standing(client, model_name)
        before = after = standing.champion
        target = standing.previous
        if finished and finished.kind == "rollback":
            before = finished.leaves
            reason = f"an interrupted rollback is finished: champion is {after}, no longer {before}"
        elif before is None or target in (None, before):
            reason = (
                f"nothing was changed: {model_name} has "
                f"{f'champion {before}' if before else 'no champion'}, and no version that was "
                f"champion before it is on record; to promote any version: {ANOTHER}N"
            )
            if target is not None:
                client.delete_registered_model_alias(model_name, PREVIOUS)
        else:
            why = f"to version {target}: {cause}"
            after = _move(client, model_name, Move("rollback", str(target), before, why))
            reason = f"champion is {after}, no longer {before}: {cause}"
    logger.warning("rollback of %s: %s", model_name, reason)
    return {
        "rolled_back": before != after,
        "champion_before": before,
        "champion_after": after,
        "reason": reason,
    }


def _decide(
    client: MlflowClient,
    version: str,
    gate: Decision,
    promotion: PromotionParams,
    champion: str | None,
) -> tuple[str | None, str]:
    """Promote a version or not; return the champion after that, and the reason."""
    name, after = promotion.model_name, champion
    _record(client, name, version, gate)
    reason = _refusal(gate, champion, promotion, client.get_model_version(name, version).tags)
    if not reason:
        reason = "; although ".join([f"promoted over {champion or 'no champion'}", *waived(gate)])
        after = _move(client, name, Move("promotion", version, champion, reason))
        if after == version:
            return after, reason
        reason = (
            f"not promoted: another host made version {after} champion at the same moment; to "
            f"measure it against that one: {ANOTHER}{version}"
        )
    moves.tag(client, name, version, {PROMOTION_TAG: reason})
    return after, reason


def _refusal(
    gate: Decision,
    champion: str | None,
    promotion: PromotionParams,
    tags: Mapping[str, str],
) -> str:
    if not gate.passed:
        failed = "; ".join(check["reason"] for check in gate.checks if not check["passed"])
        return f"not promoted: {failed}"
    if champion != gate.champion_version:
        return (
            f"not promoted: the evaluation compared with champion {gate.champion_version}, but "
            f"today's is {champion}; evaluate again"
        )
    if promotion.version is not None:
        return ""
    if promotion.mode == "manual":
        return "not promoted: promotion.mode is manual, so it stays challenger"
    if ROLLBACK_TAG in tags:
        return f"not promoted: it was rolled back ({tags[ROLLBACK_TAG]})"
    return ""


def _move(client: MlflowClient, name: str, move: Move) -> str | None:
    """Change the champion, and return the champion after that.

    The alias is read again after a pause in which other hosts may have set it as well.
    """
    moves.begin(client, name, move)
    if database_file(client.tracking_uri) is None:  # a database file has one host
        time.sleep(SETTLE_SECONDS)
    done = moves.finish(client, name) == move
    return move.enters if done else read_standing(client, name).champion


def _record(client: MlflowClient, name: str, version: str, gate: Decision) -> None:
    """Write a decision on a version before it takes effect."""
    tags = {
        "gate": "passed" if gate.passed else "failed",
        "gate_champion": gate.champion_version or NOBODY,
        "gate_look": str(gate.look),
        "gate_decision": json.dumps(to_json(gate)),
    }
    moves.tag(client, name, version, tags)
    model_id = moves.model_id_of(client.get_model_version(name, version))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / DECISION
        file.write_text(json.dumps(to_json(gate), indent=2))
        client.log_model_artifact(model_id, str(file), ARTIFACTS)
