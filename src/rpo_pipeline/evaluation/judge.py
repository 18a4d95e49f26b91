"""Pairwise comparison of the models' responses by a judge, and the agreement of the judge.

Shapes: P prompts.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rpo_pipeline.evaluation.statistics import Array, Interval, mean_interval, resample_prompts
from rpo_pipeline.ingestion import prompt_key, render_prompt, row_key
from rpo_pipeline.judge import JudgeClient, own_template, request_fields
from rpo_pipeline.labeling import WITHIN, compare_shares, count_words
from rpo_pipeline.params import PairwiseJudgeParams
from rpo_pipeline.storage import fetch_rows, result_key

logger = logging.getLogger(__name__)

RATINGS = "ratings"
"""Kind of the pairs that hold two logged responses which people rated differently."""
WINS = {"win": 1.0, "tie": 0.5, "loss": 0.0}
COLUMNS = ["kind", "prompt_id", "win", "orders_agree", "longer"]


def judge_pairs(
    generations: pd.DataFrame, rated: pd.DataFrame, judge: PairwiseJudgeParams | None, cache: Path
) -> pd.DataFrame:
    """Compare the challenger with its baselines, and rated responses with each other, by a judge.

    Equal responses tie without a request; verdicts of earlier runs are in the cache. Without a
    judge, no pair is compared.

    Each pair has a line: kind (a baseline, or ``RATINGS``), prompt_id, win (1, 1/2 or 0 for the
    challenger, or for the response that people rated higher; NaN without a usable answer),
    orders_agree, and longer (1, 1/2 or 0: whether that response has more words).
    """
    if judge is None:
        return pd.DataFrame(columns=COLUMNS)
    pairs = pd.concat(
        [_model_pairs(generations, judge.num_prompts), _rated_pairs(rated, judge.rated_pairs)]
    ).reset_index(drop=True)
    if pairs.empty:
        return pd.DataFrame(columns=COLUMNS)
    verdicts = pd.DataFrame({"win": 0.5, "orders_agree": 1.0}, index=pairs.index)
    differ = pairs[pairs["first"] != pairs["second"]]
    client = JudgeClient(judge.endpoint)
    answers = _ask(client, differ, judge, cache)
    verdicts.loc[differ.index] = answers[["win", "orders_agree"]].to_numpy(np.float64)
    _report_usage(client, int(verdicts["win"].isna().sum()), len(pairs))
    words = [count_words(pairs[side]) for side in ("first", "second")]
    verdicts["longer"] = (np.sign(words[0] - words[1]) + 1) / 2
    return pairs[["kind", "prompt_id"]].join(verdicts)


def _ask(
    client: JudgeClient, pairs: pd.DataFrame, judge: PairwiseJudgeParams, cache: Path
) -> pd.DataFrame:
    """Verdicts on pairs, by the judge or from the cache: win and orders_agree."""
    key = result_key(
        *(judge.endpoint.decisive, judge.template or own_template("compare.j2")),
        code=[JudgeClient.compare, request_fields],
        libraries=[],  # verdicts cost money and do not depend on any library
    )

    def ask(places: list[int]) -> pd.DataFrame:
        rows = pairs.iloc[places]
        answers = client.each(
            lambda prompt, first, second: client.compare(
                prompt, first, second, template=judge.template
            ),
            *(rows["prompt"].map(render_prompt), rows["first"], rows["second"]),
        )
        return pd.DataFrame(
            {
                "win": [WINS[a.outcome] if a else np.nan for a in answers],
                "orders_agree": [float(a.orders_agree) if a else np.nan for a in answers],
            }
        )

    texts = zip(pairs["prompt"], pairs["first"], pairs["second"], strict=True)
    return fetch_rows(
        cache / key,
        [row_key(row_key(prompt, first), second) for prompt, first, second in texts],
        ask,
        prompt_ids=pairs["prompt"].map(prompt_key).tolist(),
        verb="compare by the judge",
    )


def _report_usage(client: JudgeClient, num_unanswered: int, num_pairs: int) -> None:
    usage = client.usage
    logger.info(
        "judge: %d requests, %d + %d tokens, cost %.4g",
        *(usage.num_requests, usage.prompt_tokens, usage.answer_tokens, usage.cost),
    )
    if num_unanswered:
        reasons = "; ".join(f"{reason}: {n}" for reason, n in usage.unanswered.most_common())
        logger.warning(
            "the judge gave no usable answer for %d of %d pairs: %s",
            *(num_unanswered, num_pairs, client.stopped or reasons or "as in an earlier run"),
        )


def win_rates(verdicts: pd.DataFrame, *, num_resamples: int, seed: int) -> dict[str, Interval]:
    """Compute {value, low, high} of the challenger's win rate by baseline, ties half."""
    wins = {kind: prompt_wins(verdicts, kind) for kind in sorted({*verdicts["kind"]} - {RATINGS})}
    return {
        kind: mean_interval(rates, resample_prompts(len(rates), num_resamples, seed))
        for kind, rates in wins.items()
    }


