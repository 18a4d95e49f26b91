import ibis
import pandas as pd

from rpo_pipeline.ingestion.statistics import count_words, describe_data

FEEDBACK = pd.DataFrame(
    {
        "prompt_id": ["a", "a", "b", "c"],
        "prompt": ["my kettle leaks", "my kettle leaks", "my  lamp\nhums", "help"],
        "response": ["we are sorry", "no", "yes", "a new one"],
        "raw_reward": [1.0, None, -1.0, 0.5],
        "num_ratings": [2, 0, 1, 1],
        "reward_source": ["thumbs", None, "thumbs", "stars"],
        "split": ["train", "train", "test", "train"],
        "leaked": [False, False, True, False],
        "timestamp": pd.to_datetime(["2026-01-01", "2026-01-03", None, "2026-01-02"], utc=True),
        "model_version": ["v1", "v2", None, "v1"],
    }
)
SPLITS = FEEDBACK[["prompt_id", "split", "leaked"]].drop_duplicates()
CLUSTERS = pd.DataFrame({"prompt_id": ["a", "b", "c", "gone"], "cluster_id": ["a", "a", "c", "c"]})


def test_the_statistics_are_those_of_the_feedback():
    found = describe_data(*map(ibis.memtable, (FEEDBACK, SPLITS, CLUSTERS)))
    assert (found["rows"], found["prompts"], found["rated_share"]) == (4, 3, 0.75)
    assert found["responses_per_prompt"]["max"] == 2
    assert (found["prompt_words"]["min"], found["prompt_words"]["max"]) == (1, 3)
    assert found["rewards"]["thumbs"]["rows"] == 2
    assert (found["rewards"]["thumbs"]["ratings"], found["rewards"]["thumbs"]["mean"]) == (3, 0)
    assert found["splits"]["train"] == {"prompts": 2, "rows": 3, "rated": 2}
    assert found["near_duplicates"] == {
        "clusters": 1,
        "prompts": 2,
        "largest_cluster": 2,
        "leaked_prompts": 1,
    }
    assert found["timestamps"]["first"] == "2026-01-01T00:00:00+00:00"
    assert found["timestamps"]["last"] == "2026-01-03T00:00:00+00:00"
    assert found["model_versions"] == {"v1": {"rows": 2}, "v2": {"rows": 1}, "unknown": {"rows": 1}}


def test_words_are_what_stands_between_spaces_and_line_breaks():
    table = ibis.memtable(pd.DataFrame({"text": [" two\n words ", "one"]}))
    assert table.select(words=count_words(table.text)).execute()["words"].tolist() == [2, 1]
