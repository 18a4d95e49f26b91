"""What a promotion uses up."""

from rpo_pipeline.pipelines.promotion.nodes import note_consumed
from tests.conftest import block

PARTS = [{"path": "a.jsonl"}]


def test_a_run_uses_up_its_sources_and_the_promotion_of_an_older_version_uses_up_none():
    before = note_consumed(PARTS, {"version": "8"}, None, block("promotion"))
    assert before == {"version": "8", "parts": PARTS}
    named = block("promotion", version=7)
    more = [*PARTS, {"path": "b.jsonl"}]
    assert note_consumed(more, {"version": "7"}, before, named) == before
    assert note_consumed(more, {"version": "7"}, None, named)["parts"] == []
