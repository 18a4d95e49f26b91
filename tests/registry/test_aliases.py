"""Who is champion, in a real MLflow registry on SQLite."""

import json

import pytest

from rpo_pipeline.registry import aliases
from tests.registries import apply, decision, holders


@pytest.fixture
def settle(tracked, model_name, folder):
    """Applies a decision about a version."""

    def decide(challenger, gate, **changes):
        return apply(tracked, model_name, challenger, gate, folder, **changes)

    return decide


@pytest.fixture
def back(tracked, model_name, folder):
    """Rolls back."""
    return lambda: aliases.roll_back(tracked.describe(), model_name, folder, cause="it was rude")


def test_the_first_version_that_passes_becomes_champion_and_the_next_keeps_it_as_previous(
    client, model_name, challenge, settle
):
    first = challenge()
    assert settle(first, decision())["promoted"]
    assert holders(client, model_name) == {"champion": first}
    second = challenge()
    assert settle(second, decision(champion=first))["promoted"]
    assert holders(client, model_name) == {"champion": second, "previous": first}


def test_a_version_that_fails_stays_challenger_and_carries_the_decision_with_its_reasons(
    client, model_name, challenge, settle
):
    first = challenge()
    settle(first, decision())
    second = challenge()
    result = settle(second, decision(passed=False, champion=first, look=3))
    assert not result["promoted"]
    assert holders(client, model_name) == {"champion": first, "challenger": second}
    tags = client.get_model_version(model_name, second).tags
    assert (tags["gate"], tags["gate_champion"], tags["gate_look"]) == ("failed", first, "3")
    assert json.loads(tags["gate_decision"]) == result["gate"]
    assert "because of the numbers" in tags["promotion"]


def test_in_manual_mode_a_passing_version_stays_challenger_until_a_person_names_it(
    client, model_name, challenge, settle
):
    version = challenge()
    assert not settle(version, decision(), mode="manual")["promoted"]
    assert holders(client, model_name) == {"challenger": version}
    assert settle(version, decision(), mode="manual", version=int(version))["promoted"]
    assert holders(client, model_name) == {"champion": version}


def test_a_person_cannot_name_a_version_past_the_gate(challenge, settle):
    version = challenge()
    assert not settle(version, decision(passed=False), version=int(version))["promoted"]


def test_a_decision_about_another_champion_than_todays_is_not_applied(
    client, model_name, challenge, settle
):
    first = challenge()
    settle(first, decision())
    result = settle(challenge(), decision(champion=None))
    assert not result["promoted"]
    assert "evaluate again" in result["reason"]
    assert holders(client, model_name)["champion"] == first


def test_applying_a_decision_again_changes_nothing(client, model_name, challenge, settle):
    version = challenge()
    assert settle(version, decision())["promoted"]
    again = settle(version, decision())
    assert (again["promoted"], again["champion_after"]) == (False, version)
    assert client.get_model_version(model_name, version).tags["promotion"].startswith("promoted")


def test_promoting_an_older_version_leaves_the_newest_challenger_its_alias(
    client, model_name, challenge, settle
):
    older, newest = challenge(), challenge()
    assert settle(older, decision(), version=int(older))["promoted"]
    assert holders(client, model_name) == {"champion": older, "challenger": newest}


def test_a_version_that_lacks_a_required_artifact_is_not_promoted(challenge, settle):
    version = challenge()
    result = settle(version, decision(), required_artifacts=["checkpoint", "model_card.md"])
    assert not result["promoted"]
    assert "the version lacks model_card.md" in result["reason"]


def test_a_rollback_restores_the_previous_champion_and_a_second_one_changes_nothing(
    client, model_name, challenge, settle, back
):
    first = challenge()
    settle(first, decision())
    second = challenge()
    settle(second, decision(champion=first))
    done = back()
    assert (done["rolled_back"], done["champion_before"], done["champion_after"]) == (
        True,
        second,
        first,
    )
    assert "it was rude" in client.get_model_version(model_name, second).tags["rolled_back"]
    again = back()
    assert (again["rolled_back"], again["champion_after"]) == (False, first)
    assert "nothing was changed" in again["reason"]
    assert holders(client, model_name) == {"champion": first}


def test_an_interrupted_rollback_is_finished_by_the_next(
    client, model_name, challenge, settle, back
):
    first = challenge()
    settle(first, decision())
    client.set_registered_model_alias(model_name, "previous", first)
    assert not back()["rolled_back"]
    assert holders(client, model_name) == {"champion": first}


def test_without_a_champion_there_is_nothing_to_roll_back(challenge, back):
    challenge()
    assert "no champion" in back()["reason"]


def test_a_version_that_was_rolled_back_is_promoted_again_only_by_name(
    client, model_name, challenge, settle, back
):
    first = challenge()
    settle(first, decision())
    second = challenge()
    settle(second, decision(champion=first))
    back()
    refused = settle(second, decision(champion=first))
    assert not refused["promoted"]
    assert "it was rolled back" in refused["reason"]
    assert settle(second, decision(champion=first), version=int(second))["promoted"]
    assert "rolled_back" not in client.get_model_version(model_name, second).tags


def test_a_promotion_says_which_checks_were_waived(challenge, settle):
    gate = decision()
    gate.checks[0].update({"waived": True, "reason": "people rated 0 rows of the log"})
    reason = settle(challenge(), gate)["reason"]
    assert reason == "promoted over no champion; although people rated 0 rows of the log"
