"""Similarity in meaning of responses to the best-rated logged ones, by a local encoder."""

import numpy as np
import pandas as pd

from rpo_pipeline.engine import SentenceEncoder, default_device
from rpo_pipeline.evaluation.statistics import Array
from rpo_pipeline.params import EncoderParams

BATCH_SIZE = 64


def similarity_columns(
    generations: pd.DataFrame, best: pd.Series, encoder: EncoderParams
) -> pd.DataFrame:
    """Compare each response with the best-rated logged response to its prompt.

    The columns are in the order of the generations, NaN without a best-rated response:
    embedding_similarity (cosine of the mean token states) and bert_score (F1 of the best matches
    token by token, not rescaled).

    A ``ModelError`` is raised if there is no such encoder.

    Source:
        BERTScore of Zhang et al., arXiv:1904.09675, by the package bert-score.
    """
    wanted = generations["prompt_id"].map(best).reset_index(drop=True)
    known = wanted.notna().to_numpy()
    columns = np.full((len(generations), 2), np.nan)
    if known.any():
        texts = generations["response"][known].tolist(), wanted[known].tolist()
        columns[known] = np.column_stack([_cosines(*texts, encoder), _bert_scores(*texts, encoder)])
    return pd.DataFrame(columns, columns=["embedding_similarity", "bert_score"])


def _cosines(responses: list[str], wanted: list[str], encoder: EncoderParams) -> Array:
    sentences = SentenceEncoder(encoder.name_or_path, encoder.revision)
    limits = encoder.model_dump(include={"max_tokens", "micro_batch_tokens"})
    own, theirs = (sentences.embed(texts, **limits) for texts in (responses, wanted))
    return np.asarray((own * theirs).sum(axis=1), dtype=np.float64)


def _bert_scores(responses: list[str], wanted: list[str], encoder: EncoderParams) -> Array:
    from bert_score import BERTScorer  # noqa: PLC0415 (an extra)

    scorer = BERTScorer(
        model_type=encoder.name_or_path, num_layers=encoder.layer, device=str(default_device())
    )
    f1 = scorer.score(responses, wanted, batch_size=BATCH_SIZE)[2]
    return np.asarray(f1, dtype=np.float64)
