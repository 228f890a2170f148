"""Exercises of the depth chapter."""

import numpy as np
from hypothesis import strategies as st

from bncore.page.exercises import arguments, exercise, numbers


def _without_variance(slope):
    return (1 + slope**2) / 2


def _second_moment_for_variance(slope):
    return 1.0


def _inverted(slope):
    return 1 - (1 - slope) ** 2 / (np.pi * (1 + slope**2))


@exercise(
    "depth-leaky",
    inputs=st.tuples(numbers(-2, 2, 0.25)),
    wrong=[_without_variance, _second_moment_for_variance, _inverted],
)
def leaky(slope):
    """Return the growth rate, for large batches, of a leaky ReLU with this slope left of zero."""
    square = (1 + slope**2) / 2
    return square / (square - (1 - slope) ** 2 / (2 * np.pi))


def _counts_the_mean(a):
    return np.arange(len(a)) @ a**2 / (a @ a)


def _forgets_the_degree(a):
    return 1.0


def _not_squared(a):
    return np.arange(len(a)) @ np.abs(a) / np.abs(a[1:]).sum()


@exercise(
    "depth-hermite",
    inputs=arguments(("degrees", numbers(0.5, 3)), degrees=(2, 6)),
    wrong=[_counts_the_mean, _forgets_the_degree, _not_squared],
)
def hermite(a):
    """Return the growth rate, for large batches, from the normalised Hermite coefficients."""
    k = np.arange(len(a))
    return k @ a**2 / (a[1:] @ a[1:])


def _exponential(rate, blocks, offset):
    return rate**blocks


def _adds(rate, blocks, offset):
    return 1 + sum(rate / (offset + k) for k in range(blocks))


def _counts_from_one(rate, blocks, offset):
    return np.prod([1 + rate / (offset + k) for k in range(1, blocks + 1)])


@exercise(
    "depth-residual",
    inputs=st.tuples(numbers(1, 3, 0.25), st.integers(1, 12), numbers(0.5, 4)),
    wrong=[_exponential, _adds, _counts_from_one],
)
def residual(rate, blocks, offset):
    """Return by what factor squared gradients grow through all blocks of a residual network."""
    return np.prod([1 + rate / (offset + k) for k in range(blocks)])


def _he(slope):
    return 2.0


def _half(slope):
    return 1 / (1 + slope**2)


def _square_of_sum(slope):
    return 2 / (1 + slope) ** 2


@exercise(
    "depth-critical",
    inputs=st.tuples(numbers(0, 2, 0.25)),
    wrong=[_he, _half, _square_of_sum],
)
def critical(slope):
    """Return the weight variance times n at which a leaky-ReLU network without batch norm keeps its gradients."""
    return 2 / (1 + slope**2)
