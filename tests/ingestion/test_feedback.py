"""Rows to feedback: nothing lost, nothing counted twice, splits that stay."""

import json

import ibis
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.feedback import (
    account_rows,
    build_feedback,
    check_quarantine,
    quarantine_conflicts,
)
from rpo_pipeline.ingestion.near_duplicates import cluster_prompts
from rpo_pipeline.ingestion.quarantine import QUARANTINE_SCHEMA, Reason, quarantine_table
from rpo_pipeline.ingestion.rows import ROW_SCHEMA, parse_record
from rpo_pipeline.ingestion.splits import assign_splits
from rpo_pipeline.params import RatingParams, SourceParams, SplitShares

SOURCE = SourceParams(path="log.jsonl")
SHARES = SplitShares(train=0.7, validation=0.1, test=0.2)
PROMPTS = [f"prompt {i}" for i in range(40)]


def table(records, source=SOURCE):
    rows = [
        {**parse_record(record, source), "origin": f"log.jsonl:{i + 1}", "position": i}
        for i, record in enumerate(records)
    ]
    return ibis.memtable(pa.Table.from_pylist(rows, schema=ROW_SCHEMA))


def filler():
    """One row for each of many prompts, so that every split has some."""
    return [{"prompt": prompt, "response": "ok", "reward": 0.0} for prompt in PROMPTS]


def alone(rows):
    """Clusters in which every prompt stands alone."""
    return cluster_prompts(rows, None, None)


def feedback_of(records, conflicts="mean"):
    rows = table(records)
    return rows, build_feedback(rows, assign_splits(rows, alone(rows), None, SHARES), conflicts)


def one_row(records, conflicts="mean"):
    _, feedback = feedback_of([*filler(), *records], conflicts)
    found = feedback.filter(feedback.response == "hi").execute()
    assert len(found) == 1
    return found.iloc[0]


def test_ratings_of_one_row_are_averaged_and_counted():
    times = [f"2026-01-0{day}T00:00:00Z" for day in (1, 2, 3)]
    rated = [
        {"prompt": "q", "response": "hi", "reward": reward, "timestamp": time}
        for reward, time in zip((1.0, 0.0, -0.4), times, strict=True)
    ]
    row = one_row(rated)
    assert row["raw_reward"] == pytest.approx(0.2)
    assert row["num_ratings"] == 3


def test_a_line_logged_twice_with_its_timestamp_is_one_rating():
    line = {"prompt": "q", "response": "hi", "reward": 1.0, "timestamp": "2026-01-01T00:00:00Z"}
    assert one_row([line, line])["num_ratings"] == 1


def test_equal_ratings_without_a_timestamp_are_two_people_who_agree():
    line = {"prompt": "q", "response": "hi", "reward": 1.0}
    row = one_row([line, line, {**line, "reward": -1.0}])
    assert row["num_ratings"] == 3
    assert row["raw_reward"] == pytest.approx(1 / 3)


def test_an_unrated_row_stays_with_no_reward_and_no_ratings():
    row = one_row([{"prompt": "q", "response": "hi"}])
    assert pd.isna(row["raw_reward"])
    assert row["num_ratings"] == 0


records = st.fixed_dictionaries(
    {
        "prompt": st.sampled_from(PROMPTS),
        "response": st.sampled_from(["hi", "no", "yes"]),
        "reward": st.sampled_from([None, 0.0, 1.0]),
        "timestamp": st.sampled_from([None, "2026-01-01T00:00:00Z"]),
    }
)


@pytest.mark.parametrize("conflicts", ["mean", "latest", "quarantine"])
@settings(max_examples=4)
@given(extra=st.lists(records, max_size=60))
def test_every_record_is_kept_quarantined_a_duplicate_or_merged(conflicts, extra):
    rows, feedback = feedback_of([*filler(), *extra], conflicts)
    unread = rejected("log.jsonl", 1)
    quarantine = quarantine_conflicts(rows, unread, conflicts)
    account = account_rows(rows, unread, quarantine, feedback, conflicts)
    read = account.pop("read")
    assert read == len(PROMPTS) + len(extra) + 1
    assert read == sum(account.values())


@pytest.mark.parametrize("conflicts", ["mean", "latest", "quarantine"])
@settings(max_examples=4)
@given(extra=st.lists(records, max_size=30), shuffled=st.randoms())
def test_feedback_does_not_depend_on_the_order_of_the_table(conflicts, extra, shuffled):
    rows, feedback = feedback_of([*filler(), *extra], conflicts)
    lines = rows.to_pyarrow().to_pylist()
    shuffled.shuffle(lines)
    again = ibis.memtable(pa.Table.from_pylist(lines, schema=ROW_SCHEMA))
    splits = assign_splits(again, alone(again), None, SHARES)
    pd.testing.assert_frame_equal(
        build_feedback(again, splits, conflicts).execute(), feedback.execute()
    )


