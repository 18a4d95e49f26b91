"""Models, prompt groups, tokenisation, routes, scoring, sampling, and the caches of these."""

from rpo_pipeline.engine.building import check_architecture, make_language_model
from rpo_pipeline.engine.chat_templates import adapt_template
from rpo_pipeline.engine.checks import check_precision
from rpo_pipeline.engine.embedding import SentenceEncoder, embed_responses
from rpo_pipeline.engine.encoding import SOURCE, TemplateRefusalError, encode_chats
from rpo_pipeline.engine.engine import Engine, StoredModel
from rpo_pipeline.engine.groups import Group, GroupBatch, pack_rows
from rpo_pipeline.engine.loading import (
    LanguageModel,
    default_device,
    load_language_model,
    load_pretrained,
    loading_errors,
)
from rpo_pipeline.engine.routes import Route
from rpo_pipeline.engine.sampling import row_seed
from rpo_pipeline.engine.train_view import TrainView
