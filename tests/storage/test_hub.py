import time

import pytest
from huggingface_hub import constants

from rpo_pipeline.engine.loading import load_language_model
from rpo_pipeline.errors import ModelError
from rpo_pipeline.storage.hub import use_hub_or_cache
from tests.registries import free_port


@pytest.fixture
def dead_hub(monkeypatch):
    """Online, and nobody at the hub's address."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free_port()}")


@pytest.mark.usefixtures("dead_hub")
def test_a_dead_hub_is_given_up_soon_and_a_model_that_is_nowhere_is_named(caplog):
    started = time.monotonic()
    with pytest.raises(ModelError, match="cannot load a model from 'somebody/some-model'"):
        load_language_model("somebody/some-model")
    assert time.monotonic() - started < 10
    assert "only what is in its local cache is used" in caplog.text
    assert constants.HF_HUB_OFFLINE


@pytest.mark.usefixtures("dead_hub")
def test_no_hub_is_asked_for_a_directory(tmp_path):
    use_hub_or_cache(tmp_path)
    assert not constants.HF_HUB_OFFLINE
