"""Ridge regression from sums over rows: leaving a fold out is a subtraction.

With F features, K folds and A penalties, cross-validation within cross-validation costs one pass
over the rows and about K^2 A systems of F equations, however many rows there are.

Shapes: N rows, F features.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve

Array = NDArray[np.float64]

PENALTIES = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""For features of standard deviation 1 and a squared error averaged over rows."""


def fold_moments(features: Array, targets: Array, folds: NDArray[np.int64]) -> list[Array]:
    """Sums of products of (1, features, target) over the rows of each fold.

    Args:
        features: Shape ``(N, F)``.
        targets: Shape ``(N,)``.
        folds: Fold of each row, 0 to K - 1.

    Returns:
        K matrices of shape ``(F + 2, F + 2)``.
    """
    table = np.column_stack([np.ones(len(targets)), features, targets]).astype(np.float64)
    return [table[folds == fold].T @ table[folds == fold] for fold in range(int(folds.max()) + 1)]


def fit_ridge(moments: Array, penalty: float) -> Array:
    """Fit a ridge regression.

    Args:
        moments: Of the rows, or a sum of such.
        penalty: On squared weights of features of standard deviation 1.

    Returns:
        Intercept and weights, shape ``(F + 1,)``.
    """
    mean = moments[0, 1:] / moments[0, 0]
    covariance = moments[1:, 1:] / moments[0, 0] - np.outer(mean, mean)
    variances = np.diag(covariance)[:-1]
    # A feature that does not vary beyond rounding gets no weight.
    varies = variances > 1e-12 * (1 + mean[:-1] ** 2)
    scale = np.sqrt(np.where(varies, variances, np.inf))
    correlation = covariance[:-1, :-1] / np.outer(scale, scale)
    correlation[np.diag_indices_from(correlation)] += penalty
    weights = solve(correlation, covariance[:-1, -1] / scale, assume_a="pos") / scale
    return np.concatenate([[mean[-1] - mean[:-1] @ weights], weights])


def choose_penalty(moments: Sequence[Array]) -> float:
    """Choose the penalty with the smallest squared error on folds that were left out.

    Args:
        moments: Of each fold.

    Returns:
        One of ``PENALTIES``.
    """
    total = np.sum(moments, axis=0)
    errors = [
        sum(_squared_error(fit_ridge(total - fold, penalty), fold) for fold in moments)
        for penalty in PENALTIES
    ]
    return PENALTIES[int(np.argmin(errors))]


def predict(coefficients: Array, features: Array) -> Array:
    """What a fitted regression says of features, shape ``(N,)``."""
    predicted: Array = coefficients[0] + features @ coefficients[1:]
    return predicted


def held_out_predictions(features: Array, targets: Array, folds: NDArray[np.int64]) -> Array:
    """Predict each row by a regression that saw nothing of its fold, its penalty included.

    Args:
        features: Shape ``(N, F)``.
        targets: Shape ``(N,)``.
        folds: Fold of each row.

    Returns:
        Predictions, shape ``(N,)``.
    """
    moments = fold_moments(features, targets, folds)
    predicted = np.empty(len(targets))
    for fold in range(len(moments)):
        others = [each for place, each in enumerate(moments) if place != fold]
        coefficients = fit_ridge(np.sum(others, axis=0), choose_penalty(others))
        predicted[folds == fold] = predict(coefficients, features[folds == fold])
    return predicted


def _squared_error(coefficients: Array, moments: Array) -> float:
    residual = np.append(coefficients, -1.0)
    return float(residual @ moments @ residual)
