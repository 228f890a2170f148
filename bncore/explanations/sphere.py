"""Expectations over two coordinates of a point that is uniform on a sphere: a normalised batch.

A batch of B values less their mean, over their deviation, is a vector h of mean zero on the sphere of
radius sqrt(B). Where the values were normal it is uniform there, and what a layer with batch norm does
on average are integrals over two of its coordinates.
"""

from typing import NamedTuple

import numpy as np

from bncore.explanations.activation import REACH
from bncore.explanations.panels import POINTS, breakpoints, gaussian, nodes

ACCURACY = 1e-9
MOST_PAIRS = 6_000_000


class Moments(NamedTuple):
    """What mean-field theory needs to know of an activation and a batch.

    Attributes
    ----------
    slopes : float
        E[(B - 1 - h1^2) phi'(h1)^2 + (1 + h1 h2) phi'(h1) phi'(h2)] / (B - 3).
    variance : float
        E[phi(h1)^2 - phi(h1) phi(h2)].
    spread : float
        E[phi(h1)^2 (h1^2 - 1)] / 2 - E[phi(h1) phi(h2) (h1^2 - 1)] (B - 1) / (B - 2).
    """

    slopes: float
    variance: float
    spread: float


def moments(function, batch_size: int) -> Moments:
    """The moments of a batch. Growth and multiplier, their ratios, are right to 1e-9.

    The error is that of a rule with two points fewer on each panel. Panels are halved until it is
    small enough.

    Raises
    ------
    ValueError
        If the function grows too fast, jumps, is constant where the batch reaches, or has structure
        that six million pairs of nodes do not resolve.
    """
    reach = min(np.sqrt(batch_size - 1.0), REACH)
    if reach == REACH:
        gaussian(function)  # refuses what grows too fast
    edges, kinks = breakpoints(function, reach)
    halvings = 0
    while True:
        rule = pairs(batch_size, edges, kinks, halvings)
        found = _moments(function, batch_size, rule)
        if not found.variance > 1e-9:
            raise ValueError(
                f"activation is constant for abs(z) up to {reach:.3g}, all that a batch of "
                f"{batch_size} reaches, expected a function that varies"
            )
        coarse = pairs(batch_size, edges, kinks, halvings, POINTS - 2)
        if _apart(found, _moments(function, batch_size, coarse)) < ACCURACY:
            return found
        if 4 * rule[1].size > MOST_PAIRS:
            raise ValueError(
                f"activation has structure that {rule[1].size} pairs of nodes do not resolve in a "
                f"batch of {batch_size} to {ACCURACY:g}, expected a smoother function"
            )
        halvings += 1


def pairs(B, breaks, kinks, halvings=0, points=POINTS):
    """Nodes h1, for each of them nodes h2, and joint weights, of two coordinates on the sphere.

    A coordinate is sqrt(B - 1) sin(a) with density cos(a)^(B - 3); given the first, the second is
    r h1 + sqrt((1 - r^2) (B - 1)) cos(a) sin(b) with density cos(b)^(B - 4), r = -1 / (B - 1).
    """
    radius = np.sqrt(B - 1.0)
    r = -1 / (B - 1.0)
    edges = np.arcsin(np.clip(breaks / radius, -1, 1))
    if B < 12:
        edges = _graded(edges, np.arcsin(kinks / radius), np.arccos(r))
    edges = _halved(edges, halvings)
    a, outer = (v.reshape(-1) for v in nodes(edges[:-1], edges[1:], points))
    outer = outer * np.cos(a) ** (B - 3)
    h = radius * np.sin(a)
    width = np.sqrt(1 - r * r) * radius * np.cos(a)[:, np.newaxis]
    cuts = np.arcsin(np.clip((breaks - r * h[:, np.newaxis]) / width, -1, 1))
    cuts = _halved(cuts, halvings)
    b, inner = (v.reshape(len(h), -1) for v in nodes(cuts[:, :-1], cuts[:, 1:], points))
    inner = inner * np.cos(b) ** (B - 4)
    inner /= inner.sum(axis=1, keepdims=True)
    k = r * h[:, np.newaxis] + width * np.sin(b)
    return h, k, outer[:, np.newaxis] / outer.sum() * inner


def _moments(function, B, rule):
    h, k, weights = rule
    (phi_h, dphi_h), (phi_k, dphi_k) = function(h), function(k)
    first = weights.sum(axis=1)
    slopes = first @ ((B - 1 - h**2) * dphi_h**2)
    slopes += ((weights * (1 + h[:, np.newaxis] * k) * dphi_k).sum(axis=1) * dphi_h).sum()
    phi_h = phi_h - first @ phi_h
    phi_k = (weights * (phi_k - (weights * phi_k).sum())).sum(axis=1)
    variance = first @ phi_h**2 - phi_h @ phi_k
    outward = phi_h * (h**2 - 1)
    spread = first @ (outward * phi_h) / 2 - outward @ phi_k * (B - 1) / (B - 2)
    return Moments(float(slopes) / (B - 3), float(variance), float(spread))


def _apart(fine, coarse):
    """How far two sets of moments are apart in what is made of them."""
    size = fine.variance
    return max(
        abs(coarse.slopes / fine.slopes - 1),
        abs(coarse.variance / size - 1),
        abs(coarse.spread - fine.spread) / max(size, abs(fine.spread)),
    )


def _halved(edges, times):
    for _ in range(times):
        middle = (edges[..., :-1] + edges[..., 1:]) / 2
        both = np.empty((*edges.shape[:-1], 2 * edges.shape[-1] - 1))
        both[..., ::2], both[..., 1::2] = edges, middle
        edges = both
    return edges


def _graded(edges, kinks, turn):
    """Add panels that shrink towards where a kink of phi(h2) enters or leaves the range of h2.

    There the inner integral is as rough as a half-integer power, which matters in small batches.
    """
    entries = np.concatenate(
        [kinks - turn, kinks + turn, np.pi - kinks - turn, turn - np.pi - kinks]
    )
    steps = np.concatenate([[0.0], 0.12 ** np.arange(1, 7)])
    more = (entries[:, np.newaxis] + np.concatenate([-steps, steps])).reshape(-1)
    return np.union1d(edges, more[(more > edges[0]) & (more < edges[-1])])
