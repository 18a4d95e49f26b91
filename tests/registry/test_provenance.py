"""What a version says of where it comes from."""

import pandas as pd
import pytest

from rpo_pipeline.registry.provenance import base_licence, data_digest
from tests.conftest import block

FEEDBACK = pd.DataFrame(
    {"row_id": ["a", "b"], "split": ["train", "test"], "raw_reward": [1.0, None], "other": [1, 2]}
)


def policy(directory):
    return block("policy", name_or_path=str(directory), from_config=None)


def test_the_digest_of_the_data_is_of_its_content_and_not_of_its_order():
    assert data_digest(FEEDBACK) == data_digest(FEEDBACK[::-1].assign(other=0))
    for column in ("row_id", "split"):
        assert data_digest(FEEDBACK) != data_digest(FEEDBACK.assign(**{column: ["x", "y"]}))
    assert data_digest(FEEDBACK) != data_digest(FEEDBACK.assign(raw_reward=[1.0, 0.5]))


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\nHello", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: llama3\n---\n", "llama3"),
        ("---\ntags: [a]\n---\n", "unknown"),
        ("---\nlicense: [\n---\n", "unknown"),
        ("Just words.", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_licence_is_what_the_card_of_the_base_model_states(tmp_path, card, licence):
    if card:
        (tmp_path / "README.md").write_text(card)
    assert base_licence(policy(tmp_path)) == licence


def test_a_hub_model_that_cannot_be_reached_has_an_unknown_licence_and_says_so(caplog):
    assert base_licence(policy("nobody/no-such-model")) == "unknown"
    assert "no card states the licence of nobody/no-such-model" in caplog.text


def test_a_model_built_from_scratch_has_no_base_to_license():
    assert base_licence(block("policy")) == "none: no base model, built from scratch"
