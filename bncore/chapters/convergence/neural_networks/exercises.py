"""Exercises of the neural networks chapter."""

import numpy as np
from hypothesis import strategies as st

from bncore.page.exercises import arguments, exercise, numbers


def _without_the_bends(first, second, slopes, bends, theta):
    pull = slopes * theta
    return pull.T @ (second[:, np.newaxis] * pull) / len(first)


def _theta_once(first, second, slopes, bends, theta):
    B = slopes.T @ (second[:, np.newaxis] * slopes * theta) / len(first)
    return B + np.diag(first @ bends * theta / len(first))


def _bends_everywhere(first, second, slopes, bends, theta):
    pull = slopes * theta
    B = pull.T @ (second[:, np.newaxis] * pull) / len(first)
    return B + first @ bends * theta / len(first)


@exercise(
    "neural-networks-second-order",
    inputs=arguments(
        "samples",
        "samples",
        "samples units",
        "samples units",
        "units",
        samples=(1, 4),
        units=(1, 3),
    ),
    wrong=[_without_the_bends, _theta_once, _bends_everywhere],
    examples=25,
)
def second_order(first, second, slopes, bends, theta):
    """Return the matrix B from the derivatives of loss and units at each sample."""
    pull = slopes * theta
    B = pull.T @ (second[:, np.newaxis] * pull) / len(first)
    return B + np.diag(first @ bends * theta / len(first))


def _definite(drawn):
    """S from any square matrix, and u from any vector, with neither zero."""
    *rest, u, factor = drawn
    u = u.copy()
    u[0] += 5 if u[0] >= 0 else -5
    return (*rest, u, factor @ factor.T + np.eye(len(u)))


def _euclidean(W, u, S):
    along = np.linalg.solve(S, u)
    p = W @ along / (along @ along)
    return p, W - np.outer(p, along)


def _along_u(W, u, S):
    p = W @ u / (u @ u)
    return p, W - np.outer(p, u)


@exercise(
    "neural-networks-split",
    inputs=arguments("units d", "d", "d d", units=(1, 2), d=(1, 3)).map(_definite),
    wrong=[_euclidean, _along_u],
    examples=25,
)
def split(W, u, S):
    """Return p and V of W = p (S^-1 u)' + V, a part on the line and a part with V u = 0."""
    along = np.linalg.solve(S, u)
    p = W @ u / (u @ along)
    return p, W - np.outer(p, along)


def _others_ignored(alpha, own, coupling, others, u, S):
    return -alpha / own * np.linalg.solve(S, u)


def _others_through_s(alpha, own, coupling, others, u, S):
    return -np.linalg.solve(S, alpha * u + coupling @ others) / own


@exercise(
    "neural-networks-one-unit",
    inputs=st.integers(1, 3).flatmap(
        lambda d: arguments(
            numbers(), numbers(0.5, 4), "others", "others d", "d", "d d", others=(1, 2), d=d
        ).map(_definite)
    ),
    wrong=[_others_ignored, _others_through_s],
    examples=25,
)
def one_unit(alpha, own, coupling, others, u, S):
    """Return the weights w with alpha u + own S w + sum of coupling_j S w_j equal to zero."""
    return -(alpha * np.linalg.solve(S, u) + coupling @ others) / own


def _whole_gradient(before, after, weight):
    return np.linalg.norm(after - before) / np.linalg.norm(before)


def _whole_layer(before, after, weight):
    unit = weight / np.linalg.norm(weight)
    before, after = (g - (g * unit).sum() * unit for g in (before, after))
    return np.linalg.norm(after - before) / np.linalg.norm(before)


def _turns(drawn):
    """Whether every unit has weights and some unit's gradient has a part that turns it."""
    before, _, weight = drawn
    lengths = np.linalg.norm(weight, axis=1)
    if lengths.min() < 0.5:
        return False
    unit = weight / lengths[:, np.newaxis]
    return np.abs(before - (before * unit).sum(axis=1)[:, np.newaxis] * unit).max() > 0.1


@exercise(
    "neural-networks-direction-change",
    inputs=arguments("units d", "units d", "units d", units=(1, 2), d=(2, 3)).filter(_turns),
    wrong=[_whole_gradient, _whole_layer],
    examples=25,
)
def direction_change(before, after, weight):
    """Return the relative change of the part of a layer's gradient that turns its units."""
    unit = weight / np.linalg.norm(weight, axis=1)[:, np.newaxis]
    before, after = (g - (g * unit).sum(axis=1)[:, np.newaxis] * unit for g in (before, after))
    return np.linalg.norm(after - before) / np.linalg.norm(before)
