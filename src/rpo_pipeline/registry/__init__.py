"""Registered versions, their aliases, the gate, and the served model."""

from rpo_pipeline.registry.aliases import ARTIFACTS, apply_decision, roll_back
from rpo_pipeline.registry.client import (
    answering,
    fetch_champion,
    fetch_checkpoint,
    fetch_document,
    has_version,
    register_version,
    registered_versions,
    require_champion,
)
from rpo_pipeline.registry.gate import decide
from rpo_pipeline.registry.gate_looks import summarise
from rpo_pipeline.registry.moves import Standing, find_standing
from rpo_pipeline.registry.provenance import resolved_parameters, serving_documents, trace
