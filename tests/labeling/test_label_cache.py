"""Labels are paid for once, by one process or by several, and outlive whatever ends a pass."""

import logging

import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.labeling.label_cache import CachedLabeler
from rpo_pipeline.labeling.labeling import build_labeler, label_responses
from tests.labeling.test_reward_model import save_reward_model


class CountingLabeler:
    """Gives the number of letters, none to the texts it keeps silent about, and remembers."""

    def __init__(self, fingerprint="letters", silent=()):
        self.name, self.fingerprint, self.silent, self.asked = "letters", fingerprint, silent, []

    def label(self, rows):
        self.asked += rows["response"].tolist()
        letters = rows["response"].map(len).where(~rows["response"].isin(self.silent), np.nan)
        return pd.DataFrame({"raw_reward": letters, "vowels": letters / 2})


def table(*responses):
    index = range(10, 10 + len(responses))  # not where a table starts by itself
    return pd.DataFrame({"prompt": "Hi", "response": list(responses)}, index=index)


def test_only_new_text_is_labelled_and_equal_text_once(tmp_path):
    labeler = CountingLabeler()
    cached = CachedLabeler(labeler, tmp_path)
    cached.label(table("a", "bb", "a"))
    labels = cached.label(table("ccc", "a", "bb"))
    assert labeler.asked == ["a", "bb", "ccc"]
    assert labels["raw_reward"].tolist() == [3, 1, 2]
    assert labels["vowels"].tolist() == [1.5, 0.5, 1.0]
    assert labels.index.tolist() == [10, 11, 12]


def test_a_labeler_with_another_fingerprint_is_asked_for_itself(tmp_path):
    CachedLabeler(CountingLabeler(), tmp_path).label(table("a"))
    other = CountingLabeler(fingerprint="letters of tomorrow")
    CachedLabeler(other, tmp_path).label(table("a"))
    assert other.asked == ["a"]


def test_a_row_without_an_answer_is_asked_for_again_and_only_that(tmp_path):
    for silent in (["bb"], []):
        labeler = CountingLabeler(silent=silent)
        labels = CachedLabeler(labeler, tmp_path).label(table("a", "bb"))
    assert labeler.asked == ["bb"]
    assert labels["raw_reward"].tolist() == [1, 2]


def test_a_killed_pass_keeps_its_finished_shards(tmp_path):
    class Dying(CountingLabeler):
        def label(self, rows):
            if self.asked:
                raise KeyboardInterrupt
            return super().label(rows)

    rows = table(*(f"text {number}" for number in range(300)))
    with pytest.raises(KeyboardInterrupt):
        CachedLabeler(Dying(), tmp_path).label(rows)
    labeler = CountingLabeler()
    CachedLabeler(labeler, tmp_path).label(rows)
    assert len(labeler.asked) == 300 - 256


def test_a_reward_model_is_not_loaded_where_all_labels_are_there(rows, tmp_path, monkeypatch):
    settings = save_reward_model(tmp_path / "model")
    texts = rows["prompt"].tolist(), rows["response"].tolist()
    first = label_responses(*texts, [settings], tmp_path / "cache")
    monkeypatch.delattr("rpo_pipeline.labeling.reward_model._load")
    again = label_responses(*texts, [settings], tmp_path / "cache")
    pd.testing.assert_frame_equal(first, again)


def shared(settings):
    return settings.model_copy(update={"num_processes": 2})


def test_two_processes_label_as_one_does_and_only_what_is_new(rows, tmp_path, caplog):
    settings = save_reward_model(tmp_path / "model")
    one = build_labeler(settings, tmp_path / "one").label(rows)["raw_reward"]
    build_labeler(settings, tmp_path / "two").label(rows.iloc[:2])
    with caplog.at_level(logging.INFO):
        two = build_labeler(shared(settings), tmp_path / "two").label(rows)["raw_reward"]
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)
    assert "nproc_per_node 2" in caplog.text
    assert "6 in the cache" in caplog.text
    shards = [pd.read_parquet(file) for file in (tmp_path / "two").glob("*/*.parquet")]
    assert sorted(map(len, shards)) == [2, 2, 2]
    caplog.clear()
    build_labeler(shared(settings), tmp_path / "two").label(rows)
    assert "starting" not in caplog.text
