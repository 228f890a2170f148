"""Exercises of the backward chapter."""

import numpy as np

from bncore.page.exercises import arguments, exercise, numbers


def _statistics_held_fixed(dy, x, gamma, eps):
    return gamma * dy / np.sqrt(x.var(axis=0) + eps)


def _without_variance_term(dy, x, gamma, eps):
    return gamma * (dy - dy.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps)


def _unbiased_variance(dy, x, gamma, eps):
    s = np.sqrt(x.var(axis=0, ddof=1) + eps)
    x_hat = (x - x.mean(axis=0)) / s
    return gamma / s * (dy - dy.mean(axis=0) - x_hat * (dy * x_hat).mean(axis=0))


@exercise(
    "backward-closed-form",
    inputs=arguments(
        "batch features",
        "batch features",
        ("features", numbers(0.5, 2)),
        numbers(0.5, 1),
        batch=(2, 5),
        features=(1, 2),
    ),
    wrong=[_statistics_held_fixed, _without_variance_term, _unbiased_variance],
)
def closed_form(dy, x, gamma, eps):
    """Return the gradient of the loss with respect to the input of batch normalization."""
    s = np.sqrt(x.var(axis=0) + eps)
    x_hat = (x - x.mean(axis=0)) / s
    return gamma / s * (dy - dy.mean(axis=0) - x_hat * (dy * x_hat).mean(axis=0))
