import shutil
from pathlib import Path

import pytest

from rpo_pipeline.io import digests
from rpo_pipeline.io.digests import code_digest, path_digest, value_digest
from rpo_pipeline.params import SplitShares
from rpo_pipeline.pipelines.evaluation import nodes


def test_a_folder_is_known_by_the_names_and_contents_of_its_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/one").write_text("1")
    before = path_digest(tmp_path)
    assert path_digest(tmp_path) == before
    (tmp_path / "a/one").rename(tmp_path / "a/two")
    renamed = path_digest(tmp_path)
    (tmp_path / "a/two").write_text("2")
    assert len({before, renamed, path_digest(tmp_path)}) == 3


def test_what_is_not_there_has_no_digest(tmp_path):
    assert path_digest(tmp_path / "missing") is None


def test_parameters_are_known_by_their_values_in_any_order():
    block = SplitShares(train=0.7, validation=0.1, test=0.2)
    assert value_digest({"b": 1, "a": 2}) == value_digest({"a": 2, "b": 1})
    assert value_digest(block) == value_digest(block.model_dump())
    assert value_digest(block) != value_digest(block.model_copy(update={"test": 0.3}))


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        ("evaluation/report.py", True),
        ("evaluation/templates/report.html.j2", True),
        ("training/loop.py", False),
    ],
)
def test_the_code_of_a_node_is_what_it_reaches_and_nothing_else(
    tmp_path, monkeypatch, module, changes
):
    package = Path(shutil.copytree(digests.PACKAGE, tmp_path / "rpo_pipeline"))
    monkeypatch.setattr(digests, "PACKAGE", package)
    before = code_digest(nodes.render_report)
    with (package / module).open("a") as file:
        file.write("\n")
    assert (code_digest(nodes.render_report) != before) is changes
