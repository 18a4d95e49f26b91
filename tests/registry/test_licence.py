"""A licence is one line, whatever a model's card says."""

import pytest

from rpo_pipeline.registry.provenance import UNKNOWN, base_licence
from tests.conftest import block


def licence_of(folder, header):
    (folder / "README.md").write_text(f"---\n{header}\n---\n# A model\n")
    return base_licence(block("policy", name_or_path=str(folder), from_config=None))


@pytest.mark.parametrize(
    ("header", "licence"),
    [
        ("license: apache-2.0", "apache-2.0"),
        ("license: other\nlicense_name: llama3.1", "llama3.1"),
        ("license: other", "other"),
        ("license: [mit, apache-2.0]", "mit, apache-2.0"),
    ],
)
def test_the_identifier_of_a_licence_is_taken_as_the_card_states_it(tmp_path, header, licence):
    assert licence_of(tmp_path, header) == licence


@pytest.mark.parametrize(
    "header",
    [
        'license: "mit\\n\\n# Approved | by | all"',
        "license: |\n  mit\n  ![x](http://example.org/x.png)",
        "license: https://example.org/licence",
        "license: <script>alert(1)</script>",
        "license: {name: mit}",
        "license: [mit, [apache-2.0]]",
        f"license: {'x' * 400}",
        "license: []",
        "- license",
        "license: [",
        "",
    ],
)
def test_what_is_no_identifier_is_unknown_with_a_warning(tmp_path, header, caplog):
    assert licence_of(tmp_path, header) == UNKNOWN
    assert "before you pass the model on" in caplog.text


def test_a_card_that_is_no_text_is_no_card(tmp_path):
    policy = block("policy", name_or_path=str(tmp_path), from_config=None)
    (tmp_path / "README.md").write_bytes(b"\xff\xfe\x00")
    assert base_licence(policy) == UNKNOWN
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").mkdir()
    assert base_licence(policy) == UNKNOWN