def rated(*rewards_and_days):
    days = {None: None, 1: "2026-01-01T00:00:00Z", 2: "2026-01-02T00:00:00Z"}
    return [
        {"prompt": "q", "response": "hi", "reward": reward, "timestamp": days[day]}
        for reward, day in rewards_and_days
    ]


@pytest.mark.parametrize(
    ("ratings", "latest"),
    [
        ([(0.1, 2), (0.2, 1)], 0.1),
        ([(0.1, 1), (0.2, None)], 0.1),
        ([(0.1, None), (0.2, None)], 0.2),
        ([(0.1, 2), (0.2, 2)], 0.2),
        ([(0.1, 1), (None, 2)], 0.1),
    ],
)
def test_the_latest_rating_is_by_time_and_then_by_order_of_reading(ratings, latest):
    row = one_row(rated(*ratings), "latest")
    assert row["raw_reward"] == latest
    assert row["num_ratings"] == sum(reward is not None for reward, _ in ratings)


def test_rows_with_different_ratings_go_to_quarantine_with_origin_and_what_was_read():
    rows, feedback = feedback_of([*filler(), *rated((0.1, 1), (0.2, 2))], "quarantine")
    quarantine = quarantine_conflicts(rows, rejected("other.jsonl", 1), "quarantine")
    assert quarantine["reason"].tolist()[1:] == ["conflicting_rewards"] * 2
    assert quarantine["origin"].tolist() == ["other.jsonl", "log.jsonl", "log.jsonl"]
    assert quarantine["line"].tolist()[1:] == [41, 42]
    assert [json.loads(raw)["raw_reward"] for raw in quarantine["raw"][1:]] == [0.1, 0.2]
    assert len(feedback.execute()) == len(PROMPTS)


def test_equal_ratings_and_records_without_one_are_no_conflict():
    same = rated((0.1, 1), (0.1, 2), (None, 2))
    assert one_row(same, "quarantine")["num_ratings"] == 2


def test_a_prompt_is_in_one_split_only_and_all_its_rows_with_it():
    _, feedback = feedback_of(
        [{"prompt": p, "response": r, "reward": 0.0} for p in PROMPTS for r in ("a", "b", "c")]
    )
    assert feedback.execute().groupby("prompt_id")["split"].nunique().eq(1).all()


def splits_of(records, previous=None, shares=SHARES):
    rows = table(records)
    splits = assign_splits(rows, alone(rows), previous, shares)
    return dict(splits.select("prompt_id", "split").execute().itertuples(index=False))


def test_a_split_once_given_stays_when_rows_are_added_and_shares_change():
    before = splits_of(filler())
    previous = ibis.memtable(pd.DataFrame(before.items(), columns=["prompt_id", "split"]))
    more = [{"prompt": f"new {i}", "response": "ok"} for i in range(40)]
    changed = SplitShares(train=0.1, validation=0.1, test=0.8)
    after = splits_of([*filler(), *more], previous, changed)
    assert {prompt_id: after[prompt_id] for prompt_id in before} == before
    assert len(after) == 80


def test_a_prompt_that_comes_back_after_a_pause_finds_its_split():
    before = splits_of(filler())
    previous = ibis.memtable(pd.DataFrame(before.items(), columns=["prompt_id", "split"]))
    paused = splits_of(filler()[:30], previous)
    assert paused == before


def test_splits_follow_the_shares():
    many = [{"prompt": f"prompt {i}", "response": "ok"} for i in range(3000)]
    shares = pd.Series(splits_of(many)).value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.7, abs=0.03)
    assert shares["test"] == pytest.approx(0.2, abs=0.03)


def test_all_prompts_in_one_split_is_an_error_that_names_the_shares():
    with pytest.raises(DataError, match=r"0 test with shares 0\.7 / 0\.1 / 0\.2"):
        splits_of([{"prompt": "prompt 0", "response": "ok"}])


def rejected(file, number):
    reason = Reason.REWARD_NOT_A_NUMBER.value
    records = [
        {"origin": file, "line": i + 1, "reason": reason, "raw": '{"reward": "bad"}'}
        for i in range(number)
    ]
    return quarantine_table(pa.Table.from_pylist(records, schema=QUARANTINE_SCHEMA))


