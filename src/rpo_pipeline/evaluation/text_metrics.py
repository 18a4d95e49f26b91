"""Metrics of the text of single responses: overlap, meaning, repetition, copying."""

import numpy as np
import pandas as pd
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from rpo_pipeline.engine import SentenceEncoder, default_device
from rpo_pipeline.evaluation.metrics import ngrams
from rpo_pipeline.evaluation.statistics import Array
from rpo_pipeline.params import EncoderParams

MAX_WANTED = 10_000
"""Characters of a logged response that are compared; the time of ROUGE-L is the product of the
numbers of words."""
BATCH_SIZE = 64
"""Pairs of texts that BERTScore compares at once."""
REPEATED_WORDS = 3
"""Number of words in the runs whose repetition is counted."""


def text_columns(
    generations: pd.DataFrame, best: pd.Series, logged: frozenset[str]
) -> pd.DataFrame:
    """Measure the text of each response.

    The columns are in the order of the generations, 0 to 1: bleu, chrf and rouge_l against the
    best-rated response by prompt_id (NaN without one); self_bleu against the model's other
    responses to the prompt (NaN without others); repetition, the share of runs of three words that
    occurred before in the response; copied, whether the train split, in ``logged``, has the
    response word by word.

    Source:
        BLEU and chrF of sacrebleu (Post, arXiv:1804.08771), ROUGE-L of rouge-score, self-BLEU of
        Zhu et al., arXiv:1802.01886.
    """
    bleu, chrf = BLEU(effective_order=True), CHRF()
    rouge = RougeScorer(["rougeL"])
    lines = []
    groups = generations.groupby(["model", "prompt_id"])["response"].agg(list)
    for row in generations.to_dict("records"):
        response, wanted = row["response"], best.get(row["prompt_id"])
        wanted = wanted[:MAX_WANTED] if wanted else None
        others = list(groups[row["model"], row["prompt_id"]])
        others.remove(response)
        lines.append(
            {
                "bleu": bleu.sentence_score(response, [wanted]).score / 100 if wanted else None,
                "chrf": chrf.sentence_score(response, [wanted]).score / 100 if wanted else None,
                "rouge_l": rouge.score(wanted, response)["rougeL"].fmeasure if wanted else None,
                "self_bleu": bleu.sentence_score(response, others).score / 100 if others else None,
                "repetition": _repetition(response.split()),
                "copied": float(response in logged),
            }
        )
    return pd.DataFrame(lines, dtype=np.float64)


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


def _repetition(words: list[str]) -> float:
    runs = ngrams(words, REPEATED_WORDS)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
