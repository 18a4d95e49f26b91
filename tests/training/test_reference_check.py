"""Before its first step the policy is the reference: what is cached must say the same."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from rpo_pipeline.errors import StaleReferenceError
from rpo_pipeline.training.objectives import DroObjective, SftObjective
from rpo_pipeline.training.reference_check import check_reference
from tests.conftest import build_small
from tests.training.test_policy import joined, learn, reference  # noqa: F401 (fixtures)
from tests.training.test_step import groups_of, kto_objective, rpo_objective, trainee


@pytest.fixture
def made(language_model, rows):
    groups = groups_of(language_model, rows)
    return trainee(language_model, rpo_objective(language_model, groups)), groups


def shifted(made, nats_a_token, rows=slice(None)):
    """The same, its cache off by so many nats a token in some rows."""
    trainee, groups = made
    num_tokens = torch.tensor([float(len(ids)) for g in groups for ids in g.responses])
    ref_logps = trainee.objective.ref_logps.clone()
    ref_logps[rows] += nats_a_token * num_tokens[rows]
    return replace(trainee, objective=replace(trainee.objective, ref_logps=ref_logps))


def test_what_the_start_itself_scored_passes(made):
    check_reference(*made)


@pytest.mark.parametrize("nats", [1.0, -1.0, 0.01])
def test_a_cache_that_other_code_computed_is_refused(made, nats):
    with pytest.raises(StaleReferenceError, match=r"6 of 6 responses are not as likely"):
        check_reference(shifted(made, nats), made[1])


def test_one_stale_row_among_many_is_enough(made):
    with pytest.raises(StaleReferenceError, match=r"1 of 6 responses .* log-ratio of -"):
        check_reference(shifted(made, 1.0, slice(3, 4)), made[1])


def test_a_tie_that_rounding_decides_otherwise_in_one_row_of_many_passes(rows):
    many = [
        rows.assign(prompt=rows["prompt"] + str(i), prompt_id=rows["prompt_id"] + str(i))
        for i in range(4)
    ]
    language_model = build_small("llama")
    groups = groups_of(language_model, pd.concat(many, ignore_index=True))
    made = trainee(language_model, rpo_objective(language_model, groups, [0.0] * 24)), groups
    check_reference(shifted(made, 0.1, slice(3, 4)), groups)
    with pytest.raises(StaleReferenceError, match="1 of 24"):
        check_reference(shifted(made, 1.0, slice(3, 4)), groups)


def test_what_another_kernel_rounds_otherwise_passes(made):
    check_reference(shifted(made, 1e-4), made[1])


def test_bfloat16_may_be_noisy_but_not_another_model(made):
    trainee, groups = made
    language_model = replace(trainee.view.language_model, dtype=torch.bfloat16)
    noisy = replace(trainee, view=replace(trainee.view, language_model=language_model))
    check_reference(shifted((noisy, groups), 0.01), groups)
    with pytest.raises(StaleReferenceError):
        check_reference(shifted((noisy, groups), 0.3), groups)


def test_the_mismatched_pairs_of_kto_are_checked_as_well(rows):
    language_model = build_small("llama")
    groups = groups_of(language_model, rows)
    objective = kto_objective(language_model, groups)
    right = replace(
        objective, mismatched_ref_logps=objective.mismatched_ref_logps + torch.arange(6.0)
    )
    check_reference(trainee(language_model, right), groups)
    with pytest.raises(StaleReferenceError):
        check_reference(trainee(language_model, objective), groups)


def test_an_objective_without_a_reference_has_nothing_to_check(rows):
    language_model = build_small("llama")
    check_reference(trainee(language_model, SftObjective()), groups_of(language_model, rows))


def test_dro_is_checked_through_its_value_head(rows):
    language_model = build_small("llama")
    groups = groups_of(language_model, rows)
    ref_logps = rpo_objective(language_model, groups).ref_logps
    for shift, is_right in ((0.0, True), (1.0, False)):
        objective = DroObjective(
            ref_logps + shift, ref_logps, per_token=True, value_learning_rate=0.1
        )
        made = trainee(language_model, objective)
        if is_right:
            check_reference(made, groups)
        else:
            with pytest.raises(StaleReferenceError):
                check_reference(made, groups)


@pytest.mark.parametrize("lora", [None, {"r": 2, "alpha": 4, "target_modules": "all-linear"}])
def test_training_does_not_start_from_a_stale_cache_and_names_its_folder(
    joined,  # noqa: F811
    reference,  # noqa: F811
    tmp_path,
    lora,
):
    learn(joined, reference, tmp_path, "rpo", num_epochs=1, lora=lora)
    stale = joined.assign(ref_logps=joined["ref_logps"] - 1)
    cache = tmp_path / "cache"
    with pytest.raises(StaleReferenceError, match=f"Remove the folder {cache / 'logps'}"):
        learn(stale, reference, tmp_path, "rpo", num_epochs=1, lora=lora, cache=cache)
    assert not (tmp_path / "checkpoints").exists()
