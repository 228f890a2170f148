"""Exercises of the halfspaces chapter."""

import math

import numpy as np
from scipy.stats import norm

from bncore.page.exercises import arguments, exercise, numbers


def _definite(drawn):
    *vectors, root = drawn
    return (*vectors, root @ root.T + np.eye(len(root)))


def _forgets_the_norm(w, u, S):
    return w - (S @ w - u / (u @ w)) / np.linalg.eigvalsh(S)[-1]


def _step_of_the_rayleigh_gradient(w, u, S):
    ratio = (u @ w) / (w @ S @ w)
    return w + 2 * ratio * (u - ratio * (S @ w)) / np.linalg.eigvalsh(S)[-1]


def _uphill(w, u, S):
    return w + (S @ w - (w @ S @ w) / (u @ w) * u) / np.linalg.eigvalsh(S)[-1]


@exercise(
    "halfspaces-direction-step",
    inputs=arguments("d", "d", "d d", d=(2, 3))
    .map(_definite)
    .filter(lambda drawn: abs(drawn[0] @ drawn[1]) > 0.2),
    wrong=[_forgets_the_norm, _step_of_the_rayleigh_gradient, _uphill],
)
def direction_step(w, u, S):
    """Return the weights after one direction step of GDNP, which needs no loss."""
    largest = np.linalg.eigvalsh(S)[-1]
    return w - (S @ w - (w @ S @ w) / (u @ w) * u) / largest


def _least_squares_solution(u, covariance):
    return -np.linalg.solve(covariance + np.outer(u, u), u)


def _wrong_side(u, covariance):
    return np.linalg.solve(covariance, u)


@exercise(
    "halfspaces-exponential",
    inputs=arguments("d", "d d", d=(1, 3)).map(_definite),
    wrong=[_least_squares_solution, _wrong_side],
)
def exponential(u, covariance):
    """Return the minimiser of E exp(z'w) for z ~ N(u, covariance)."""
    return -np.linalg.solve(covariance, u)


def _second_derivative_almost_everywhere(m, s):
    return norm.cdf((1 + m) / s), 0.0


def _only_c2_mended(m, s):
    return norm.cdf((1 + m) / s), norm.pdf((1 + m) / s) / s


def _kink_at_zero(m, s):
    c2 = norm.pdf(m / s) / s
    return norm.cdf(m / s) - m * c2, c2


@exercise(
    "halfspaces-hinge",
    inputs=arguments(numbers(-2, 2), numbers(0.5, 3)),
    wrong=[_second_derivative_almost_everywhere, _only_c2_mended, _kink_at_zero],
)
def hinge(m, s):
    """Return c1 and c2 of the hinge loss max(0, 1 + a) where z'w has mean m and deviation s."""
    c2 = norm.pdf((1 + m) / s) / s
    return norm.cdf((1 + m) / s) - m * c2, c2


def _forgets_the_square(curvature, width, target):
    return max(0, math.ceil(math.log2(curvature * width / target)))


def _without_the_curvature(curvature, width, target):
    return max(0, math.ceil(math.log2(width / math.sqrt(target))))


def _one_digit_a_halving(curvature, width, target):
    return max(0, math.ceil(math.log10(curvature * width / math.sqrt(target))))


@exercise(
    "halfspaces-halvings",
    inputs=arguments(
        numbers(0.25, 4), numbers(1, 8, 1), numbers(1, 6, 1).map(lambda k: 10**-k)
    ).filter(lambda drawn: abs((x := _ratio(*drawn)) - round(x)) > 1e-6),
    wrong=[_forgets_the_square, _without_the_curvature, _one_digit_a_halving],
)
def halvings(curvature, width, target):
    """Return how many halvings of a bracket guarantee that (df/dg)^2 is at most the target."""
    return max(0, math.ceil(_ratio(curvature, width, target)))


def _ratio(curvature, width, target):
    return math.log2(curvature * width / math.sqrt(target))
