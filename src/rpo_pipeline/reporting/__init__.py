"""Writes the report, the page of the comparison, and the model card."""

from rpo_pipeline.reporting.comparison_page import render_comparison
from rpo_pipeline.reporting.model_card import render_model_card
from rpo_pipeline.reporting.report import (
    Findings,
    describe_lineage,
    fingerprint_inputs,
    quarantine_reasons,
    render_report,
)
