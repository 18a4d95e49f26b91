"""Kedro's session: a run locks its data folder, and a full run starts only if there is work."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import click
from kedro.framework.context import KedroContext
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession

from rpo_pipeline.errors import ConfigError, did_you_mean
from rpo_pipeline.operations.lock import BusyError, only_run
from rpo_pipeline.operations.refresh import Refresh
from rpo_pipeline.storage import working_in

SELECTIONS = (
    "tags node_names to_nodes from_nodes from_inputs to_outputs namespaces only_missing_outputs"
).split()
"""Arguments that restrict a run to some nodes of a pipeline."""
OF_NODES = ("node_names", "from_nodes", "to_nodes")
"""Arguments of a run that name nodes."""
NAMED_BY = (
    "`kedro registry list` names the pipelines, `kedro registry describe NAME` the nodes of one"
)
"""Hint for messages that refuse a name."""
WHOLE: tuple[set[str], ...] = ({"refresh"}, {"__default__"}, set())


class ProjectSession(KedroSession):
    """Session of ``kedro run`` that takes the lock and decides whether there is work."""

    _context: KedroContext | None = None

    def load_context(self) -> KedroContext:
        """Load the context once, so that the decision and the run use the same one."""
        if self._context is None:
            self._context = super().load_context()
        return self._context

    def run(self, **chosen: Any) -> dict[str, Any]:  # type: ignore[override] # noqa: ANN401
        """Run the chosen nodes; the result is empty if there is no work.

        A ConfigError says that no pipeline or node has a given name; a BusyError, that another run
        uses the data folder. A run of all pipelines leaves its work to the other one.
        """
        require_known(pipelines_of(chosen), pipelines, "pipeline")
        chosen |= {option: with_stages(chosen.get(option) or ()) for option in OF_NODES}
        context = self.load_context()
        data = context.project_path / context.config_loader["globals"]["data"]
        with working_in(context.project_path, data):
            refresh = Refresh(context)
            if not _is_whole(chosen):
                with only_run(refresh.lock):
                    return super().run(**chosen)
            try:
                return refresh.run(lambda: super(ProjectSession, self).run(**chosen)) or {}
            except BusyError as err:
                click.echo(f"nothing to do: {err}", err=True)
                return {}


def with_stages(nodes: Iterable[str]) -> list[str]:
    """Return node names as Kedro knows them: ``evaluation.summarise`` for ``summarise``."""
    if not nodes:
        return []
    every = [node for pipeline in pipelines.values() for node in pipeline.nodes]
    known = {node.short_name: node.name for node in every}
    require_known(nodes, {*known, *known.values()}, "node")
    return [known.get(name, name) for name in nodes]


def require_known(names: Iterable[str], known: Collection[str], kind: str) -> None:
    """Raise a ConfigError for the first name that nothing has, with the most similar one."""
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no {kind} {name!r}: {did_you_mean(name, known)}{NAMED_BY}")


def pipelines_of(chosen: Mapping[str, Any]) -> set[str]:
    """Return the names of the pipelines that a run was asked for; none for all of them."""
    return {*(chosen.get("pipeline_names") or ()), chosen.get("pipeline_name")} - {None}


def _is_whole(chosen: Mapping[str, Any]) -> bool:
    """Tell whether a run is of all pipelines."""
    return pipelines_of(chosen) in WHOLE and not any(chosen.get(option) for option in SELECTIONS)
