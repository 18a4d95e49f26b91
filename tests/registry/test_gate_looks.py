"""How looks at a champion are numbered, in a real MLflow registry on SQLite."""

import pytest

from rpo_pipeline.registry.gate_looks import take_look
from tests.registries import apply, decision


@pytest.fixture
def look(tracked, model_name):
    """Takes a look at numbers that differ by their seed."""

    def take(seed, champion="3"):
        return take_look(tracked.describe(), model_name, champion, {"value": 0.1, "seed": seed})

    return take


def test_every_new_set_of_numbers_is_a_new_look_and_the_same_numbers_are_the_same(look):
    assert [look(seed) for seed in (0, 1, 2)] == [1, 2, 3]
    assert [look(seed) for seed in (0, 2, 1, 3)] == [1, 3, 2, 4]


def test_another_champion_starts_at_1_and_an_earlier_one_goes_on_where_it_was(look):
    assert [look(0), look(1), look(1, "4"), look(2)] == [1, 2, 1, 3]
    assert look(0, None) == 1


def test_looks_outlive_the_versions_that_they_were_of(look, client, model_name, challenge):
    assert look(0) == 1
    client.delete_model_version(model_name, challenge())
    assert look(1) == 2


def test_looks_that_an_earlier_release_kept_on_versions_count(
    look, tracked, model_name, challenge, folder
):
    apply(tracked, model_name, challenge(), decision(passed=False, champion="3", look=5), folder)
    assert look(0) == 6
    assert look(0, None) == 1
