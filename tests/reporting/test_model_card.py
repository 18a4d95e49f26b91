"""The card says what is known, and what is not."""

import pytest
from huggingface_hub import ModelCard

from rpo_pipeline.records import Summary
from rpo_pipeline.registry.gate import decide
from rpo_pipeline.registry.provenance import resolved_parameters
from rpo_pipeline.reporting.model_card import render_model_card
from tests.conftest import block, raw_parameters
from tests.registry.test_gate import evaluation, gate, promotion

SPLIT = {"prompts": 300, "rows": 1316, "rated": 643}


@pytest.fixture
def facts():
    numbers = evaluation((0.1, 0.3))
    return {
        "summary": Summary(**vars(numbers), gate=decide(numbers, promotion(gate()))),
        "row_account": {
            "read": 1799,
            "kept": 1744,
            "quarantined": 35,
            "exact_duplicates": 20,
            "merged": 0,
        },
        "statistics": {
            "prompts": 400,
            "rated_share": 0.49,
            "timestamps": {"first": None, "last": None},
            "splits": {"train": SPLIT},
        },
        "training_summary": {"num_steps": 150, "best_step": 105, "best_validation_loss": None},
        "partition_health": {"tau": 2.0, "estimator": "monte_carlo", "logp_reduction": "mean"},
        "provenance": {
            "data_digest": "d1",
            "reference_fingerprint": "f1",
            "base_model": "team/base",
            "base_revision": None,
            "base_licence": "unknown",
        },
        "parameters": resolved_parameters({**raw_parameters(), "rpo": block("rpo")}),
    }


def test_the_card_holds_numbers_with_intervals_data_and_origin(facts):
    card = render_model_card(**facts)
    assert "| reward_mean | 0.7 (0.5 to 0.9) | - | - | 0.2 (0.1 to 0.3) |" in card
    assert "1799 rows were read: 1744 kept, 35 quarantined, 20 exact duplicates" in card
    assert "| train | 300 | 1316 | 643 |" in card
    assert "`d1`" in card
    assert "`f1`" in card
    assert "- yes: lower end of the 95 % interval of the difference in reward_mean" in card


def test_a_chosen_tau_is_in_the_card_with_how_it_came_about(facts):
    facts["parameters"]["rpo"]["tau"] = "auto"
    facts["partition_health"]["tau"] = 0.25
    card = render_model_card(**facts)
    assert "tau 0.25, chosen on validation prompts, estimator\n`monte_carlo`" in card


def test_the_card_names_its_limits(facts):
    card = render_model_card(**facts)
    for limit in (
        "not from people",
        "51 % of the rows were not rated",
        "50 test prompts are few",
        "The licence of the base model is unknown.",
        "also labelled training rows",
    ):
        assert limit in card


@pytest.mark.parametrize(("licence", "stated"), [("mit", "mit"), ("unknown", None)])
def test_hubs_can_read_its_metadata_and_an_unknown_licence_is_not_stated(facts, licence, stated):
    facts["provenance"]["base_licence"] = licence
    metadata = ModelCard(render_model_card(**facts)).data
    assert metadata.license == stated
    assert metadata.base_model == "team/base"
