"""Exercises of the chapter on small batches."""

import numpy as np
from hypothesis import strategies as st

from bncore.page.exercises import arguments, exercise, numbers


def _without_limits(x, mean, var, r_max, d_max, eps):
    return (x - mean) / np.sqrt(var + eps)


def _without_the_shift(x, mean, var, r_max, d_max, eps):
    sigma_B, sigma = np.sqrt(x.var(axis=0) + eps), np.sqrt(var + eps)
    return (x - x.mean(axis=0)) / sigma_B * np.clip(sigma_B / sigma, 1 / r_max, r_max)


def _upside_down(x, mean, var, r_max, d_max, eps):
    sigma_B, sigma = np.sqrt(x.var(axis=0) + eps), np.sqrt(var + eps)
    r = np.clip(sigma / sigma_B, 1 / r_max, r_max)
    d = np.clip((x.mean(axis=0) - mean) / sigma, -d_max, d_max)
    return (x - x.mean(axis=0)) / sigma_B * r + d


@exercise(
    "small-batches-renormalize",
    inputs=arguments(
        "batch features",
        "features",
        ("features", numbers(0, 4)),
        numbers(1, 3),
        numbers(0, 2),
        numbers(0.5, 1),
        batch=(2, 4),
        features=(1, 3),
    ),
    wrong=[_without_limits, _without_the_shift, _upside_down],
)
def renormalize(x, mean, var, r_max, d_max, eps):
    """Return the renormalised batch, without scale and shift."""
    sigma_B, sigma = np.sqrt(x.var(axis=0) + eps), np.sqrt(var + eps)
    r = np.clip(sigma_B / sigma, 1 / r_max, r_max)
    d = np.clip((x.mean(axis=0) - mean) / sigma, -d_max, d_max)
    return (x - x.mean(axis=0)) / sigma_B * r + d


def _plain_mean(gradients, sizes):
    return gradients.mean(axis=0)


def _sum(gradients, sizes):
    return gradients.sum(axis=0)


@exercise(
    "small-batches-accumulate",
    inputs=arguments("parts weights", ("parts", st.integers(1, 5)), parts=(1, 4), weights=(1, 3)),
    wrong=[_plain_mean, _sum],
)
def accumulate(gradients, sizes):
    """Return the gradient of the mean loss of all examples, from those of parts of these sizes."""
    return sizes @ gradients / sizes.sum()
