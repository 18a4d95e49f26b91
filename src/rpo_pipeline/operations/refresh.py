"""A scheduled run: it decides whether there is work, records the outcome, and notifies.

``session`` calls it around Kedro's run, ``open-run`` and ``close-run`` around a DAG of stages. New
rows come from ``ingestion``, labels from ``labeling``, the champion from ``registry``; ``work``
decides from these numbers.
"""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import yaml
from kedro.framework.context import KedroContext
from pydantic import SecretStr

from rpo_pipeline.catalog import LayeredConfigLoader
from rpo_pipeline.errors import ConfigError, RpoError
from rpo_pipeline.operations.lock import RUN_LOCK, only_run
from rpo_pipeline.operations.notify import notify
from rpo_pipeline.operations.triggers import Situation, count_new, decide
from rpo_pipeline.params import (
    Event,
    IngestionParams,
    LabelingParams,
    PromotionParams,
    RefreshParams,
    variable,
)
from rpo_pipeline.records import RunAddress
from rpo_pipeline.secrets import WEBHOOK_VARIABLE

if TYPE_CHECKING:
    from rpo_pipeline.registry import Standing

logger = logging.getLogger(__name__)

CREDENTIALS = Path("conf/local/credentials.yml")
NOTIFICATIONS = "notifications.jsonl"
STARTED = "started"
FINISHED = ("promoted", "not_promoted")
SECONDS_PER_DAY = 86_400

Result = TypeVar("Result")