def test_a_file_without_a_valid_row_is_named_with_reason_and_example():
    quarantine = rejected("strings.jsonl", 3)
    with pytest.raises(DataError, match=r"strings\.jsonl has no valid row: 3 reward_not_a_number"):
        check_quarantine(table(filler()), quarantine, max_share=1.0)


def test_too_large_a_share_of_quarantined_rows_stops_the_run():
    quarantine = rejected("log.jsonl", 10)
    check_quarantine(table(filler()), quarantine, max_share=0.2)
    with pytest.raises(DataError, match=r"20\.0% of the rows read are quarantined"):
        check_quarantine(table(filler()), quarantine, max_share=0.19)


def test_a_rating_given_again_is_the_latest_by_its_last_line():
    again = [{"prompt": "q", "response": "hi", "reward": reward} for reward in (1.0, -1.0, 1.0)]
    assert one_row(again, "latest")["raw_reward"] == 1.0


@pytest.mark.parametrize("outlier", [1e12, -5e9, 1e5])
def test_one_absurd_rating_goes_to_quarantine_and_the_account_still_balances(outlier):
    rated = [{**row, "reward": i / 10} for i, row in enumerate(filler() * 2)]
    rows, feedback = feedback_of([*rated, {"prompt": "q", "response": "hi", "reward": outlier}])
    rejected = quarantine_table(QUARANTINE_SCHEMA.empty_table())
    quarantine = quarantine_conflicts(rows, rejected, "mean")
    assert list(quarantine["reason"]) == [Reason.REWARD_OUT_OF_RANGE]
    assert json.loads(quarantine["raw"][0])["raw_reward"] == outlier
    account = account_rows(rows, rejected, quarantine, feedback, "mean")
    assert account["quarantined"] == 1
    assert feedback.raw_reward.max().execute() < 10


@pytest.mark.parametrize(
    "rewards",
    [
        [1.0] * 79 + [-1.0],
        [0.0] * 79 + [500.0],
        [2.0**i for i in range(20)] * 4,
        [0.0] * 78 + [0.001, 1e6],
    ],
    ids=["all up but one", "all equal but one", "heavy tails", "hardly any differ"],
)
def test_rare_and_heavy_tailed_ratings_are_no_mistakes(rewards):
    records = [
        {"prompt": f"p{i}", "response": "ok", "reward": reward} for i, reward in enumerate(rewards)
    ]
    rejected = quarantine_table(QUARANTINE_SCHEMA.empty_table())
    assert quarantine_conflicts(table(records), rejected, "mean").empty


@pytest.mark.parametrize(
    "rating",
    [
        RatingParams(column="reward", scale=(0, 1)),
        RatingParams(column="reward", values={"0.9999": 0.9999, "0.9998": 0.9998, "0.05": 0.05}),
    ],
    ids=["scale", "values"],
)
def test_a_rating_within_a_declared_scale_is_never_out_of_range(rating):
    rewards = [0.9999, 0.9998] * 190 + [0.05] * 13
    records = [{"prompt": f"p{i}", "response": "a", "reward": r} for i, r in enumerate(rewards)]
    nothing = quarantine_table(QUARANTINE_SCHEMA.empty_table())
    declared = table(records, SOURCE.model_copy(update={"ratings": [rating]}))
    assert quarantine_conflicts(declared, nothing, "mean").empty
    assert len(quarantine_conflicts(table(records), nothing, "mean")) == 13


def test_ratings_out_of_range_are_warned_of_wherever_they_were_found(caplog):
    records = [{"prompt": f"p{i}", "response": "a", "reward": i % 7} for i in range(100)]
    huge = {"origin": "log.jsonl", "line": 1, "reason": "reward_out_of_range", "raw": "1e300"}
    rejected = quarantine_table(pa.Table.from_pylist([huge], QUARANTINE_SCHEMA))
    assert len(quarantine_conflicts(table(records), rejected, "mean")) == 1
    assert "1 ratings are absurdly far" in caplog.text


@pytest.mark.parametrize("size", [1e-300, 3.5e-13, 1.0, 1e15, 1e37])
def test_ratings_of_any_size_keep_their_digits(size):
    assert one_row(rated((0.123456789 * size, 1)))["raw_reward"] == 0.123456789 * size
    mean = one_row(rated((0.25 * size, 1), (size, 2)))["raw_reward"]
    assert mean == pytest.approx(0.625 * size, rel=1e-11, abs=0)


def test_the_mean_of_opposite_ratings_is_zero_however_they_are_added_up():
    assert one_row(rated((0.1, 1), (0.2, 2), (-0.3, None)))["raw_reward"] == 0
