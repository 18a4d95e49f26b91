import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpo_pipeline.labeling.ridge import (
    PENALTIES,
    choose_penalty,
    fit_ridge,
    held_out_predictions,
    predict,
)


def table(seed, num_rows=60, num_features=5):
    generator = np.random.default_rng(seed)
    features = generator.normal(3.0, [1, 10, 0.1, 1, 5], (num_rows, num_features))
    targets = features @ [1, 0.1, 10, 0, 0] + generator.normal(size=num_rows)
    return features, targets, np.arange(num_rows) % 4


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from(PENALTIES))
def test_the_gradient_of_the_penalised_error_is_zero_at_the_fit(seed, penalty):
    features, targets, _ = table(seed)
    (fit,) = fit_ridge(features, targets, penalty)
    residuals = predict(fit, features) - targets
    scale = features.std(axis=0)
    centred = (features - features.mean(axis=0)) / scale
    gradient = centred.T @ residuals / len(targets) + penalty * fit[1:] * scale
    np.testing.assert_allclose(gradient, 0, atol=1e-8)
    assert residuals.mean() == pytest.approx(0, abs=1e-8)


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_a_row_has_no_part_in_its_own_prediction(seed):
    features, targets, folds = table(seed)
    predicted = held_out_predictions(features, targets, folds)
    other = np.where(folds == 2, -targets, targets)
    again = held_out_predictions(features, other, folds)
    np.testing.assert_allclose(again[folds == 2], predicted[folds == 2])
    assert not np.allclose(again[folds != 2], predicted[folds != 2])


def test_the_penalty_is_the_best_on_folds_that_were_left_out():
    features, targets, folds = table(0)
    rows = [folds != fold for fold in range(4)]

    def error(penalty):
        fits = [fit_ridge(features[fitted], targets[fitted], penalty)[0] for fitted in rows]
        predicted = np.stack([predict(fit, features) for fit in fits])[folds, np.arange(len(folds))]
        return ((predicted - targets) ** 2).mean()

    assert choose_penalty(features, targets, folds) == min(PENALTIES, key=error)


def test_a_feature_that_does_not_vary_gets_no_weight():
    features, targets, _ = table(0)
    features[:, 3] = 1e4
    (fit,) = fit_ridge(features, targets, 0.1)
    assert fit[4] == 0
    assert np.isfinite(fit).all()
