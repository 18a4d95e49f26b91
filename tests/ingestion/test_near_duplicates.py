"""Near-duplicate prompts: which are, what cluster and split they get, and that none leaks."""

import random

import ibis
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion.chats import write_prompt
from rpo_pipeline.ingestion.near_duplicates import cluster_prompts, shingles, sign_prompts
from rpo_pipeline.ingestion.rows import ROW_SCHEMA, parse_record
from rpo_pipeline.ingestion.sample_data import write_sample_data
from rpo_pipeline.ingestion.splits import assign_splits, check_leakage
from rpo_pipeline.params import NearDuplicateParams, SourceParams, SplitShares
from tests.conftest import block, read_log

SOURCE = SourceParams(path="log.jsonl")
SHARES = SplitShares(train=0.6, validation=0.1, test=0.3)
SETTINGS = NearDuplicateParams(threshold=0.8)
WORDS = "kettle lamp oven fridge printer leaks hums stopped today again please help me now".split()


def text(seed, changed=0):
    """Thirty words; versions of one text differ in the first words only."""
    draw = random.Random(seed)
    words = [draw.choice(WORDS) + str(draw.randrange(99)) for _ in range(30)]
    return " ".join([f"greeting{changed}", *words[1:]])


def table(prompts):
    rows = [
        {
            **parse_record({"prompt": prompt, "response": "ok"}, SOURCE),
            "origin": f"log.jsonl:{i + 1}",
            "position": i,
        }
        for i, prompt in enumerate(prompts)
    ]
    return ibis.memtable(pa.Table.from_pylist(rows, schema=ROW_SCHEMA))


def frame(expression):
    return expression.to_pyarrow().to_pandas()


class Log:
    """A project whose log grows: clusters and splits go from one batch to the next."""

    def __init__(self):
        self.clusters = self.splits = None

    def add(self, prompts):
        rows = table(prompts)
        self.clusters = ibis.memtable(cluster_prompts(rows, self.clusters, SETTINGS).to_pyarrow())
        splits = assign_splits(rows, self.clusters, self.splits, SHARES)
        check_leakage(splits, self.clusters, SETTINGS.threshold)
        self.splits = ibis.memtable(splits.to_pyarrow())
        return self

    def split_of(self):
        prompt_ids = frame(self.splits).set_index("prompt_id")
        return prompt_ids["split"].to_dict(), prompt_ids["leaked"].to_dict()

    def cluster_of(self):
        return frame(self.clusters).set_index("prompt_id")["cluster_id"].to_dict()


def prompt_id(prompt):
    return frame(table([prompt]))["prompt_id"].iloc[0]


FILLER = [text(f"filler {i}") for i in range(40)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("My kettle leaks, what now?", "  my KETTLE leaks -- what now"),
        ("My kettle leaks", "My\tkettle\nleaks!"),
        ("\ufb01le \u2116 \uff11\uff12", "file No 12"),
        ("\u58ca\u308c\u305f", "\u58ca\u308c\u305f\u3002"),
    ],
)
def test_case_punctuation_spaces_and_letter_forms_make_no_difference(one, other):
    assert shingles(one) == shingles(other)


def test_a_number_makes_a_difference_and_so_does_one_word_of_a_short_prompt():
    assert shingles("What is 12 + 5?") != shingles("What is 13 + 5?")
    ids = cluster_prompts(table(["My kettle leaks now", "My lamp leaks now"]), None, SETTINGS)
    assert frame(ids)["cluster_id"].nunique() == 2


def test_prompts_without_a_word_are_told_apart():
    assert shingles("???") == ["???"]
    assert shingles("!!!") != shingles("???")


def test_the_estimated_similarity_is_near_the_true_one():
    one, other = text("a", 0), text("a", 1)
    sets = [set(shingles(prompt)) for prompt in (one, other)]
    true = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    signatures = sign_prompts([one, other])
    assert (signatures[0] == signatures[1]).mean() == pytest.approx(true, abs=0.1)


def test_near_duplicates_are_one_cluster_and_known_prompts_are_not_signed_again():
    first = Log().add([*FILLER, text("a", 0)])
    before = frame(first.clusters).set_index("prompt_id")
    after = frame(first.add([*FILLER, text("a", 1)]).clusters).set_index("prompt_id")
    assert after.loc[before.index].equals(before)
    assert after["cluster_id"].nunique() == len(after) - 1


def test_a_new_near_duplicate_inherits_the_split_of_its_cluster():
    founders = [text(i, 0) for i in range(20)]
    log = Log().add([*FILLER, *founders])
    log.add([text(i, 1) for i in range(20)])
    splits, leaked = log.split_of()
    for i in range(20):
        assert splits[prompt_id(text(i, 1))] == splits[prompt_id(text(i, 0))]
    assert set(splits.values()) == {"train", "validation", "test"}
    assert not any(leaked.values())


def chain(seed):
    """Three prompts of 60 words, of which the outer two are no near-duplicates of each other."""
    middle = f"{text(f'{seed} 1')} {text(f'{seed} 2')}".split()
    left = ["other", "opening", "words", "here", *middle[4:]]
    right = [*middle[:-4], "other", "closing", "words", "there"]
    return [" ".join(words) for words in (left, middle, right)]


