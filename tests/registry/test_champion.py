import time

import pytest

from rpo_pipeline.errors import RegistryError
from rpo_pipeline.records import RunAddress
from rpo_pipeline.registry.moves import Standing, find_standing


def test_champion_and_previous_are_found_with_the_champions_age(client, tracked, monkeypatch):
    assert find_standing(tracked.describe(), "desk") == Standing(None, None)
    client.create_registered_model("desk")
    assert find_standing(tracked.describe(), "desk") == Standing(None, None)
    versions = [client.create_model_version("desk", "file:///nowhere") for _ in range(2)]
    client.set_registered_model_alias("desk", "champion", versions[1].version)
    found = find_standing(tracked.describe(), "desk")
    assert (found.champion, found.previous) == ("2", None)
    client.set_registered_model_alias("desk", "previous", versions[0].version)
    registered = versions[1].creation_timestamp / 1000
    for now, age in ((registered + 2 * 86_400, 2.0), (registered - 86_400, 0.0)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        found = find_standing(tracked.describe(), "desk")
        assert found.previous == "1"
        assert found.age_days == pytest.approx(age)


def test_a_registry_that_does_not_answer_is_an_error_for_people():
    started = time.monotonic()
    nowhere = RunAddress("http://127.0.0.1:1")
    with pytest.raises(RegistryError, match="cannot be reached"):
        find_standing(nowhere, "desk")
    assert time.monotonic() - started < 5  # not MLflow's patience, which is minutes
