"""A JSON file is cut into its elements whatever its layout, and a broken one costs no other."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_pipeline.ingestion.json_stream import ElementSplitter

RECORDS = [{"prompt": f'p{i}]}},{{"', "turns": [{"a": '"}, {"'}, []]} for i in range(40)]
LAYOUTS = {
    "one line": lambda texts: "[" + ", ".join(texts) + "]",
    "a line each": lambda texts: "[\n" + ",\n".join(texts) + "\n]",
    "no list": "\n".join,
}
BREAKS = {
    "a quote too few": lambda text: text.replace('"prompt"', '"prompt', 1),
    "a bracket too few": lambda text: text[:-1],
    "a bracket too many": lambda text: text + "}",
    "cut": lambda text: text[:12],
    "no JSON": lambda _: "nonsense",
}


def split(text, limit=10_000):
    return list(ElementSplitter(io.StringIO(text), limit))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("flaw", BREAKS)
def test_a_broken_element_costs_no_other(layout, flaw):
    texts = [json.dumps(record) for record in RECORDS]
    broken = [*texts[:20], BREAKS[flaw](texts[20]), *texts[21:]]
    found = [element.text for element in split(LAYOUTS[layout](broken))]
    assert [text for text in found if text in texts[:20] + texts[21:]] == texts[:20] + texts[21:]
    assert len(found) > len(texts) - 1


@pytest.mark.parametrize("indent", [None, 0, 2, "\t"])
def test_every_indentation_gives_the_same_elements_with_their_lines(indent):
    text = json.dumps(RECORDS, indent=indent)
    elements = split(text)
    assert [json.loads(element.text) for element in elements] == RECORDS
    lines = text.split("\n")
    for element in elements:
        assert element.text.split("\n")[0] in lines[element.line - 1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_of_an_element_over_the_limit_the_start_is_kept_and_the_next_is_found(layout):
    texts = [json.dumps(record) for record in RECORDS]
    texts[5] = '{"prompt": "' + "y" * 500_000
    elements = split(LAYOUTS[layout](texts), limit=100_000)
    assert [len(element.text) for element in elements if not element.is_whole] == [100_000]
    assert [element.text for element in elements if element.is_whole] == texts[:5] + texts[6:]


@given(st.text(alphabet='[]{},"\\: \n1aé'))
def test_no_character_vanishes_but_those_between_elements(text):
    found = "".join(element.text for element in split(text))
    between = str.maketrans("", "", " ,\n[]")
    assert found.translate(between) == text.translate(between)
