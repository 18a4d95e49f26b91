"""Names of cache folders: hashes of what a result depends on besides the tokens of its row."""

from pathlib import Path

from rpo_pipeline.engine.batches import score_groups
from rpo_pipeline.engine.loading import load_checkpoint
from rpo_pipeline.engine.sampling import sample_responses
from rpo_pipeline.params import PolicyParams
from rpo_pipeline.storage import MODEL_LIBRARIES, model_fingerprint, path_digest, result_key


def logps_key(model: Path, policy: PolicyParams) -> str:
    """Hash what a log-probability depends on besides the tokens of its row.

    Of the policy only the precision counts, as limits show in the tokens.
    """
    return result_key(
        model_fingerprint(model),
        policy.dtype,
        code=[load_checkpoint, score_groups],
        libraries=MODEL_LIBRARIES,
    )


def samples_key(model: Path, policy: PolicyParams, sampling_temperature: float) -> str:
    """Hash what a sample depends on besides the tokens of its prompt and its noise.

    Of the policy only the precision and the limit of a response count.
    """
    return result_key(
        model_fingerprint(model),
        path_digest(model / "generation_config.json"),  # it may name tokens that end a response
        policy.dtype,
        policy.max_response_tokens,
        sampling_temperature,
        code=[load_checkpoint, sample_responses],
        libraries=MODEL_LIBRARIES,
    )
