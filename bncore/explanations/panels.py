"""Panels on which an activation and its derivative are integrated to a known accuracy.

Panels are halved until Gauss-Legendre's rule on a panel agrees with the rule on its halves, and until
the integral of the derivative is the difference of the function. A kink ends in panels too narrow to
matter; at a jump the second test never succeeds, which is how jumps are found.
"""

from typing import NamedTuple

import numpy as np

from bncore import arguments as check
from bncore.explanations.activation import REACH, TOO_FAST

POINTS = 12
TOLERANCE = 1e-12
NARROWEST = 1e-11
MOST_PANELS = 4000
# Panels that had to become narrower than this surround a kink, of the function or of its slope.
AROUND_A_KINK = 1e-4


class Rule(NamedTuple):
    """Nodes and weights with sum(weights * f(z)) = E f(z) for z ~ N(0, 1), and the function there."""

    z: np.ndarray
    weights: np.ndarray
    phi: np.ndarray
    dphi: np.ndarray


def density(z):
    """The density of N(0, 1)."""
    return np.exp(-z * z / 2) / np.sqrt(2 * np.pi)


def nodes(low, high, points=POINTS):
    """Nodes and weights of Gauss and Legendre's rule on the panels from ``low`` to ``high``."""
    places, weights = np.polynomial.legendre.leggauss(points)
    half = (np.asarray(high) - low) / 2
    middle = low + half
    return middle[..., np.newaxis] + half[..., np.newaxis] * places, half[..., np.newaxis] * weights


def gaussian(function) -> Rule:
    """A rule for expectations of phi, phi squared and phi' squared, each to 1e-9 of its size.

    Parameters
    ----------
    function : callable
        From an array to the values of phi and phi', such as ``activation.Standardized``.

    Raises
    ------
    ValueError
        If the function jumps, is too steep or too rough to be followed, or grows so fast that what
        lies beyond 12 deviations counts.
    """
    edges = _refined(function, _coarse(REACH), TOLERANCE)
    z, weights = nodes(edges[:-1], edges[1:])
    phi, dphi = function(z)
    z, weights, phi, dphi = (v.reshape(-1) for v in (z, weights * density(z), phi, dphi))
    outside = np.abs(z) > REACH - 1
    for values in (phi**2, dphi**2):
        if weights[outside] @ values[outside] > TOLERANCE * (weights @ values):
            raise ValueError(TOO_FAST)
    return Rule(z, weights, phi, dphi)


def breakpoints(function, reach):
    """Edges of panels on [-reach, reach], few even where there are kinks; and the kinks."""
    edges = _refined(function, _coarse(reach), TOLERANCE)
    # With an edge at each kink, a function that is smooth elsewhere needs no narrow panels.
    kinks, at_edges = _inside_panels(function, edges), edges[_bends(function, edges)]
    near = (np.abs(at_edges[:, np.newaxis] - kinks) < AROUND_A_KINK).any(axis=1)
    kinks = np.union1d(kinks, at_edges[~near])
    edges = _refined(function, np.union1d(_coarse(reach), kinks), 1e-9)
    return edges, kinks[_bends(function, kinks)]


def _coarse(reach):
    reach = check.positive("reach", reach)
    return np.linspace(-reach, reach, 2 * int(np.ceil(reach)) + 1)


def _inside_panels(function, edges):
    """Where the slope changes in the narrowest panel of each group of narrow ones, by bisection."""
    widths, changes = np.diff(edges), np.abs(np.diff(function(edges)[1]))
    narrow = np.flatnonzero(widths < AROUND_A_KINK)
    if not len(narrow):
        return narrow
    groups = np.split(narrow, np.flatnonzero(np.diff(narrow) > 1) + 1)
    # Of panels of one width that lie side by side, the kink is in the one that the slope changes in.
    groups = [group[widths[group] < 1.5 * widths[group].min()] for group in groups]
    chosen = np.array([group[changes[group].argmax()] for group in groups])
    low, high = edges[chosen], edges[chosen + 1]
    before, after = function(np.stack([low, high]))[1]
    for _ in range(40):
        middle = (low + high) / 2
        slope = function(middle)[1]
        left = np.abs(slope - before) > np.abs(slope - after)
        low, high = np.where(left, low, middle), np.where(left, middle, high)
    return high


def _bends(function, z):
    """Where the slope changes over a distance of 1e-5 as it does at a kink."""
    step = 1e-5 * np.array([[-2], [-1], [1], [2]])
    slopes = function(z + step)[1]
    bend = np.abs((slopes[1] - slopes[0]) - (slopes[3] - slopes[2])) / 1e-5
    return (np.abs(slopes[2] - slopes[1]) > 1e-3) | (bend > 1e-2)


def _refined(function, edges, tolerance):
    """Halve panels until the integrals on them are within the tolerance, and return the edges."""
    low, high = edges[:-1], edges[1:]
    done = [edges[:1]]
    while len(low):
        middle = (low + high) / 2
        whole, scale, climb = _moments(function, low, high)
        if (beyond := ~np.isfinite(scale).all(axis=1)).any():
            raise ValueError(
                "activation is too large or too steep to be squared in float64, for one near "
                f"z = {middle[beyond][0]:.4g}, expected moderate values and slopes"
            )
        left, right = _moments(function, low, middle)[0], _moments(function, middle, high)[0]
        rough = np.abs(whole - left - right) > tolerance * scale
        jumps = np.abs(whole[:, 0] - climb) > tolerance * scale[:, 0]
        narrow = high - low < NARROWEST
        # The last panels around a kink may miss by their width times the change of slope, no more.
        if (lost := narrow & (np.abs(whole[:, 0] - climb) > 1e-8 * scale[:, 0])).any():
            raise ValueError(
                f"activation jumps, or is too steep, at z = {round(middle[lost][0], 6) + 0.0:g}, "
                "expected a continuous function with a square-integrable derivative: a jump would "
                "make E phi'(z)^2 infinite"
            )
        split = (rough.any(axis=1) | jumps) & ~narrow
        done.append(high[~split])
        if 2 * split.sum() + sum(map(len, done)) > MOST_PANELS:
            raise ValueError(
                f"activation has structure that {MOST_PANELS} panels do not resolve, for one near "
                f"z = {middle[split][0]:.4g}, expected a function that is smooth between kinks"
            )
        low = np.concatenate([low[split], middle[split]])
        high = np.concatenate([middle[split], high[split]])
    return np.sort(np.concatenate(done))


@np.errstate(over="ignore")
def _moments(function, low, high):
    z, weights = nodes(low, high)
    phi, dphi = function(z)
    p = density(z)
    terms = np.stack([dphi, phi * p, phi**2 * p, dphi**2 * p], axis=1)
    ends = function(np.stack([low, high]))[0]
    size = 1e-3 + np.abs(phi).max(axis=1) + np.abs(ends).max(axis=0)
    weighted = p.max(axis=1)
    scale = np.stack(
        [
            size + (np.abs(dphi) * weights).sum(axis=1),
            1e-3 + size * weighted,
            1e-3 + size**2 * weighted,
            1e-3 + (dphi**2 * p * weights).sum(axis=1),
        ],
        axis=1,
    )
    return (terms * weights[:, np.newaxis]).sum(axis=2), scale, ends[1] - ends[0]
