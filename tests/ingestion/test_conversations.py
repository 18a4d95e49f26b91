"""Turns of one conversation, which become prompts of their own, stay on one side of the split."""

import random

import ibis
import pyarrow as pa
import pytest

from rpo_pipeline.ingestion.near_duplicates import cluster_prompts
from rpo_pipeline.ingestion.parts import rows_of_record
from rpo_pipeline.ingestion.records import Record
from rpo_pipeline.ingestion.rows import ROW_SCHEMA, prompt_key
from rpo_pipeline.ingestion.splits import assign_splits
from rpo_pipeline.params import NearDuplicateParams, SourceParams, SplitShares

SHARES = SplitShares(train=0.5, validation=0.1, test=0.4)
CHATS = SourceParams(path="log.jsonl", format="messages")


def words(seed):
    draw = random.Random(str(seed))
    return " ".join(f"word{draw.randrange(3000)}" for _ in range(20))


def conversation(number, turns=4):
    """Every turn of the assistant is rated."""
    return {
        "messages": [
            message
            for turn in range(turns)
            for message in (
                {"role": "user", "content": words((number, turn))},
                {"role": "assistant", "content": words((number, turn, "answer")), "reward": 1},
            )
        ]
    }


def table(*records, source=CHATS):
    rows = [row for record in records for row in rows_of_record(Record(1, "", record), source)]
    placed = [{**row, "origin": "log.jsonl:1", "position": i} for i, row in enumerate(rows)]
    return ibis.memtable(pa.Table.from_pylist(placed, schema=ROW_SCHEMA))


def split(rows, previous=None, near_duplicates=None, **options):
    clusters = cluster_prompts(rows, None, near_duplicates)
    given = assign_splits(rows, clusters, previous, SHARES, **options)
    return given.to_pyarrow().to_pandas().set_index("prompt_id")


@pytest.mark.parametrize("near_duplicates", [None, NearDuplicateParams(threshold=0.8)])
def test_all_prompts_of_a_conversation_are_in_one_split(near_duplicates):
    records = [conversation(number) for number in range(40)]
    given = split(table(*records), near_duplicates=near_duplicates)
    by_conversation = given["split"].groupby(given["conversation"].fillna(given.index.to_series()))
    assert len(by_conversation) == 40
    assert (by_conversation.nunique() == 1).all()
    assert given["split"].nunique() > 1


def test_another_system_message_and_a_plain_first_turn_make_no_other_conversation():
    system = {"role": "system", "content": "It is Monday."}
    chat = conversation(0)["messages"]
    rows = table({"messages": chat}, {"messages": [system, *chat]})
    conversations = set(rows.conversation.to_pyarrow().to_pylist())
    assert conversations == {None, prompt_key(chat[0]["content"])}


def test_a_dialogue_that_is_one_text_begins_where_its_first_turn_does():
    dialogue = SourceParams(path="log.jsonl", format="flat")
    start = "\n\nHuman: Why?\n\nAssistant:"
    longer = f"{start} So.\n\nHuman: And?\n\nAssistant:"
    rows = table(*({"prompt": p, "response": "x"} for p in (start, longer)), source=dialogue)
    assert rows.conversation.nunique().execute() == 1


def test_a_near_duplicate_of_one_turn_joins_the_whole_conversation():
    chat = conversation(0)["messages"]
    other = conversation(1)["messages"]
    like = {"role": "user", "content": f"Well, {chat[0]['content']}"}
    rows = table(
        {"messages": chat},
        {"messages": [like, *other[1:]]},
        *(conversation(number) for number in range(2, 30)),
    )
    given = split(rows, near_duplicates=NearDuplicateParams(threshold=0.8))
    beginnings = [prompt_key(turn["content"]) for turn in (chat[0], like)]
    of_both = given[given["conversation"].isin(beginnings)]
    assert of_both["conversation"].nunique() == 2
    assert of_both["split"].nunique() == 1


def test_splits_given_before_stay_and_later_turns_in_test_are_leaked():
    records = [conversation(number, turns=1 + 2 * (number % 2)) for number in range(40)]
    rows = table(*records)
    old = split(rows, by_conversation=False)
    apart = old["split"].groupby(old["conversation"].fillna(old.index.to_series())).nunique()
    assert (apart > 1).any()
    previous = ibis.memtable(old.reset_index()[["prompt_id", "split", "leaked"]])
    now = split(rows, previous).loc[old.index]
    assert (now["split"] == old["split"]).all()
    conversations = now["conversation"].fillna(now.index.to_series())
    with_train = set(conversations[now["split"] == "train"])
    expected = (now["split"] == "test") & conversations.isin(with_train)
    assert expected.any()
    assert now["leaked"][expected].all()


def test_a_turn_that_arrives_later_takes_the_split_of_its_conversation():
    first = table(*(conversation(number, turns=1) for number in range(40)))
    before = split(first)
    whole = table(*(conversation(number) for number in range(40)))
    now = split(whole, ibis.memtable(before.reset_index()))
    own = now["conversation"].fillna(now.index.to_series())
    assert (now["split"] == own.map(before["split"])).all()
    assert not now["leaked"].any()


def test_a_greeting_that_opens_all_conversations_is_warned_of_and_need_not_count(caplog):
    hello = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    chats = [{"messages": [*hello, *conversation(number)["messages"]]} for number in range(30)]
    rows = table(*chats, *(conversation(number, turns=1) for number in range(30, 60)))
    split(rows)
    assert "conversations that begin alike and share a split" in caplog.text
    of_chats = split(rows, by_conversation=False).dropna(subset="conversation")
    assert of_chats["split"].nunique() > 1
