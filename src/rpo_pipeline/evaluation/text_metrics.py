"""Metrics of the text of single responses: overlap, repetition, copying."""

import numpy as np
import pandas as pd
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from rpo_pipeline.evaluation.metrics import ngrams

MAX_WANTED = 10_000
"""Characters of a logged response that are compared; the time of ROUGE-L is the product of the
numbers of words."""
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


def _repetition(words: list[str]) -> float:
    runs = ngrams(words, REPEATED_WORDS)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
