"""Durable files, digests and freshness, rows by content, limits of caches, processes, the hub."""

from rpo_pipeline.storage.digests import (
    FINGERPRINTED,
    model_fingerprint,
    named_content,
    path_digest,
    value_digest,
)
from rpo_pipeline.storage.durable import (
    DAMAGED,
    clear_abandoned,
    first_line,
    is_whole_parquet,
    link_or_copy,
    put_in_place,
    put_new,
    replacing,
    temporary_folder,
    temporary_sibling,
)
from rpo_pipeline.storage.freshness import (
    MODEL_LIBRARIES,
    Definition,
    code_digest,
    library_versions,
    result_key,
)
from rpo_pipeline.storage.hub import use_hub_or_cache
from rpo_pipeline.storage.places import ensure_folder, ensure_writable, files_below, working_in
from rpo_pipeline.storage.processes import (
    die_with,
    is_running,
    outside_a_launch,
    peak_mebibytes,
    reset_peak,
    run_workers,
    start_ticks,
    worker_process,
)
from rpo_pipeline.storage.row_store import (
    SHARD_ROWS,
    SHARDS,
    content_key,
    fetch_rows,
    missing_rows,
    prune_cache,
)
