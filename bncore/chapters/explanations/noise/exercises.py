"""Exercises of the noise chapter."""

import numpy as np
from hypothesis import strategies as st

from bncore.page.exercises import arguments, exercise, numbers


def _of_the_unbiased_variance(m, var, kurtosis):
    return var**2 * (kurtosis - (m - 3) / (m - 1)) / m


def _to_first_order(m, var, kurtosis):
    return var**2 * (kurtosis - 1) / m


@exercise(
    "noise-variance-of-the-variance",
    inputs=st.tuples(st.integers(2, 9), numbers(0.5, 4), numbers(1, 9)),
    wrong=[_of_the_unbiased_variance, _to_first_order],
)
def variance_of_the_variance(m, var, kurtosis):
    """Return the variance of the biased variance of m independent draws."""
    return var**2 * (m - 1) * ((m - 1) * kurtosis - m + 3) / m**3


def _whole_batch(x, size, eps):
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps)


def _every_nth_example(x, size, eps):
    ghosts = x.reshape(size, -1, x.shape[1])
    mean, var = ghosts.mean(axis=0), ghosts.var(axis=0)
    return ((ghosts - mean) / np.sqrt(var + eps)).reshape(x.shape)


def _unbiased(x, size, eps):
    ghosts = x.reshape(-1, size, x.shape[1])
    mean, var = ghosts.mean(axis=1, keepdims=True), ghosts.var(axis=1, ddof=1, keepdims=True)
    return ((ghosts - mean) / np.sqrt(var + eps)).reshape(x.shape)


def _cut(drawn):
    """A batch that ghost batches of the size divide."""
    x, size, eps = drawn
    return x[: len(x) // size * size], size, eps


@exercise(
    "noise-ghost-batches",
    inputs=st.tuples(
        arguments("examples features", examples=(6, 12), features=(1, 2)),
        st.integers(2, 3),
        numbers(0.25, 1),
    ).map(lambda drawn: _cut((*drawn[0], *drawn[1:]))),
    wrong=[_whole_batch, _every_nth_example, _unbiased],
)
def ghost_batches(x, size, eps):
    """Return x with each part of `size` neighbouring examples normalised by its own statistics."""
    ghosts = x.reshape(-1, size, x.shape[1])
    mean, var = ghosts.mean(axis=1, keepdims=True), ghosts.var(axis=1, keepdims=True)
    return ((ghosts - mean) / np.sqrt(var + eps)).reshape(x.shape)


def _definite(drawn):
    keep, weight, mean, factor = drawn
    weight = weight.copy()
    weight[0] += 4 if weight[0] >= 0 else -4
    return keep, weight, mean, factor @ factor.T + np.eye(len(weight))


def _without_the_mean(keep, weight, mean, covariance):
    test = weight @ covariance @ weight
    return test / (test + (1 - keep) / keep * weight**2 @ np.diag(covariance))


def _all_noise(keep, weight, mean, covariance):
    return keep


def _upside_down(keep, weight, mean, covariance):
    test = weight @ covariance @ weight
    return 1 + (1 - keep) / keep * weight**2 @ (np.diag(covariance) + mean**2) / test


@exercise(
    "noise-variance-shift",
    inputs=arguments(numbers(0.25, 0.75), "inputs", "inputs", "inputs inputs", inputs=(1, 3)).map(
        _definite
    ),
    wrong=[_without_the_mean, _all_noise, _upside_down],
)
def variance_shift(keep, weight, mean, covariance):
    """Return the variance of w'x without dropout over that with dropout of x, kept with p."""
    test = weight @ covariance @ weight
    train = test + (1 - keep) / keep * weight**2 @ (np.diag(covariance) + mean**2)
    return test / train


def _bins_of_equal_weight(confidence, right, bins):
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[which == k].mean() - right[which == k].mean()) for k in np.unique(which)]
    return np.mean(gaps)


def _without_bins(confidence, right, bins):
    return abs(confidence.mean() - right.mean())


def _each_answer_by_itself(confidence, right, bins):
    return np.abs(confidence - right).mean()


@exercise(
    "noise-calibration-error",
    inputs=arguments(
        ("answers", numbers(0, 0.97)),
        ("answers", st.sampled_from([0.0, 1.0])),
        st.integers(2, 4),
        answers=(1, 6),
    ),
    wrong=[_bins_of_equal_weight, _without_bins, _each_answer_by_itself],
)
def calibration_error(confidence, right, bins):
    """Return the expected calibration error in equal bins; `right` is 1 where the answer is right."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(which, confidence - right, bins)
    return np.abs(gaps).sum() / len(right)
