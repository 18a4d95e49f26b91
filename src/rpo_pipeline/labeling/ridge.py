"""Ridge regression on standardised features; its penalty is chosen on folds that were left out.

Shapes: N rows, F features, A penalties.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

Array = NDArray[np.float64]
Folds = NDArray[np.int64]

PENALTIES = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Penalties, for features of standard deviation 1 and a squared error averaged over rows."""


def fit_ridge(features: Array, targets: Array, *penalties: float) -> Array:
    """Fit a ridge regression for each of several penalties in one pass over the rows.

    Features have the shape ``(N, F)`` and targets ``(N,)``; penalties are on squared weights of
    features of standard deviation 1. Returns intercept and weights by penalty, shape ``(A, F +
    1)``. A feature that does not vary gets the weight 0.
    """
    alphas = len(targets) * np.array(penalties)  # scikit-learn sums the squared error over rows
    model: Pipeline = make_pipeline(StandardScaler(), Ridge(alphas, solver="cholesky"))
    model.fit(features, np.column_stack([targets] * len(penalties)))
    scaler, ridge = model["standardscaler"], model["ridge"]
    weights = ridge.coef_.reshape(len(penalties), -1) / scaler.scale_
    return np.column_stack([ridge.intercept_ - weights @ scaler.mean_, weights])


def choose_penalty(features: Array, targets: Array, folds: Folds) -> float:
    """Choose the one of ``PENALTIES`` with the smallest squared error on left-out folds."""
    errors = np.zeros(len(PENALTIES))
    for fitted, left_out in LeaveOneGroupOut().split(features, groups=folds):
        for place, fit in enumerate(fit_ridge(features[fitted], targets[fitted], *PENALTIES)):
            errors[place] += ((predict(fit, features[left_out]) - targets[left_out]) ** 2).sum()
    return PENALTIES[int(np.argmin(errors))]


def predict(coefficients: Array, features: Array) -> Array:
    """Predict the targets of features, shape ``(N,)``."""
    predicted: Array = coefficients[0] + features @ coefficients[1:]
    return predicted


def cross_fit(features: Array, targets: Array, folds: Folds, others: Array) -> tuple[Array, Array]:
    """Predict each row by a regression on other folds, and other rows by one on all folds.

    Args:
        features: Features, shape ``(N, F)``.
        targets: Targets, shape ``(N,)``.
        folds: Fold of each row, at least three of them.
        others: Features of rows without a target, shape ``(M, F)``.

    Returns:
        Predictions, shapes ``(N,)`` and ``(M,)``.
    """
    (fit,) = fit_ridge(features, targets, choose_penalty(features, targets, folds))
    return held_out_predictions(features, targets, folds), predict(fit, others)


def held_out_predictions(features: Array, targets: Array, folds: Folds) -> Array:
    """Predict each row by a regression whose weights and penalty come from other folds.

    There must be at least three folds; predictions have the shape ``(N,)``.
    """
    predicted = np.empty(len(targets))
    for fitted, left_out in LeaveOneGroupOut().split(features, groups=folds):
        rows = features[fitted], targets[fitted]
        (fit,) = fit_ridge(*rows, choose_penalty(*rows, folds[fitted]))
        predicted[left_out] = predict(fit, features[left_out])
    return predicted