class Refresh:
    """A refresh of the environment of a Kedro context."""

    def __init__(self, context: KedroContext) -> None:
        parameters = context.config_loader["parameters"]
        self._context = context
        self._catalog = context.catalog
        self._folder: Path = self._catalog.load("refresh_workspace")
        self._refresh = RefreshParams.model_validate(parameters["refresh"])
        self._ingestion = IngestionParams.model_validate(parameters["ingestion"])
        self._labeling = LabelingParams.model_validate(parameters["labeling"])
        self._promotion = PromotionParams.model_validate(parameters["promotion"])
        self._webhook = _webhook(context.project_path)
        self.lock = self._folder / RUN_LOCK
        """Lock file that every run on the environment's data folder holds."""

    def run(self, run: Callable[[], Result]) -> Result | None:
        """Run all pipelines if there is work, while holding the lock, and notify of the outcome.

        The result is that of the function; None without work. A BusyError says that another run
        uses the same data folder.
        """
        with only_run(self.lock), self._telling_of_failure():
            if not self._has_work():
                return None
            result = run()
            self._finish()
            return result

    def begin(self) -> bool:
        """Tell a scheduler whether there is work for its stages; ``end`` or ``fail`` must follow.

        A BusyError says that another run uses the same data folder.
        """
        with only_run(self.lock), self._telling_of_failure():
            return self._has_work()

    def end(self) -> None:
        """Notify of the outcome after all stages have finished."""
        with self._telling_of_failure():
            self._finish()

    def fail(self, reason: str) -> None:
        """Notify of a failure, and record it for the next refresh."""
        self._tell("failed", f"the refresh failed: {reason}")
        self._note({"event": "failed", "reason": reason})

    @contextmanager
    def _telling_of_failure(self) -> Iterator[None]:
        try:
            yield
        except Exception as err:
            # Only the texts of our own errors are known to hold no secret.
            self.fail(str(err) if isinstance(err, RpoError) else type(err).__name__)
            raise

    def _has_work(self) -> bool:
        """Decide whether there is work, log the reasons, and record the start of work."""
        decision = self._decide()
        self._catalog.save("refresh_decision", {"at": _now(), **decision})
        reasons = "; ".join(decision["reasons"])
        if not decision["work"]:
            logger.info("nothing to do: %s", reasons)
            self._tell("nothing_to_do", f"nothing to do: {reasons}", reasons=decision["reasons"])
            return False
        if self._refresh.when == "needed":
            logger.info("there is work: %s", reasons)
        self._note({"event": STARTED, "reason": "it has not come to its end"})
        return True

    def _finish(self) -> None:
        """Record and notify whether the new version is champion."""
        result = self._catalog.load("promotion_result")
        event: Event = "promoted" if result["promoted"] else "not_promoted"
        self._note({"event": event, "reason": result["reason"], "version": result["version"]})
        text = f"version {result['version']} of {self._promotion.model_name}: {result['reason']}"
        self._tell(event, text, version=result["version"])

    def _note(self, outcome: dict[str, Any]) -> None:
        """Record the state of the refresh for the next one."""
        self._catalog.save("refresh_outcome", {"at": _now(), **outcome})

    def _tell(self, event: Event, text: str, **details: Any) -> None:  # noqa: ANN401 (JSON)
        message = {
            "event": event,
            "text": text,
            "env": self._context.env,
            "host": socket.gethostname(),
            "model_name": self._promotion.model_name,
            **details,
        }
        file = self._folder / NOTIFICATIONS
        notify(message, self._refresh.notifications, webhook=self._webhook, file=file)

    def _decide(self) -> dict[str, Any]:
        outcome = self._catalog.load("refresh_outcome")
        situation = Situation(_unfinished(outcome))
        if self._refresh.when == "always" or outcome is None:
            return decide(situation, self._refresh)
        parts, standing = self._read_sources(), self._find_standing()
        self._compare_live_ratings(parts, standing)
        new_rows, new_ratings = count_new(parts, self._catalog.load("previous_consumed"))
        passed = datetime.now(UTC) - datetime.fromisoformat(outcome["at"])
        age_days = max(0.0, passed.total_seconds()) / SECONDS_PER_DAY
        if standing and standing.age_days is not None:
            age_days = min(age_days, standing.age_days)
        situation = replace(
            situation, new_rows=new_rows, new_ratings=new_ratings, age_days=age_days
        )
        decision = decide(situation, self._refresh)
        if decision["work"] or self._refresh.max_drift is None:
            return decision
        return decide(replace(situation, drift=self._measure_drift()), self._refresh)

    def _read_sources(self) -> list[dict[str, Any]]:
        """Read new source files into parts, which ingestion then finds."""
        from rpo_pipeline.ingestion import read_log

        folder, forgotten = self._catalog.load("parts"), self._catalog.load("forgotten")
        parts = read_log(self._ingestion, folder, forgotten)
        self._catalog.save("source_parts", parts)
        return parts

    def _find_standing(self) -> "Standing | None":
        if self._refresh.max_age_days is None and self._refresh.live_ratings is None:
            return None
        from rpo_pipeline.registry import find_standing

        return find_standing(self._reach_registry(), self._promotion.model_name)

    def _reach_registry(self) -> RunAddress:
        """Return the registry's address; it must answer at once, because no work is lost yet."""
        tracking = cast(LayeredConfigLoader, self._context.config_loader).tracking
        return RunAddress(tracking.address(self._context.project_path))

    def _measure_drift(self) -> float | None:
        from rpo_pipeline.labeling import measure_drift

        labels, feedback = (self._catalog.load(name) for name in ("labels", "feedback@pandas"))
        found = measure_drift(labels, feedback, self._labeling).values()
        return max((one["drift"] for one in found if one["drift"] is not None), default=None)

    def _compare_live_ratings(
        self, parts: list[dict[str, Any]], standing: "Standing | None"
    ) -> None:
        settings = self._refresh.live_ratings
        champion, previous = (standing.champion, standing.previous) if standing else (None, None)
        if settings is None or champion is None or previous is None:
            return
        from rpo_pipeline.ingestion import read_rows
        from rpo_pipeline.operations.live_ratings import compare_ratings, read_ratings

        rows = read_rows(parts, self._catalog.load("parts"))
        ratings = read_ratings(rows, {champion, previous})
        result = compare_ratings(ratings, champion=champion, previous=previous, settings=settings)
        result["rollback"] = None
        if result["alarm"] and self._refresh.on_alarm == "rollback":
            from rpo_pipeline.registry import roll_back

            result["rollback"] = roll_back(
                self._reach_registry(),
                self._promotion.model_name,
                self._catalog.load("champion_workspace"),
                cause=result["reason"],
            )
        self._catalog.save("live_ratings", {"at": _now(), **result})
        logger.log(logging.WARNING if result["alarm"] else logging.INFO, result["reason"])
        if result["alarm"]:
            done = result["rollback"]["reason"] if result["rollback"] else "nothing was changed"
            self._tell("alarm", f"{result['reason']}; {done}", live_ratings=result)


def _unfinished(outcome: dict[str, Any] | None) -> str | None:
    if outcome is None:
        return "no run has finished here yet"
    if outcome["event"] in FINISHED:
        return None
    return f"the run of {outcome['at']} did not finish: {outcome['reason']}"


def _webhook(project_path: Path) -> SecretStr | None:
    """Read the address of the webhook from the environment or from ``conf/local``."""
    address = variable(WEBHOOK_VARIABLE)
    file = project_path / CREDENTIALS
    if not address and file.is_file():
        try:
            address = (yaml.safe_load(file.read_text()) or {})["notifications"]["webhook"]
        except (yaml.YAMLError, TypeError):  # their messages quote the file, so they are hidden
            raise ConfigError(
                f"{CREDENTIALS} is no YAML, or not of the form `notifications: {{webhook: URL}}`"
            ) from None
        except KeyError:
            return None
    return SecretStr(address) if address else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
