"""Commands beside Kedro's, called as from a shell, and what they say of files they cannot use."""

import codecs

import pytest
from click.testing import CliRunner

from rpo_pipeline import erasure
from rpo_pipeline.cli import cli
from rpo_pipeline.erasure.prompts import Erasure

ID = "0a1b" * 8


def call(*arguments):
    return CliRunner().invoke(cli, [str(one) for one in arguments])


@pytest.fixture
def erased(monkeypatch):
    """What an erasure is asked for."""
    asked = set()

    def forget(ids, _):
        asked.update(ids)
        return Erasure()

    monkeypatch.setattr(erasure, "forget", forget)
    return asked


@pytest.mark.parametrize(
    "content",
    [
        ID.encode(),
        ID.upper().encode(),
        codecs.BOM_UTF8 + ID.encode(),
        f"{ID}\r\n".encode("utf-16"),
        codecs.BOM_UTF16_BE + ID.encode("utf-16-be"),
    ],
)
def test_a_list_of_prompts_is_read_as_editors_and_shells_write_it(erased, content, tmp_path):
    (tmp_path / "ids.txt").write_bytes(content)
    called = call("forget", "--file", tmp_path / "ids.txt")
    assert called.exit_code == 0, called.output
    assert erased == {ID}


def test_a_list_of_prompts_that_is_no_text_is_refused_by_name(erased, tmp_path):
    (tmp_path / "ids.txt").write_bytes(b"\xff\x00\x9c")
    called = call("forget", "--file", tmp_path / "ids.txt")
    assert called.exit_code == 2
    assert "ids.txt is no text in UTF-8" in called.output
    assert not erased


def test_an_export_is_of_the_environment_that_was_named(project, monkeypatch):
    monkeypatch.chdir(project)
    called = call("export", "--format", "trl_kto", "--output", "kto.jsonl", "--env", "smoke")
    assert called.exit_code == 1
    assert "there is no file" in called.output
    assert "data/smoke/03_primary/feedback.parquet" in called.output