def prompt_wins(verdicts: pd.DataFrame, kind: str) -> Array:
    """Average the wins of a kind by prompt, shape ``(P,)``; NaN without a usable answer."""
    wins = verdicts[verdicts["kind"] == kind].groupby("prompt_id")["win"].mean()
    return wins.to_numpy(np.float64)


def trust(verdicts: pd.DataFrame, *, num_resamples: int, seed: int) -> dict[str, Any]:
    """Measure how far a judge agrees with itself in the other order, and with people.

    The numbers are num_pairs, unanswered, orders_agree (share) and ties (share); num_rated_pairs,
    and agreement_with_ratings as {value, low, high}, ties half (1/2 is chance); against_length, the
    comparison with length alone by ``compare_shares``.
    """
    of_people = verdicts[verdicts["kind"] == RATINGS]
    shares = of_people.dropna(subset="win").groupby("prompt_id")[["win", "longer"]].mean()
    rated = of_people.groupby("prompt_id")["win"].mean()
    draws = resample_prompts(max(1, len(rated)), num_resamples, seed)
    known = verdicts.dropna(subset="win")
    return {
        "num_pairs": len(verdicts),
        "unanswered": len(verdicts) - len(known),
        "orders_agree": float(known["orders_agree"].mean()) if len(known) else None,
        "ties": float((known["win"] == WINS["tie"]).mean()) if len(known) else None,
        "num_rated_pairs": len(of_people),
        "agreement_with_ratings": mean_interval(rated.to_numpy(np.float64), draws),
        "against_length": {
            "pairs": WITHIN,
            **compare_shares(shares["win"].to_numpy(), shares["longer"].to_numpy()),
        },
    }


def _model_pairs(generations: pd.DataFrame, num_prompts: int) -> pd.DataFrame:
    """Pair the challenger's first response to each prompt with that of each baseline."""
    first = generations[generations["sample"] == 0].sort_values("prompt_id")
    first = first[first["prompt_id"].isin(first["prompt_id"].unique()[:num_prompts])]
    own = first[first["model"] == "challenger"]
    others = first[first["model"] != "challenger"]
    pairs = own.merge(others, on=["prompt_id", "prompt"], suffixes=("", "_other"))
    pairs = pairs.rename(
        columns={"model_other": "kind", "response": "first", "response_other": "second"}
    )
    return pairs[["kind", "prompt_id", "prompt", "first", "second"]]


def _rated_pairs(rated: pd.DataFrame, num_pairs: int) -> pd.DataFrame:
    """Pair the best- and the worst-rated response to each prompt, if their ratings differ."""
    rows = rated.sort_values(["raw_reward", "response"]).groupby("prompt_id")
    pairs = rows.agg(
        prompt=("prompt", "first"),
        first=("response", "last"),
        second=("response", "first"),
        spread=("raw_reward", lambda rewards: rewards.iloc[-1] - rewards.iloc[0]),
    ).reset_index()
    apart = pairs[pairs["spread"] > 0].head(num_pairs)
    return apart.drop(columns="spread").assign(kind=RATINGS)
