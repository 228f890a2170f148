"""Exercises of the feature scaling chapter."""

import numpy as np
from hypothesis import strategies as st

from bncore.chapters.mechanics.scaling import experiments
from bncore.page.exercises import arguments, exercise, numbers


def _statistics_of_the_test_data(train, test):
    return (test - test.mean(axis=0)) / test.std(axis=0)


def _statistics_of_both(train, test):
    both = np.concatenate([train, test])
    return (test - both.mean(axis=0)) / both.std(axis=0)


def _divisor_one_less(train, test):
    return (test - train.mean(axis=0)) / train.std(axis=0, ddof=1)


@exercise(
    "scaling-standardise",
    inputs=arguments(
        "samples features", "others features", samples=(2, 5), others=(1, 4), features=(1, 2)
    ).filter(lambda drawn: drawn[0].std(axis=0).all() and drawn[1].std(axis=0).all()),
    wrong=[_statistics_of_the_test_data, _statistics_of_both, _divisor_one_less],
)
def standardise(train, test):
    """Return the test data, standardised with the statistics of the training data."""
    return (test - train.mean(axis=0)) / train.std(axis=0)


def _slowest_direction_only(eigenvalues, step):
    return 1 - step * min(eigenvalues)


def _without_absolute_value(eigenvalues, step):
    return max(1 - step * eigenvalues)


def _best_step_whatever_the_step(eigenvalues, step):
    return (max(eigenvalues) - min(eigenvalues)) / (max(eigenvalues) + min(eigenvalues))


@exercise(
    "scaling-worst-factor",
    inputs=arguments(
        ("directions", numbers(0.5, 4)), numbers(0.125, 1, step=0.125), directions=(1, 4)
    ),
    wrong=[_slowest_direction_only, _without_absolute_value, _best_step_whatever_the_step],
)
def worst_factor(eigenvalues, step):
    """Return the largest factor by which one step multiplies the error along an eigenvector."""
    return np.abs(1 - step * eigenvalues).max()


def _positive_only(features, correlation):
    return (1 + (features - 1) * correlation) / (1 - correlation)


def _two_features(features, correlation):
    return (1 + abs(correlation)) / (1 - abs(correlation))


@exercise(
    "scaling-equal-correlations",
    inputs=arguments(st.integers(2, 8), numbers(-0.125, 0.875, step=0.125)),
    wrong=[_positive_only, _two_features],
)
def equal_correlations(features, correlation):
    """Return the condition number of standardised data, all of whose correlations are equal."""
    common, different = 1 + (features - 1) * correlation, 1 - correlation
    return max(common, different) / min(common, different)


def _only_the_diagonal(covariance):
    return np.diag(1 / np.sqrt(np.diag(covariance)))


def _inverse_without_root(covariance):
    return np.linalg.inv(covariance)


def _rotation_only(covariance):
    return np.linalg.eigh(covariance)[1].T


def _is_whitening(answer, covariance):
    matrix = np.asarray(answer)
    if matrix.shape != covariance.shape:
        return f"the matrix has the shape {matrix.shape}, expected {covariance.shape}"
    after = matrix @ covariance @ matrix.T
    if np.abs(after - np.eye(len(after))).max() <= 1e-6:
        return None
    return f"the covariance W C W' of the scaled data is {np.round(after, 3).tolist()}, expected I"


def _covariances(sizes):
    def covariance(drawn):
        (root,) = drawn
        return (root @ root.T + np.eye(len(root)),)

    return arguments("d d", d=sizes).map(covariance)


@exercise(
    "scaling-whiten",
    inputs=_covariances((1, 3)),
    wrong=[_only_the_diagonal, _inverse_without_root, _rotation_only],
    judge=_is_whitening,
)
def whiten(covariance):
    """Return a matrix W for which W x has the covariance I when x has the given covariance C."""
    variances, axes = np.linalg.eigh(covariance)
    return axes / np.sqrt(variances) @ axes.T


def _standardising(H):
    return 1 / np.sqrt(np.diag(H))


def _divide_by_variance(H):
    return 1 / np.diag(H)


def _near_the_best(answer, H):
    d = np.asarray(answer, dtype=float)
    if d.shape != (len(H),) or not (np.isfinite(d) & (d > 0)).all():
        return f"the scales are {d.tolist()}, expected {len(H)} positive numbers"
    reached = experiments.condition(d[:, None] * H * d)
    best, _ = experiments.best_diagonal_scaling(H, starts=1)
    if reached <= 1.05 * best:
        return None
    return f"the condition number is {reached:.4g}, expected at most 1.05 times {best:.4g}"


@exercise(
    "scaling-best-diagonal",
    inputs=arguments(
        st.sampled_from([3, 4]), numbers(0.125, 0.25, step=0.125), numbers(0.25, 0.5, step=0.25)
    ).map(lambda drawn: (experiments.idle_features(drawn[0], 0.01, drawn[1], drawn[2]),)),
    wrong=[_standardising, _divide_by_variance],
    judge=_near_the_best,
    examples=10,
)
def best_diagonal(H):
    """Return scales d > 0 that bring the condition number of D H D within 5 % of the smallest."""
    return experiments.best_diagonal_scaling(H, starts=1)[1]
