"""Which weights lie in the champion's folder, and champions that cannot be measured against."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.registry import client as registry
from rpo_pipeline.storage.digests import model_fingerprint
from tests.conftest import build_small
from tests.registries import register, tracked_run


@pytest.fixture(scope="module")
def another(folder):
    """A checkpoint with other weights."""
    build_small("llama", seed=1).save(folder / "another")
    return folder / "another"


@pytest.fixture
def champion(tracked, client, model_name, checkpoint):
    """A version that is champion."""
    version = register(tracked, model_name, checkpoint)
    client.set_registered_model_alias(model_name, "champion", version)
    return client.get_model_version(model_name, version)


def kept(client, champion) -> Path:
    """Where the store of artifacts keeps a version's checkpoint."""
    model = client.get_logged_model(champion.source.removeprefix("models:/"))
    return Path(urlsplit(model.artifact_location).path, "artifacts", "checkpoint")


def test_two_registered_models_that_share_a_data_folder_get_their_own_weights(
    tracked, client, model_name, champion, checkpoint, another, tmp_path
):
    other = f"{model_name}-other"
    version = register(tracked, other, another)
    client.set_registered_model_alias(other, "champion", version)
    found = [
        registry.fetch_champion(tracked.describe(), name, tmp_path) for name in (model_name, other)
    ]
    assert [one.version for one in found] == [str(champion.version), version]
    assert champion.version == int(version)
    prints = [model_fingerprint(one.path) for one in found]
    assert prints == [model_fingerprint(checkpoint), model_fingerprint(another)]


@pytest.mark.usefixtures("champion")
def test_the_same_version_number_on_another_server_is_another_champion(
    tracked, model_name, another, tmp_path
):
    mine = registry.fetch_champion(tracked.describe(), model_name, tmp_path)
    elsewhere = tracked_run(tmp_path / "elsewhere")
    version = register(elsewhere, model_name, another)
    registry.MlflowClient(elsewhere.tracking_uri).set_registered_model_alias(
        model_name, "champion", version
    )
    theirs = registry.fetch_champion(elsewhere.describe(), model_name, tmp_path)
    assert mine.version == theirs.version
    assert model_fingerprint(theirs.path) == model_fingerprint(another)


def test_a_folder_that_was_damaged_is_fetched_again_and_a_damaged_artifact_is_named(
    tracked, client, model_name, champion, checkpoint, tmp_path
):
    fetched = registry.fetch_champion(tracked.describe(), model_name, tmp_path).path
    (fetched / "model.safetensors").write_bytes(b"")
    again = registry.fetch_champion(tracked.describe(), model_name, tmp_path)
    assert model_fingerprint(again.path) == model_fingerprint(checkpoint)
    (kept(client, champion) / "config.json").write_text("{}")
    shutil.rmtree(fetched)
    with pytest.raises(RegistryError, match=r"changed or damaged.*pipelines rollback"):
        registry.fetch_champion(tracked.describe(), model_name, tmp_path)


def test_a_champion_whose_checkpoint_is_gone_is_named_before_any_work(
    tracked, client, model_name, champion
):
    registry.require_champion(tracked.describe(), model_name)
    registry.require_champion(tracked.describe(), "no such model")
    shutil.rmtree(kept(client, champion))
    with pytest.raises(RegistryError, match="its champion, cannot be had"):
        registry.require_champion(tracked.describe(), model_name)


@pytest.mark.usefixtures("champion")
def test_a_version_of_another_tool_is_not_taken_for_ours(tracked, client, model_name, tmp_path):
    theirs = client.create_model_version(model_name, "s3://bucket/model", tags={"gate_look": "?"})
    registry.require_champion(tracked.describe(), model_name)
    client.set_registered_model_alias(model_name, "champion", theirs.version)
    for ask in (
        lambda: registry.require_champion(tracked.describe(), model_name),
        lambda: registry.fetch_champion(tracked.describe(), model_name, tmp_path),
    ):
        with pytest.raises(RegistryError, match=r"version 2 .* was not registered by this project"):
            ask()
