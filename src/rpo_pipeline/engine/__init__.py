"""Models, prompt groups, tokenisation, routes, scoring, sampling, and the caches of these."""

from rpo_pipeline.engine.adapters import add_adapters
from rpo_pipeline.engine.batches import check_routes, micro_batches
from rpo_pipeline.engine.building import build_language_model, check_architecture
from rpo_pipeline.engine.chat_templates import adapt_template, warn_of_opening
from rpo_pipeline.engine.checks import check_folder, check_precision
from rpo_pipeline.engine.embedding import SentenceEncoder, embed_responses
from rpo_pipeline.engine.encoding import SOURCE, TemplateRefusalError, encode_chats
from rpo_pipeline.engine.generation import row_seed, sample_responses
from rpo_pipeline.engine.groups import Group, GroupBatch, pack_rows
from rpo_pipeline.engine.lengths import check_positions
from rpo_pipeline.engine.loading import (
    LanguageModel,
    default_device,
    load_checkpoint,
    load_language_model,
    reason_of,
)
from rpo_pipeline.engine.logps_cache import cache_key, fetch_logps, score_new_rows
from rpo_pipeline.engine.routes import Route
from rpo_pipeline.engine.row_scoring import score_table
from rpo_pipeline.engine.samples_cache import fetch_samples, sample_new_rows, samples_key
from rpo_pipeline.engine.scoring import group_logps, group_scores
from rpo_pipeline.engine.tokenisation import tokenise_groups

__all__ = [
    "SOURCE",
    "Group",
    "GroupBatch",
    "LanguageModel",
    "Route",
    "SentenceEncoder",
    "TemplateRefusalError",
    "adapt_template",
    "add_adapters",
    "build_language_model",
    "cache_key",
    "check_architecture",
    "check_folder",
    "check_positions",
    "check_precision",
    "check_routes",
    "default_device",
    "embed_responses",
    "encode_chats",
    "fetch_logps",
    "fetch_samples",
    "group_logps",
    "group_scores",
    "load_checkpoint",
    "load_language_model",
    "micro_batches",
    "pack_rows",
    "reason_of",
    "row_seed",
    "sample_new_rows",
    "sample_responses",
    "samples_key",
    "score_new_rows",
    "score_table",
    "tokenise_groups",
    "warn_of_opening",
]
