"""Promotions and rollbacks that are killed between any two calls, in a real registry."""

import itertools

import pytest

from rpo_pipeline.registry import aliases
from rpo_pipeline.registry.moves import MOVE_TAG, find_standing
from tests.registries import apply, decision, holders
from tests.tracking.faults import Killed, KilledClient


@pytest.fixture
def stand(client, model_name, challenge):
    """Puts a first version before a second as champion, a third as challenger."""
    versions = [challenge() for _ in range(3)]

    def put():
        client.set_registered_model_alias(model_name, "champion", versions[1])
        client.set_registered_model_alias(model_name, "previous", versions[0])
        client.set_registered_model_alias(model_name, "challenger", versions[2])
        client.delete_model_version_tag(model_name, versions[1], "rolled_back")
        client.delete_model_version_tag(model_name, versions[2], "promotion")
        return versions

    return put


@pytest.fixture
def promote(tracked, model_name, folder):
    return lambda version, over: apply(
        tracked, model_name, version, decision(champion=over), folder
    )


@pytest.fixture
def back(tracked, model_name, folder):
    return lambda: aliases.roll_back(tracked.describe(), model_name, folder, cause="rude")


@pytest.fixture
def killed(monkeypatch):
    """Kills an action after so many calls; whether it came to its end before."""

    def kill(action, calls):
        with monkeypatch.context() as patch:
            patch.setattr(aliases, "MlflowClient", lambda uri: KilledClient(uri, calls=calls))
            try:
                action()
            except Killed:
                return True
        return False

    return kill


def test_a_promotion_that_is_killed_between_any_two_calls_is_finished_by_the_next(
    tracked, client, model_name, stand, promote, killed
):
    for calls in itertools.count():
        first, second, third = stand()
        at_work = killed(lambda third=third, second=second: promote(third, second), calls)
        seen = find_standing(tracked.describe(), model_name)
        assert (seen.champion, seen.previous) in {(second, first), (third, second)}
        again = promote(third, second)
        assert (again["promoted"], again["champion_before"]) == (
            (True, second) if at_work else (False, third)
        )
        assert holders(client, model_name) == {"champion": third, "previous": second}
        tags = client.get_model_version(model_name, third).tags
        assert tags["promotion"] == f"promoted over {second}"
        assert MOVE_TAG not in client.get_registered_model(model_name).tags
        if not at_work:
            break
    assert calls > 12


def test_a_rollback_after_a_killed_promotion_undoes_what_could_be_seen_and_loses_no_previous(
    tracked, client, model_name, stand, promote, back, killed
):
    for calls in itertools.count():
        first, second, third = stand()
        at_work = killed(lambda third=third, second=second: promote(third, second), calls)
        seen = find_standing(tracked.describe(), model_name).champion
        done = back()
        assert (done["champion_before"], done["champion_after"]) == (
            (third, second) if seen == third else (second, first)
        )
        assert holders(client, model_name)["champion"] == done["champion_after"]
        assert "previous" not in holders(client, model_name)
        if not at_work:
            break


def test_a_rollback_that_is_killed_between_any_two_calls_is_finished_and_goes_no_step_further(
    client, model_name, stand, back, killed
):
    for calls in itertools.count():
        first, second, _ = stand()
        at_work = killed(back, calls)
        again = back()
        assert again["rolled_back"] == at_work
        assert holders(client, model_name)["champion"] == first
        assert "previous" not in holders(client, model_name)
        assert "rude" in client.get_model_version(model_name, second).tags["rolled_back"]
        assert MOVE_TAG not in client.get_registered_model(model_name).tags
        if not at_work:
            break
    assert calls > 6


def test_a_promotion_after_a_killed_rollback_stands_over_the_champion_that_can_be_seen(
    tracked, client, model_name, stand, promote, back, killed
):
    for calls in itertools.count():
        _, _, third = stand()
        at_work = killed(back, calls)
        seen = find_standing(tracked.describe(), model_name).champion
        assert promote(third, seen)["promoted"]
        assert holders(client, model_name) == {"champion": third, "previous": seen}
        if not at_work:
            break


def test_a_version_that_was_deleted_in_the_middle_of_a_move_holds_up_nothing(
    client, model_name, challenge, promote, killed
):
    leaving, entering = challenge(), challenge()
    promote(leaving, None)
    for calls in itertools.count():
        killed(lambda: promote(entering, leaving), calls)
        if holders(client, model_name)["champion"] == entering:
            break
    client.delete_model_version(model_name, leaving)
    assert promote(entering, leaving)["promoted"]
    assert holders(client, model_name) == {"champion": entering}


def test_a_tag_that_tells_of_no_move_is_dropped(client, model_name, stand, promote, caplog):
    _, second, third = stand()
    client.set_registered_model_tag(model_name, MOVE_TAG, "[1")
    assert promote(third, second)["promoted"]
    assert "tells of no move" in caplog.text
    assert MOVE_TAG not in client.get_registered_model(model_name).tags
