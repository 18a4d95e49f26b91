"""Mismatched pairs: a derangement over prompts that stands still while the log grows."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_pipeline.errors import DataError
from rpo_pipeline.partition.kto_pairs import mismatched_pairs


def table(prompt_ids):
    return pd.DataFrame(
        {
            "row_id": [f"r{i}" for i in range(len(prompt_ids))],
            "prompt_id": prompt_ids,
            "prompt": [f"prompt of {prompt_id}" for prompt_id in prompt_ids],
            "response": [f"response {i}" for i in range(len(prompt_ids))],
        }
    )


logs = st.lists(st.integers(0, 12).map(str), min_size=2, max_size=16).filter(
    lambda prompt_ids: len(set(prompt_ids)) > 1
)
seeds = st.integers(0, 5)


def partners(prompt_ids, seed):
    return dict(
        zip(prompt_ids, mismatched_pairs(table(prompt_ids), seed)["prompt_id"], strict=True)
    )


@settings(max_examples=30)
@given(logs, seeds)
def test_no_prompt_keeps_its_own_responses_and_each_takes_those_of_one_other(prompt_ids, seed):
    partner = partners(prompt_ids, seed)
    assert all(own != other for own, other in partner.items())
    assert sorted(partner.values()) == sorted(set(prompt_ids))


@settings(max_examples=30)
@given(logs, seeds)
def test_a_row_keeps_its_response_and_takes_its_partners_prompt(prompt_ids, seed):
    rows = table(prompt_ids)
    pairs = mismatched_pairs(rows, seed)
    partner = partners(prompt_ids, seed)
    assert pairs[["row_id", "response"]].equals(rows[["row_id", "response"]])
    assert pairs["prompt_id"].tolist() == [partner[own] for own in prompt_ids]
    assert pairs["prompt"].tolist() == [f"prompt of {partner[own]}" for own in prompt_ids]


@settings(max_examples=30)
@given(logs, seeds, st.randoms())
def test_the_order_of_the_log_does_not_matter(prompt_ids, seed, rng):
    assert partners(rng.sample(prompt_ids, len(prompt_ids)), seed) == partners(prompt_ids, seed)


@settings(max_examples=30)
@given(logs, seeds)
def test_a_new_prompt_changes_the_partner_of_one_other_prompt_only(prompt_ids, seed):
    before, after = partners(prompt_ids, seed), partners([*prompt_ids, "new"], seed)
    assert sum(before[own] != after[own] for own in before) == 1


def test_another_seed_makes_other_pairs():
    prompt_ids = [str(i) for i in range(20)]
    assert partners(prompt_ids, 0) != partners(prompt_ids, 1)


def test_a_single_prompt_is_refused():
    with pytest.raises(DataError, match=r"all 3 labelled rows .* have the same one"):
        mismatched_pairs(table(["a", "a", "a"]), 0)
