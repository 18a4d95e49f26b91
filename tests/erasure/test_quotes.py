import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from rpo_pipeline.erasure.quotes import Quotes
from rpo_pipeline.ingestion.chats import write_prompt
from rpo_pipeline.ingestion.rows import prompt_key

PROMPT = 'My "kettle" & pot,\nnumber 7, leaks since yesterday at noon, help!'
CHAT = write_prompt(
    [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "My kettle leaks."}]
)


def quotes(*prompts):
    return Quotes({prompt_key(prompt) for prompt in prompts}, set(prompts))


@given(st.text(min_size=1), st.text())
def test_a_prompt_is_found_however_a_file_spells_it(prompt, around):
    found = quotes(prompt)
    for spelled in (prompt, str(escape(prompt)), json.dumps(prompt), prompt.replace('"', '""')):
        assert found.in_text(f"{around}{spelled}{around}")


def test_a_chat_is_found_by_all_of_its_messages():
    found = quotes(CHAT)
    assert found.in_text("<p>system: Be kind.</p><p>user: My kettle leaks.</p>")
    assert not found.in_text("system: Be kind. user: My pot leaks.")


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps({"prompt": PROMPT, "response": ""}),
        json.dumps({"log": [{"q": PROMPT}]}),
        json.dumps({"prompt": PROMPT})[:-20],
        PROMPT.replace('"', '""') + ",Hi,9",
    ],
)
def test_a_record_of_the_prompt_is_known_readable_or_not(raw):
    assert quotes(PROMPT).in_record(raw)


def test_a_readable_record_is_known_by_the_hash_alone_and_not_by_a_part_of_another_prompt():
    assert Quotes({prompt_key("Hi")}, set()).in_record('{"prompt": "Hi"}')
    assert not quotes("Hi").in_record('{"prompt": "Hi there", "response": "\\ud800"}')
    assert quotes(CHAT).in_record(json.dumps({"messages": json.loads(CHAT)}))
