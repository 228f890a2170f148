"""Exercises of the inference chapter."""

import numpy as np
from hypothesis import strategies as st

from bncore.page.exercises import arguments, exercise, numbers

MOMENTA = st.sampled_from([0.5, 0.25, 0.1, 0.01])


def _weight_in_keras(momentum, updates):
    return momentum**updates


def _one_update_too_few(momentum, updates):
    return (1 - momentum) ** (updates - 1)


@exercise(
    "inference-initial-value",
    inputs=st.tuples(MOMENTA, st.integers(1, 20)),
    wrong=[_weight_in_keras, _one_update_too_few],
)
def initial_value(momentum, updates):
    """Return what the initial value still weighs in a running average, in torch's convention."""
    return (1 - momentum) ** updates


def _average_of_both(n, mean, var, m, batch_mean, batch_var):
    return n + m, (mean + batch_mean) / 2, (var + batch_var) / 2


def _without_the_variance_between(n, mean, var, m, batch_mean, batch_var):
    total = n + m
    return total, (n * mean + m * batch_mean) / total, (n * var + m * batch_var) / total


@exercise(
    "inference-merge",
    inputs=st.tuples(
        st.integers(1, 5),
        numbers(),
        numbers(0, 4),
        st.integers(1, 5),
        numbers(),
        numbers(0, 4),
    ),
    wrong=[_average_of_both, _without_the_variance_between],
)
def merge(n, mean, var, m, batch_mean, batch_var):
    """Return count, mean and variance (divisor n + m) of two sets of values taken together."""
    total = n + m
    delta = batch_mean - mean
    squares = n * var + m * batch_var + n * m / total * delta**2
    return total, mean + m / total * delta, squares / total


def _forgets_the_bias(weight, bias, mean, var, gamma, beta, eps):
    scale = gamma / np.sqrt(var + eps)
    return weight * scale[:, None], beta - mean * scale


def _scales_beta_too(weight, bias, mean, var, gamma, beta, eps):
    scale = gamma / np.sqrt(var + eps)
    return weight * scale[:, None], scale * (bias - mean + beta)


@exercise(
    "inference-fold-linear",
    inputs=arguments(
        "features inputs",
        "features",
        "features",
        ("features", numbers(0, 4)),
        "features",
        "features",
        numbers(0.5, 1),
        features=(1, 3),
        inputs=(1, 3),
    ),
    wrong=[_forgets_the_bias, _scales_beta_too],
)
def fold_linear(weight, bias, mean, var, gamma, beta, eps):
    """Return weight and bias of the layer that does the work of x @ weight.T + bias and its norm."""
    scale = gamma / np.sqrt(var + eps)
    return weight * scale[:, None], scale * (bias - mean) + beta


def _as_if_it_came_after(weight, bias, scale, shift):
    return weight * scale[: len(weight), None], bias


def _shift_not_weighted(weight, bias, scale, shift):
    return weight * scale, bias + shift.sum()


@exercise(
    "inference-fold-after",
    inputs=arguments("features features", "features", "features", "features", features=(1, 3)),
    wrong=[_as_if_it_came_after, _shift_not_weighted],
)
def fold_after(weight, bias, scale, shift):
    """Return weight and bias of one layer for (scale * x + shift) @ weight.T + bias."""
    return weight * scale, weight @ shift + bias


def _noise_only(momentum, noise, drift):
    return noise * momentum / (2 - momentum)


def _lag_of_one_window(momentum, noise, drift):
    return noise * momentum / (2 - momentum) + (drift / momentum) ** 2


@exercise(
    "inference-drift",
    inputs=st.tuples(MOMENTA, numbers(0, 4), numbers(-2, 2)),
    wrong=[_noise_only, _lag_of_one_window],
)
def drift_error(momentum, noise, drift):
    """Return the mean squared error of a running average that follows a drifting statistic."""
    return noise * momentum / (2 - momentum) + (drift * (1 - momentum) / momentum) ** 2