def test_a_prompt_between_train_and_test_goes_to_train_and_its_test_twins_are_flagged():
    chains = [chain(seed) for seed in range(20)]
    log = Log().add([*FILLER, *(end for left, _, right in chains for end in (left, right))])
    before, leaked = log.split_of()
    assert not any(leaked.values())
    after, leaked = log.add([middle for _, middle, _ in chains]).split_of()
    bridged = [ids for ids in (list(map(prompt_id, one)) for one in chains)
               if {before[ids[0]], before[ids[2]]} == {"train", "test"}]  # fmt: skip
    assert bridged
    for left, middle, right in bridged:
        assert after[middle] == "train"
        twin = left if before[left] == "test" else right
        assert (after[twin], leaked[twin]) == ("test", True)


def test_near_duplicates_on_both_sides_are_an_error_that_names_them():
    log = Log().add([*FILLER, text("a", 0), text("a", 1)])
    given = frame(log.splits)
    given["split"], given["leaked"] = "train", False
    given.loc[given["prompt_id"] == prompt_id(text("a", 1)), "split"] = "test"
    with pytest.raises(DataError, match=f"1 pairs .*{prompt_id(text('a', 1))}"):
        check_leakage(ibis.memtable(given), log.clusters, SETTINGS.threshold)


versions = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 3)), min_size=1, max_size=20, unique=True
)


@settings(max_examples=5)
@given(batches=st.lists(versions, min_size=1, max_size=3))
def test_splits_never_change_and_no_near_duplicate_leaks_whatever_arrives(batches):
    log = Log().add(FILLER)  # check_leakage is part of every batch
    for batch in batches:
        before, _ = log.split_of()
        log.add([text(*version) for version in batch])
        after, _ = log.split_of()
        assert {prompt: after[prompt] for prompt in before} == before


@settings(max_examples=5)
@given(batch=versions, shuffled=st.randoms())
def test_the_order_of_rows_in_a_batch_makes_no_difference(batch, shuffled):
    prompts = [*FILLER, *(text(*version) for version in batch)]
    one = Log().add(prompts)
    shuffled.shuffle(prompts)
    other = Log().add(prompts)
    assert one.split_of() == other.split_of()
    assert one.cluster_of() == other.cluster_of()


def test_a_bucket_that_is_full_of_near_duplicates_is_one_cluster():
    prompts = [text("same", version) for version in range(200)]
    log = Log().add([*FILLER, *prompts])
    assert len(set(log.cluster_of().values())) == len(FILLER) + 1


def test_tickets_of_the_sample_log_stay_apart(tmp_path):
    path = tmp_path / "log.jsonl"
    write_sample_data(path, None, seed=0)
    ingestion = block("ingestion")
    source = ingestion.sources[0].model_copy(update={"path": str(path)})
    rows, _ = read_log(source, folder=tmp_path / "parts")
    rows = ibis.memtable(rows)
    clusters = cluster_prompts(rows, None, ingestion.near_duplicates)
    assert frame(clusters)["cluster_id"].nunique() >= 395  # of 400 prompts
    splits = assign_splits(rows, clusters, None, ingestion.split_shares)
    shares = pd.Series(frame(splits)["split"]).value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.7, abs=0.06)
    assert shares["test"] == pytest.approx(0.2, abs=0.06)


def test_chats_that_share_a_long_system_message_are_told_apart_by_their_turns():
    system = {"role": "system", "content": text(0) * 10}
    chats = [write_prompt([system, {"role": "user", "content": text(seed)}]) for seed in (1, 2)]
    assert frame(cluster_prompts(table(chats), None, SETTINGS))["cluster_id"].nunique() == 2


def test_a_template_that_makes_all_prompts_alike_is_warned_of(caplog):
    prompts = [f"{text(0)} {text(0)} {number}" for number in range(30)]
    cluster_prompts(table(prompts), None, SETTINGS)
    assert "30 of 30 prompts are near-duplicates" in caplog.text


def test_a_leaked_prompt_stays_so_when_its_twins_are_gone():
    rows = table(["a", "b", *map(str, range(40))])
    clusters = cluster_prompts(rows, None, SETTINGS)
    splits = frame(assign_splits(rows, clusters, None, SHARES))
    first = splits.loc[splits["split"] == "test", "prompt_id"].iloc[0]
    flagged = splits.assign(leaked=splits["prompt_id"] == first)
    again = frame(assign_splits(rows, clusters, ibis.memtable(flagged), SHARES))
    assert again.loc[again["leaked"], "prompt_id"].tolist() == [first]


def test_signatures_of_another_version_are_made_again_and_clusters_keep_their_names(caplog):
    log = Log()
    log.add([text(seed) for seed in range(20)])
    before = frame(log.clusters).set_index("prompt_id")
    old = frame(log.clusters)
    old["signature"] = [bytes(255 - byte for byte in signature) for signature in old["signature"]]
    log.clusters = ibis.memtable(old)
    log.add([text(seed) for seed in range(20)] + [text(3, changed=1)])
    after = frame(log.clusters).set_index("prompt_id")
    assert "signatures of 20 prompts are of another version" in caplog.text
    assert after["signature"][before.index].equals(before["signature"])
    assert after["cluster_id"][before.index].equals(before["cluster_id"])
    assert set(after["cluster_id"]) == set(before["cluster_id"])


def test_signatures_that_hold_are_kept_without_a_word(caplog):
    log = Log()
    for _ in range(2):
        log.add([text(seed) for seed in range(20)])
    assert "another version" not in caplog.text
