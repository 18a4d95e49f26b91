"""One MLflow run per ``kedro run`` or DAG, and a check of the parameters before any work."""

import atexit
import hashlib
import logging
import os
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml
from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import LOGGING
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from rpo_pipeline import logs
from rpo_pipeline.catalog import (
    LayeredConfigLoader,
    WorkspaceDataset,
    file_of,
    refuse_several,
    use_in_mlflow,
)
from rpo_pipeline.errors import RpoError
from rpo_pipeline.params import (
    CachesParams,
    Params,
    PolicyParams,
    PromotionParams,
    TrackingParams,
    validate_blocks,
    validate_catalog,
    variable,
)
from rpo_pipeline.records import Summary
from rpo_pipeline.secrets import keep_secret
from rpo_pipeline.storage import (
    clear_abandoned,
    ensure_writable,
    peak_mebibytes,
    prune_cache,
    reset_peak,
    working_in,
)

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from rpo_pipeline.tracking import MetricsFollower, TrackedRun

CACHE, LEDGER = "reference_cache", "run_ledger"


class TrackingHooks:
    """Kedro's hooks of one run."""

    def __init__(self) -> None:
        self._run: TrackedRun
        self._started_at = time.time()
        self._context: KedroContext
        self._environment: str
        self._tracking: TrackingParams
        self._blocks: dict[str, Params] = {}
        self._started: dict[str, float] = {}
        self._measures_memory = False
        self._followers: dict[str, list[MetricsFollower]] = {}
        self._place = ExitStack()
        """Context that enters the project's folder until the run ends."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Refuse parameters that cannot work, with a message, before any dataset is touched."""
        self._context = context
        _configure_logs(context.project_path)
        logs.take_over()
        with suppress(MissingConfigException):  # most projects have no credentials
            keep_secret(context.config_loader["credentials"])
        loader = cast(LayeredConfigLoader, context.config_loader)
        self._environment = loader.environment
        self._blocks = validate_blocks(context.config_loader["parameters"], self._environment)
        self._tracking = loader.tracking
        validate_catalog(context.config_loader["catalog"])

    def _check_model(self, pipeline: Pipeline) -> None:
        policy = cast(PolicyParams, self._blocks["policy"])
        if policy.from_config and "params:policy" in pipeline.inputs():
            from rpo_pipeline.engine import check_architecture

            check_architecture(policy.from_config)

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Start the MLflow run, or join the scheduler's, and give its address to the nodes."""
        from rpo_pipeline.tracking import JOINED_RUN, OUTBOXES, TrackedRun

        refuse_several(run_params["runner"])
        self._check_model(pipeline)
        context, self._started_at = self._context, time.time()
        places = context.config_loader["globals"]
        data = context.project_path / places["data"]
        folders = (data, context.project_path / places["cache"])
        for folder in folders:
            ensure_writable(folder)
        self._place.enter_context(working_in(context.project_path, data))
        run_id = variable(JOINED_RUN)
        outboxes = data / OUTBOXES
        self._run = TrackedRun(self._tracking, context.project_path, outboxes, run_id=run_id)
        for folder in folders:
            clear_abandoned(folder)
        logs.bind(run_id=self._run.run_id)
        # A run that is still open when the process ends was interrupted.
        atexit.register(self._run.finish, "KILLED")
        if "champion" in pipeline.all_outputs():
            self._require_champion()
        versions = _versions_of(context.project_path)
        catalog["mlflow_run"] = MemoryDataset(replace(self._run.describe(), versions=versions))
        self._run.log_params({name: block.model_dump() for name, block in self._blocks.items()})
        tags = {"kedro.env": self._environment, **versions}
        if not self._run.joined:
            tags["mlflow.runName"] = " ".join(run_params["pipeline_names"] or ["refresh"])
            tags["kedro.nodes"] = str(len(pipeline.nodes))
        self._run.set_tags(tags)

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog) -> None:
        """Follow the metrics that a node writes into a workspace."""
        from rpo_pipeline.tracking import MetricsFollower

        self._started[node.name] = time.monotonic()
        self._measures_memory = reset_peak()
        workspaces = [catalog[name] for name in node.inputs if name in catalog]
        self._followers[node.name] = [
            MetricsFollower(self._run, workspace.path / "metrics.jsonl")
            for workspace in workspaces
            if isinstance(workspace, WorkspaceDataset)
        ]

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Log the duration and the memory of the node, and the last metrics that it wrote."""
        for follower in self._followers.pop(node.name, []):
            follower.stop()
        seconds = time.monotonic() - self._started.pop(node.name)
        numbers = {f"time/{node.short_name}": seconds}
        if self._measures_memory:
            numbers[f"memory/{node.short_name}"] = peak_mebibytes()
        self._run.log_metrics(numbers)

    @hook_impl
    def on_node_error(self, node: Node) -> None:
        """Log the same of a node that failed."""
        self.after_node_run(node)

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Log inputs, results and the headline numbers to the run."""
        made = pipeline.all_outputs()
        for name in sorted(name for name in pipeline.datasets() if name in catalog):
            if (file := file_of(catalog, name)) is None:
                continue
            match use_in_mlflow(catalog, name):
                case {"input": use}:
                    self._run.log_dataset(name.partition("@")[0], file, use)
                case "artifact" if name in made:
                    self._run.log_artifact(file)
        if "partition_health" in made:
            health = catalog.load("partition_health").items()
            numbers = {f"partition/{k}": v for k, v in health if isinstance(v, int | float)}
            self._run.log_metrics(numbers)
        if "comparison" in made:
            for cell in catalog.load("comparison")["cells"]:
                self._run.log_nested(cell["cell"], *_cell(cell))
        if "summary" in made:
            summary = catalog.load("summary")
            self._run.log_metrics(_headline(summary))
            logger.info(_verdict(summary))
        if "report" in made and (report := file_of(catalog, "report")):
            logger.info("report: %s", os.path.relpath(report, self._context.project_path))
        self._prune_cache(pipeline, catalog)
        self._run.complete()
        self._place.close()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Mark the run as failed."""
        self._run.finish("FAILED")
        self._place.close()

    def _require_champion(self) -> None:
        """Check before any work that the champion, if there is one, can be evaluated."""
        from rpo_pipeline.registry import require_champion

        promotion = cast(PromotionParams, self._blocks["promotion"])
        try:
            require_champion(self._run.describe(), promotion.model_name)
        except RpoError:
            self._run.finish("FAILED")
            raise

    def _prune_cache(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Keep the cache within its limits; a skipped node still uses the results that it used."""
        users = [node.short_name for node in pipeline.nodes if CACHE in node.inputs]
        limits = cast(CachesParams, self._blocks["caches"])
        cache = file_of(catalog, CACHE) if users else None
        if cache is None:
            return
        ledger = (catalog.load(LEDGER) if LEDGER in catalog else None) or {}
        num_shards, num_bytes = prune_cache(
            cache,
            max_bytes=limits.max_gigabytes * 1e9,
            max_age_days=limits.max_age_days,
            in_use_since=min(
                [self._started_at, *(ledger[n]["started"] for n in users if n in ledger)]
            ),
        )
        if num_shards:
            logger.info("cache: %d files, %.1f MB removed", num_shards, num_bytes / 1e6)


