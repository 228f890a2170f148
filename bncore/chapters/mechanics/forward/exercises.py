"""Exercises of the forward chapter."""

import numpy as np
from hypothesis import strategies as st

from bncore.mechanics import transform
from bncore.page.exercises import arguments, exercise, numbers


def _unbiased_variance(x, gamma, beta, eps):
    return gamma * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0, ddof=1) + eps) + beta


def _epsilon_outside_the_root(x, gamma, beta, eps):
    return gamma * (x - x.mean(axis=0)) / (x.std(axis=0) + eps) + beta


def _statistics_of_the_whole_array(x, gamma, beta, eps):
    return gamma * (x - x.mean()) / np.sqrt(x.var() + eps) + beta


@exercise(
    "forward-transform",
    inputs=arguments(
        "batch features",
        ("features", numbers(-2, 2)),
        "features",
        numbers(0.5, 1),
        batch=(2, 4),
        features=(1, 2),
    ),
    wrong=[_unbiased_variance, _epsilon_outside_the_root, _statistics_of_the_whole_array],
)
def batch_norm(x, gamma, beta, eps):
    """Return the batch-normalised x, an array of shape (batch, features)."""
    return transform.forward(x, gamma, beta, eps)[0]


def _forgets_epsilon(x, eps):
    return x.std(axis=0), x.mean(axis=0)


def _gives_the_inverse(x, eps):
    return 1 / np.sqrt(x.var(axis=0) + eps), -x.mean(axis=0)


@exercise(
    "forward-undo",
    inputs=arguments("batch features", numbers(0.5, 1), batch=(2, 4), features=(1, 2)),
    wrong=[_forgets_epsilon, _gives_the_inverse],
)
def undo(x, eps):
    """Return gamma and beta with which batch norm gives this batch back unchanged."""
    return np.sqrt(x.var(axis=0) + eps), x.mean(axis=0)


def _each_position_for_itself(x, eps):
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps)


def _each_image_for_itself(x, eps):
    axes = (2, 3)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def _all_channels_together(x, eps):
    axes = (1, 2, 3)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


@exercise(
    "forward-convolution",
    inputs=arguments(
        "batch channels height width",
        numbers(0.5, 1),
        batch=(2, 3),
        channels=(1, 2),
        height=(1, 2),
        width=(1, 2),
    ),
    wrong=[_each_position_for_itself, _each_image_for_itself, _all_channels_together],
)
def convolution(x, eps):
    """Return the normalised feature maps of x (batch, channels, height, width)."""
    return transform.forward(x, eps=eps)[0]


def _share_of_the_variance(deviation, variance):
    return deviation**2 * (1 - variance)


def _deviation_not_squared(deviation, variance):
    return deviation * (1 - variance) / variance


@exercise(
    "forward-choose-epsilon",
    inputs=arguments(numbers(0.5, 3), numbers(0.1, 0.9, step=0.1)),
    wrong=[_share_of_the_variance, _deviation_not_squared],
)
def choose_epsilon(deviation, variance):
    """Return the eps with which a feature of this deviation comes out with this variance."""
    return deviation**2 * (1 - variance) / variance


def _square_root(m):
    return np.sqrt(m)


def _bounded_by_three_deviations(m):
    return min(3.0, np.sqrt(m - 1))


@exercise(
    "forward-largest-value",
    inputs=st.tuples(st.integers(2, 512)),
    wrong=[_square_root, _bounded_by_three_deviations],
)
def largest_value(m):
    """Return the largest value that a batch of m values can have after normalisation, eps = 0."""
    return np.sqrt(m - 1)


def _scales_only(weight, u):
    return weight / (u @ weight.T).std(axis=0)[:, None], np.zeros(len(weight))


def _forgets_to_scale_the_bias(weight, u):
    z = u @ weight.T
    return weight / z.std(axis=0)[:, None], -z.mean(axis=0)


@exercise(
    "forward-normalise-once",
    inputs=arguments(
        "units inputs", "batch inputs", units=(1, 2), inputs=(1, 2), batch=(3, 5)
    ).filter(lambda drawn: (drawn[1] @ drawn[0].T).std(axis=0).min() > 0.1),
    wrong=[_scales_only, _forgets_to_scale_the_bias],
)
def normalise_once(weight, u):
    """Return the weight and bias whose outputs on u are those of the old weight, normalised."""
    z = u @ weight.T
    return weight / z.std(axis=0)[:, None], -z.mean(axis=0) / z.std(axis=0)
