"""Kedro settings of the project."""

import warnings

from rpo_pipeline.catalog import LOADER_ARGUMENTS, LayeredConfigLoader
from rpo_pipeline.hooks import TrackingHooks
from rpo_pipeline.operations import ProjectSession

# Kedro 1.7 still calls it; nothing that a user of this project could change.
warnings.filterwarnings("ignore", message="register_new_resolver")
# Where Spark is installed, pandera imports it.
warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")

HOOKS = (TrackingHooks(),)

# Both would start or report runs of their own beside ours.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro_mlflow", "kedro-telemetry")

CONFIG_LOADER_CLASS = LayeredConfigLoader
CONFIG_LOADER_ARGS = LOADER_ARGUMENTS

SESSION_CLASS = ProjectSession