def _configure_logs(project_path: Path) -> None:
    """Configure the project's logs, which Kedro finds only if the process starts in its folder."""
    file = project_path / "conf/logging.yml"
    handlers = logging.getLogger().handlers
    is_kedros_own = any(type(each).__module__.startswith("kedro.") for each in handlers)
    if is_kedros_own and file.is_file() and "KEDRO_LOGGING_CONFIG" not in os.environ:
        LOGGING.configure(yaml.safe_load(file.read_text(encoding="utf-8")))


def _cell(cell: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float | None]]:
    """Return the parameters and metrics of a cell of a comparison."""
    params = {name: cell[name] for name in ("method", "value", "seed")}
    numbers = {f"eval/{k}": v for k, v in cell.items() if k not in {*params, "cell"}}
    return params, numbers


def _headline(summary: Summary) -> dict[str, float | None]:
    baseline = summary.gate.baseline
    gains = {f"eval/{k}_vs_{baseline}": m["value"] for k, m in summary.versus(baseline).items()}
    return {**summary.headline, **gains, "gate/passed": float(summary.gate.passed)}


def _verdict(summary: Summary) -> str:
    baseline = summary.gate.baseline
    gain, other = summary.versus(baseline)["reward_mean"], summary.of(baseline) or {}
    failed = [check["reason"] for check in summary.gate.checks if not check["passed"]]
    return (
        f"gate {f'not passed, because {failed[0]}' if failed else 'passed'}: reward "
        f"{summary.challenger['reward_mean']['value']:.2f}, {baseline} "
        f"{other['reward_mean']['value']:.2f}; difference {gain['value']:+.2f} "
        f"({gain['low']:+.2f} to {gain['high']:+.2f}) on {summary.num_prompts} test prompts"
    )


def _versions_of(project_path: Path) -> dict[str, str]:
    """Tags of the commit and whether the tree is dirty, in a checkout, and of the constraints."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(project_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    tags = {}
    with suppress(OSError, subprocess.CalledProcessError):
        dirty = bool(git("status", "--porcelain"))
        tags = {"mlflow.source.git.commit": git("rev-parse", "HEAD"), "git.dirty": str(dirty)}
    file = project_path / "constraints.txt"
    if file.is_file():
        tags["constraints.sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()[:32]
    return tags
