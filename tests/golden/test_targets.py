"""What each estimator makes of a table, by the words of docs/method.md and nothing else."""

import math
from itertools import chain
from statistics import fmean

import pandas as pd
import pytest

from rpo_pipeline.partition.estimates import partition_rows
from tests.conftest import block

TAU = 0.5
REWARDS = [[1.25, -0.5, 0.25], [0.75], [-1.0, -1.0], [2.0, 0.0, 0.5, -0.25]]
SAMPLES = [[0.5, -0.5, 1.5], [0.0, 0.75, 0.75], [-1.0, -2.0, 1.0], [0.25, 0.5, 0.75]]
REF_LOGPS = [[-8.0, -12.0, -6.0], [-4.0], [-10.0, -5.0], [-3.0, -6.0, -9.0, -7.5]]
NUM_TOKENS = [[4, 8, 8], [4], [5, 5], [6, 12, 3, 6]]
# The third prompt lacks one, so the heuristic weighs it.
BEHAVIOUR = [[-7.0, -14.0, -13.0], [-3.0], [-9.0, math.nan], [-3.5, -6.5, -8.0, -1.5]]
ALPHA, CLIP, BELOW = 0.5, 1.0, 3


def log_sum(weights, rewards):
    return math.log(
        sum(math.exp(w) * math.exp(r / TAU) for w, r in zip(weights, rewards, strict=True))
    )


def log_mean(rewards):
    return math.log(fmean([math.exp(r / TAU) for r in rewards]))


def mean_logps(g):
    return [total / tokens for total, tokens in zip(REF_LOGPS[g], NUM_TOKENS[g], strict=True)]


def monte_carlo(g):
    return REWARDS[g], log_mean(REWARDS[g])


def self_normalized(g):
    ratios = [ALPHA * (r - b) for r, b in zip(REF_LOGPS[g], BEHAVIOUR[g], strict=True)]
    centre = fmean(ratios)
    weights = [min(max(ratio, centre - CLIP), centre + CLIP) for ratio in ratios]
    if math.isnan(centre):
        weights = [ALPHA * mean for mean in mean_logps(g)]
    return REWARDS[g], log_sum(weights, REWARDS[g]) - math.log(sum(map(math.exp, weights)))


def reference_weighted(g):
    return REWARDS[g], log_sum(mean_logps(g), REWARDS[g])


def reference_samples(g):
    return REWARDS[g], log_mean(SAMPLES[g] if len(REWARDS[g]) < BELOW else REWARDS[g])


def mid_rank(reward, samples):
    return (sum(s < reward for s in samples) + sum(s == reward for s in samples) / 2) / len(samples)


def quantile(g):
    ordered = sorted(SAMPLES[g])
    grid = [0.0, 1.0]
    for place in range(1, len(ordered)):
        low, high = ordered[place - 1 : place + 1]
        grid.append(mid_rank(low, ordered) if low == high else place / len(ordered))
    return [mid_rank(reward, ordered) for reward in REWARDS[g]], log_mean(grid)


@pytest.mark.parametrize(
    "formula", [monte_carlo, self_normalized, reference_samples, quantile, reference_weighted]
)
def test_targets(formula):
    rows = pd.DataFrame(
        {
            "prompt_id": [g for g, rewards in enumerate(REWARDS) for _ in rewards],
            "reward": list(chain(*REWARDS)),
            "logps": list(chain(*REF_LOGPS)),
            "num_tokens": list(chain(*NUM_TOKENS)),
            "behaviour_logps": list(chain(*BEHAVIOUR)),
            "prompt_is_cut": False,
            "response_is_cut": False,
        }
    ).assign(split="train", labeler="rules")
    sampled = {"reference_samples": [1, 2], "quantile": range(4)}.get(formula.__name__, [])
    samples = pd.DataFrame(
        [(g, reward, "rules") for g in sampled for reward in SAMPLES[g]],
        columns=["prompt_id", "reward", "labeler"],
    )
    settings = {"self_normalized_alpha": ALPHA, "self_normalized_clip": CLIP, "prior_strength": 0}
    rpo = block("rpo", estimator=formula.__name__, **settings)
    _, got, _ = partition_rows(rows.assign(row_id=rows.index), samples, rpo, tau=TAU)
    expected = [
        reward / TAU - log_z for rewards, log_z in map(formula, range(4)) for reward in rewards
    ]
    assert got["target"].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)
