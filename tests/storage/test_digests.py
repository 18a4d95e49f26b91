from rpo_pipeline.params import SplitShares
from rpo_pipeline.storage.digests import model_fingerprint, named_content, path_digest, value_digest


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


def test_folders_that_parameters_name_are_known_by_their_content_at_every_depth(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer").mkdir()  # no file of a model
    named = {"name_or_path": str(tmp_path), "include_path": None}
    settings = {"labelers": [{"members": [named]}, {"name_or_path": "org/model"}, "rules"]}
    before = named_content(settings)
    assert before == {str(tmp_path): model_fingerprint(tmp_path)}
    (tmp_path / "README.md").write_text("A model.")
    assert named_content(settings) == before
    (tmp_path / "config.json").write_text("{ }")
    assert named_content(settings) != before
    assert named_content(settings, dict(before)) == before  # what is known is not read again
