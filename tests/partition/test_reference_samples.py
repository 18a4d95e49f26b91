from functools import partial

import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.engine import Engine
from rpo_pipeline.errors import DataError
from rpo_pipeline.labeling.labeling import label_responses
from rpo_pipeline.labeling.normaliser import fit_normaliser, normalise
from rpo_pipeline.partition.reference_samples import (
    label_samples,
    prompts_to_sample,
    sample_reference,
)
from tests.conftest import block, build_small
from tests.training.test_reference import policy

LABEL = partial(label_responses, labelers=block("labeling").labelers, cache=None)
NORMALISER = {
    **{"kind": "zscore", "winsorise": None, "length_penalty": None},
    **{"mean": 0.25, "std": 2.0},
}


def wanted(rows, estimator, below=2):
    few = {"num_samples": 3, "below_responses": below}
    rpo = block("rpo", estimator=estimator, reference_samples=few, prior_strength=0.0)
    return prompts_to_sample(rows, rpo)["prompt_id"].tolist()


def test_only_prompts_with_few_labelled_responses_are_sampled_for(rows):
    assert wanted(rows, "reference_samples") == ["p1"]
    assert wanted(rows, "reference_samples", below=3) == ["p1", "p2"]


def test_quantile_samples_for_every_prompt_and_estimators_from_the_log_for_none(rows):
    assert wanted(rows, "quantile") == ["p0", "p1", "p2"]
    for estimator in ("monte_carlo", "self_normalized", "reference_weighted"):
        assert wanted(rows, estimator) == []


def sample(prompts, reference, cache, *, label=LABEL, normaliser=NORMALISER, logged=None):
    engine = Engine(
        reference, policy(max_response_tokens=12), block("training", micro_batch_tokens=500), cache
    )
    drawn = sample_reference(prompts, engine, num_samples=3)
    return label_samples(drawn, label, partial(normalise, normaliser=normaliser, logged=logged))


@pytest.fixture
def samples(rows, tmp_path):
    build_small("llama").save(tmp_path / "model")
    return sample(rows.drop_duplicates("prompt_id"), tmp_path / "model", tmp_path / "cache")


def test_samples_are_labelled_by_the_first_labeler_that_scores_new_text_and_normalised(
    rows, samples
):
    prompts = rows.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    expected = LABEL(samples["prompt_id"].map(prompts).tolist(), samples["response"].tolist())
    assert samples["labeler"].eq("rules").all()
    pd.testing.assert_series_equal(samples["raw_reward"], expected["raw_reward"])
    pd.testing.assert_series_equal(
        samples["reward"], (samples["raw_reward"] - 0.25) / 2.0, check_names=False
    )


@pytest.mark.parametrize("kind", ["zscore", "rank", "per_prompt", "none"])
def test_samples_stand_on_the_scale_of_the_logged_rows_by_every_normaliser(rows, tmp_path, kind):
    build_small("llama").save(tmp_path / "model")
    logged = rows.assign(raw_reward=[0.5, -1.0, 1.0, 0.2, 0.4, -0.3])
    labeling = block("labeling", normaliser=kind, length_penalty="auto", winsorise=[0.1, 0.9])
    normaliser = fit_normaliser(logged, labeling)
    prompts = rows.drop_duplicates("prompt_id")
    samples = sample(
        prompts, tmp_path / "model", tmp_path / "cache", normaliser=normaliser, logged=logged
    )
    expected = normalise(samples, normaliser, logged)
    assert np.isfinite(samples["reward"]).all()
    pd.testing.assert_series_equal(samples["reward"], expected, check_names=False)


def test_without_prompts_no_model_is_loaded_and_the_table_is_empty(samples, tmp_path):
    nothing = sample(pd.DataFrame(columns=["prompt_id", "prompt"]), tmp_path / "none", tmp_path)
    assert nothing.empty
    assert nothing.columns.tolist() == samples.columns.tolist()


@pytest.mark.usefixtures("samples")
def test_a_sample_without_a_label_is_an_error_for_a_gap_would_bend_the_partition(rows, tmp_path):
    def silent(prompts, responses):
        labels = LABEL(prompts, responses)
        return labels.assign(raw_reward=labels["raw_reward"].where(labels.index != 2, np.nan))

    prompts = rows.drop_duplicates("prompt_id")
    with pytest.raises(DataError, match="1 of 9 responses got no label from rules"):
        sample(prompts, tmp_path / "model", tmp_path / "cache", label=silent)
