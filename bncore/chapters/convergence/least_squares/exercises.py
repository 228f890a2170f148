"""Exercises of the least-squares chapter."""

import numpy as np

from bncore.page.exercises import arguments, exercise, numbers


def _positive_definite(A):
    return A @ A.T + 0.5 * np.eye(len(A))


def _problem():
    """Arguments u, S, w with S positive definite, and u and w positive: u'w is not 0."""
    return arguments(
        ("dimension", numbers(0.5, 2)),
        ("dimension dimension", numbers(-2, 2)),
        ("dimension", numbers(0.5, 2)),
        dimension=(2, 3),
    ).map(lambda drawn: (drawn[0], _positive_definite(drawn[1]), drawn[2]))


def _gradient_without_the_denominator(u, S, w):
    return -2 * (u @ w) / (w @ S @ w) * u


def _gradient_of_half(u, S, w):
    return gradient(u, S, w) / 2


def _gradient_projected_along_w(u, S, w):
    ratio = (u @ w) / (w @ S @ w)
    return -2 * ratio * (u - (u @ w) / (w @ w) * w)


@exercise(
    "least-squares-gradient",
    inputs=_problem(),
    wrong=[_gradient_without_the_denominator, _gradient_of_half, _gradient_projected_along_w],
    examples=40,
)
def gradient(u, S, w):
    """Return the gradient of rho(w) = -(u'w)^2 / (w'Sw)."""
    ratio = (u @ w) / (w @ S @ w)
    return -2 * ratio * (u - ratio * (S @ w))


def _plain_gradient_step(u, S, w):
    return w - (S @ w + u) / np.linalg.eigvalsh(S)[-1]


def _smallest_eigenvalue(u, S, w):
    Sw = S @ w
    return w - (Sw - (w @ Sw) / (u @ w) * u) / np.linalg.eigvalsh(S)[0]


def _uphill(u, S, w):
    Sw = S @ w
    return w + (Sw - (w @ Sw) / (u @ w) * u) / np.linalg.eigvalsh(S)[-1]


@exercise(
    "least-squares-step",
    inputs=_problem(),
    wrong=[_plain_gradient_step, _smallest_eigenvalue, _uphill],
    examples=40,
)
def step(u, S, w):
    """Return the next w of the theorem."""
    Sw = S @ w
    return w - (Sw - (w @ Sw) / (u @ w) * u) / np.linalg.eigvalsh(S)[-1]


def _flat_end_only(mu, L, s):
    return (1 - s * mu) ** 2


def _without_the_square(mu, L, s):
    return max(abs(1 - s * mu), abs(1 - s * L))


@exercise(
    "least-squares-other-steps",
    inputs=arguments(numbers(0.5, 2), numbers(2, 6), numbers(0.125, 1, 0.125)),
    wrong=[_flat_end_only, _without_the_square],
)
def other_steps(mu, L, s):
    """Return the factor that the proof gives for the step w - s (Sw - (w'Sw / u'w) u)."""
    return max(abs(1 - s * mu), abs(1 - s * L)) ** 2


def _bound(u, S):
    values = np.linalg.eigvalsh(S)
    return (1 - values[0] / values[-1]) ** 2


def _second_eigenvalue(u, S):
    values = np.linalg.eigvalsh(S)
    return (1 - values[1] / values[-1]) ** 2


def _complement_of_u(u, S):
    rows = np.linalg.svd(u[None, :])[2][1:]
    return (1 - np.linalg.eigvalsh(rows @ S @ rows.T)[0] / np.linalg.eigvalsh(S)[-1]) ** 2


@exercise(
    "least-squares-final-factor",
    inputs=_problem().map(lambda drawn: drawn[:2]),
    wrong=[_bound, _second_eigenvalue, _complement_of_u],
    examples=40,
)
def final_factor(u, S):
    """Return the factor by which the gap shrinks in a late step."""
    values, vectors = np.linalg.eigh(S)
    p = (vectors / np.sqrt(values)) @ (vectors.T @ u)
    complement = np.linalg.svd(p[None, :])[2][1:]
    nu = np.linalg.eigvalsh(complement @ S @ complement.T)[0]
    return (1 - nu / values[-1]) ** 2
