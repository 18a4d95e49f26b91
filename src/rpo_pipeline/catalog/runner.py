"""A runner that skips nodes whose results are up to date."""

import logging
import time
from typing import Any

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.runner import SequentialRunner
from pluggy import PluginManager

from rpo_pipeline.catalog.datasets import WorkspaceDataset, file_of
from rpo_pipeline.errors import ConfigError
from rpo_pipeline.storage import (
    code_digest,
    library_versions,
    named_content,
    path_digest,
    value_digest,
)

logger = logging.getLogger(__name__)

ALWAYS = "always"
"""Tag of nodes that read sources or the registry, which are never assumed unchanged."""
LEDGER = "run_ledger"
"""Catalog entry with the digests of what each node last read and wrote."""
PARAMS = "params:"
"""Start of the names of parameters in Kedro's catalog."""

SEVERAL = ("ThreadRunner", "ParallelRunner")
"""Runners of Kedro that run several nodes at one time."""

Digests = dict[str, str | None]


def refuse_several(runner: str | None) -> None:
    """Raise a ConfigError for a runner, named perhaps with its module, of several nodes at once."""
    found = [name for name in SEVERAL if name in (runner or "")]
    if found:
        raise ConfigError(
            f"{found[0]} cannot run this project: its nodes run one at a time, because each may "
            "need all of the memory and all share one connection to DuckDB. Leave --runner out, "
            "or name SequentialRunner; training.num_processes is what uses several processes"
        )


class FreshnessRunner(SequentialRunner):
    """Runs the nodes whose inputs, parameters, code or libraries changed since they last succeeded.

    Inputs and outputs are compared by content, so if a node writes the same result as before, the
    nodes that read it are skipped. ``kedro run --runner SequentialRunner`` runs every node.
    """

    def _run(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol[Any, Any],
        hook_manager: PluginManager | None = None,
        run_id: str | None = None,
    ) -> None:
        ledger = (catalog.load(LEDGER) if LEDGER in catalog else None) or {}
        _warn_of_other_parameters(pipeline, catalog, ledger)
        skipped = []
        known: Digests = {}  # many nodes read parameters that name the same model
        for node in pipeline.nodes:
            read, reason = _read(node, catalog, known), None
            if ALWAYS not in node.tags:
                reason = _staleness(ledger.get(node.short_name), read, _written(node, catalog))
                if reason is None:
                    skipped.append(node.short_name)
                    continue
                logger.info("%s runs: %s", node.short_name, reason)
            started = time.time()
            super()._run(Pipeline([node]), catalog, hook_manager, run_id)
            written = _written(node, catalog)
            ledger[node.short_name] = {"read": read, "written": written, "started": started}
            if LEDGER in catalog:
                catalog.save(LEDGER, ledger)
        if skipped:
            logger.info(
                "%d of %d nodes were skipped, because their inputs, parameters, code and libraries "
                "are those of the run that made what is there: %s (--runner SequentialRunner runs "
                "them all)",
                len(skipped),
                len(pipeline.nodes),
                ", ".join(skipped),
            )


def _warn_of_other_parameters(
    pipeline: Pipeline, catalog: CatalogProtocol[Any, Any], ledger: dict[str, Any]
) -> None:
    """Warn of nodes that a run leaves out, whose results it reads, and whose parameters changed."""
    own = {node.short_name for node in pipeline.nodes}
    left_out = {name: entry for name, entry in ledger.items() if name not in own}
    needed, changed = set(pipeline.inputs()), []
    while above := [name for name, entry in left_out.items() if needed & entry["written"].keys()]:
        for name in above:
            read = left_out.pop(name)["read"]
            needed |= read.keys()
            blocks = [block for block in read if block.startswith(PARAMS) and block in catalog]
            others = [one for one in blocks if value_digest(catalog.load(one)) != read[one]]
            if others:
                changed.append(f"{name} ({_listed(others)})")
    if changed:
        logger.warning(
            "this run reads results of nodes that it leaves out, and whose parameters were others "
            "when they last ran: %s. They stay as they are; a run that starts further up makes "
            "them again",
            ", ".join(changed),
        )


def _staleness(entry: dict[str, Any] | None, read: Digests, written: Digests) -> str | None:
    """Return the reason why a node has to run, or None."""
    if entry is None:
        return "it has not finished here before"
    changed = [name for name in read if entry["read"].get(name) != read[name]]
    if changed:
        return f"changed: {_listed(changed)}"
    lost = [name for name in written if entry["written"].get(name) != written[name]]
    return f"missing or not as it wrote it: {', '.join(lost)}" if lost else None


def _listed(names: list[str]) -> str:
    return ", ".join(name.removeprefix(PARAMS) for name in names)


def _read(node: Node, catalog: CatalogProtocol[Any, Any], known: Digests) -> Digests:
    """Hash the inputs that decide a node's results, without workspaces and its own last result.

    A model that parameters name by its folder counts by the folder's content.
    """
    made = {file_of(catalog, name) for name in node.outputs}
    read: Digests = {"code": code_digest(node.func)}
    read |= {f"version of {name}": v for name, v in library_versions(node.func).items()}
    for name in node.inputs:
        path = file_of(catalog, name)
        if name == "parameters" or name.startswith(PARAMS):
            value = catalog.load(name)
            read[name] = value_digest(value)
            named = named_content(value, known)
            read |= {f"content of {folder}": digest for folder, digest in named.items()}
        elif path and path not in made and not isinstance(catalog[name], WorkspaceDataset):
            read[name] = path_digest(path)
    return read


def _written(node: Node, catalog: CatalogProtocol[Any, Any]) -> Digests:
    paths = {name: file_of(catalog, name) for name in node.outputs}
    return {name: path_digest(path) for name, path in paths.items() if path}
