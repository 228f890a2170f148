"""Exercises of the decoupling chapter."""

import numpy as np

from bncore.page.exercises import arguments, exercise, numbers


def _definite(generated, at):
    """Replace the square matrix A in a tuple of arguments by A'A + I."""
    A = generated[at]
    return (*generated[:at], A.T @ A + np.eye(len(A)), *generated[at + 1 :])


def _euclidean_length(w, g, S):
    return g * w / np.linalg.norm(w)


def _square_not_rooted(w, g, S):
    return g * w / (w @ S @ w)


def _without_sign(w, g, S):
    return abs(g) * w / np.sqrt(w @ S @ w)


@exercise(
    "decoupling-couple",
    inputs=arguments("d", numbers(-2, 2), "d d", d=(1, 3))
    .filter(lambda drawn: drawn[0].any())
    .map(lambda drawn: _definite(drawn, 2)),
    wrong=[_euclidean_length, _square_not_rooted, _without_sign],
    examples=40,
)
def couple(w, g, S):
    """Return the weights with the direction of w and the length g in the norm of S."""
    return g * w / np.sqrt(w @ S @ w)


def _euclidean_projection(w, g, S, v):
    norm = np.sqrt(w @ S @ w)
    return g / norm * (v - w * (w @ v) / (w @ w)), w @ v / norm


def _length_held_fixed(w, g, S, v):
    norm = np.sqrt(w @ S @ w)
    return g / norm * v, w @ v / norm


def _length_at_the_coupled_weights(w, g, S, v):
    norm = np.sqrt(w @ S @ w)
    return g / norm * (v - S @ w * (w @ v) / norm**2), g * (w @ v) / norm


@exercise(
    "decoupling-gradients",
    inputs=arguments("d", numbers(-2, 2), "d d", "d", d=(2, 3))
    .filter(lambda drawn: drawn[0].any())
    .map(lambda drawn: _definite(drawn, 2)),
    wrong=[_euclidean_projection, _length_held_fixed, _length_at_the_coupled_weights],
    examples=40,
)
def gradients(w, g, S, v):
    """Return the gradients in w and in g of f(g w / ||w||_S), where v is the gradient of f."""
    norm = np.sqrt(w @ S @ w)
    dg = w @ v / norm
    return g / norm * (v - dg / norm * S @ w), dg


def _with_the_second_moment(X, w, g):
    S = X.T @ X / len(X)
    weights = g * w / np.sqrt(w @ S @ w)
    return weights, -X.mean(axis=0) @ weights


def _without_shift(X, w, g):
    return g * w / (X @ w).std(), 0.0


def _shift_not_scaled(X, w, g):
    return g * w / (X @ w).std(), -(X @ w).mean()


@exercise(
    "decoupling-off-centre",
    inputs=arguments("n d", "d", numbers(-2, 2), n=(3, 5), d=(1, 2)).filter(
        lambda drawn: (drawn[0] @ drawn[1]).std() > 0.1
    ),
    wrong=[_with_the_second_moment, _without_shift, _shift_not_scaled],
    examples=40,
)
def off_centre(X, w, g):
    """Return weights v and a shift b such that batch norm of X @ w, with gamma = g, is X @ v + b."""
    weights = g * w / (X @ w).std()
    return weights, -X.mean(axis=0) @ weights


def _growth_as_if_at_length_one(length, rate, gradients):
    return np.sqrt(length**2 + (rate**2 * gradients**2).sum())


def _lengths_added(length, rate, gradients):
    for gradient in gradients:
        length = length + rate * gradient / length
    return length


def _rate_not_squared(length, rate, gradients):
    squared = length**2
    for gradient in gradients:
        squared = squared + rate * gradient**2 / squared
    return np.sqrt(squared)


@exercise(
    "decoupling-growth",
    inputs=arguments(numbers(0.5, 3), numbers(0.5, 3), ("steps", numbers(0, 3)), steps=(1, 4)),
    wrong=[_growth_as_if_at_length_one, _lengths_added, _rate_not_squared],
    examples=40,
)
def growth(length, rate, gradients):
    """Return the length of w after steps whose gradients, at length 1, would have these norms."""
    squared = length**2
    for gradient in gradients:
        squared = squared + (rate * gradient) ** 2 / squared
    return np.sqrt(squared)
