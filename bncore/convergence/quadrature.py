"""Expectations of functions of Gaussian variables, each to a stated accuracy or refused.

E h(a), a ~ N(mean, std^2): losses change over a distance of about 1 around a = 0, the density over
a distance of std around the mean. Panels begin with both in view, each deviation has its own and
around 0 they double in width, and are halved where a function is not resolved; see ``boxes``.

A function whose structure falls between all nodes cannot be seen. So what is integrated is watched
together with what it derives from: the spike of phi'' in a steep corner of phi is a step of phi'.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bncore.convergence import boxes
from bncore.convergence.boxes import Unresolved

REACH = 20.0
ACCURACY = 1e-12
MOST = 200_000
NEAR = np.arange(-9.0, 10.0)
DEVIATIONS = np.concatenate([[-REACH, -13], NEAR, [13, REACH]])

# In two variables.
REACH_2, ACCURACY_2, MOST_2 = 10.0, 1e-10, 4_000_000
DEVIATIONS_2 = np.array([-REACH_2, -4.8, -2.2, 0.0, 2.2, 4.8, REACH_2])
STEPS = 0.4, 0.28, 0.2, 0.14, 0.1
SHIFT = 1 / np.pi


class Nodes(NamedTuple):
    """Where to evaluate, how many deviations that is from the mean, and with what weight to sum."""

    a: Float[np.ndarray, "nodes"]
    xi: Float[np.ndarray, "nodes"]
    weights: Float[np.ndarray, "nodes"]


def nodes(functions, mean: float, std: float, floor=0.0, scale: float = 1.0) -> Nodes:
    """Nodes and weights with sum(weights * h) = E h for a ~ N(mean, std^2), of each function h.

    Parameters
    ----------
    functions : callable
        From a and xi = (a - mean) / std to the values of h, a row for each function.
    mean, std : float
    floor : float or ndarray, one for each function
        What may be missed of E h beside the accuracy: what h itself is rounded by.
    scale : float
        The distance over which the functions change around a = 0.

    The estimate of what is missed is at most 1e-12 E abs(h) + floor, beside what changes when scores
    are rounded. Reaches 20 deviations to either side.

    Raises
    ------
    Unresolved
        Where this accuracy is not reached: structure too fine to follow, or growth too fast.
    """
    if std == 0:
        return Nodes(np.array([float(mean)]), np.zeros(1), np.ones(1))
    far = abs(mean) > 2 * REACH * std
    if far:
        origin, unit, edges, rounded = mean, std, DEVIATIONS, abs(mean) / std
    else:
        origin, unit, edges, rounded = 0.0, 1.0, _edges(mean, std, scale), 0.0

    def weighted(x):
        a = origin + unit * x[0]
        xi = x[0] if far else (a - mean) / std
        return functions(a, xi) * (density(xi) * (unit / std))

    with np.errstate(over="ignore", invalid="ignore"):
        (x,), weights, size = boxes.resolve(
            weighted, [edges], ACCURACY, floor, rounded, MOST,
            lambda x: f"the score {origin + unit * x[0]:.6g}",
        )  # fmt: skip
        ends = weighted(edges[np.newaxis, [0, -1]]) * (std / unit)
    _bounded(ends, size, ACCURACY, floor, REACH)
    a = origin + unit * x
    xi = x if far else (a - mean) / std
    return Nodes(a, xi, weights * density(xi) * (unit / std))


def standard(functions, axes: int, floor=0.0, rounded: float = 0.0):
    """Points xi, one column each, and weights with sum(weights * h(xi)) = E h, xi ~ N(0, I).

    For one or two axes, of each function h, a row of ``functions(xi)``. In two variables smooth
    functions are left to the trapezoidal rule, whose estimate is the difference to a coarser one,
    and others to boxes. The estimate of what is missed is at most 1e-10 E abs(h) + floor. Reaches 10 deviations.

    Raises
    ------
    Unresolved
        Where this accuracy is not reached.
    """

    def weighted(xi):
        return functions(xi) * density(xi).prod(axis=0)

    with np.errstate(over="ignore", invalid="ignore"):
        rule = _trapezoid(weighted, floor) if axes == 2 else None
        if rule is None:
            rule = boxes.resolve(
                weighted, [DEVIATIONS_2] * axes, ACCURACY_2, floor, rounded, MOST_2,
                lambda xi: f"{', '.join(f'{x:.4g}' for x in xi)} standard deviations",
            )  # fmt: skip
        side = REACH_2 * np.array([[-1.0, 1.0]])
        if axes == 2:
            along = np.tile(np.linspace(-REACH_2, REACH_2, 41), 2)
            across = np.repeat(side, 41)
            side = np.block([[along, across], [across, along]])
        ends = weighted(side)
    _bounded(ends, rule.size, ACCURACY_2, floor, REACH_2)
    return rule.points, rule.weights * density(rule.points).prod(axis=0)


def _trapezoid(functions, floor):
    """The first of ever finer rules that agrees with the one before, or None where none does.

    Grids are shifted, so that no symmetry about 0 makes two sums agree when both are wrong.
    """
    before = None
    for step in STEPS:
        count = int(REACH_2 / step)
        x = step * (np.arange(-count, count) + SHIFT)
        points = np.stack(np.meshgrid(x, x, indexing="ij")).reshape(2, -1)
        values = functions(points)
        whole, size = step**2 * values.sum(axis=1), step**2 * np.abs(values).sum(axis=1)
        if before is not None and (np.abs(whole - before) <= ACCURACY_2 * size + floor).all():
            return boxes.Rule(points, np.full(len(points[0]), step**2), size)
        before = whole
    return None


def _bounded(ends, size, accuracy, floor, reach):
    """Refuse functions whose values at the ends are not small beside the integrals of their sizes."""
    if (np.abs(ends).max(axis=1) > accuracy * size + floor).any():
        raise Unresolved(
            f"a function grows so fast that its expectation is not reached within {reach:g} "
            "deviations of the scores, expected slower growth, or scores of smaller deviation"
        )


def _edges(mean, std, scale):
    low, high = mean - REACH * std, mean + REACH * std
    largest = max(abs(low), abs(high), scale)
    powers = scale * 2.0 ** np.arange(np.ceil(np.log2(largest / scale)))
    inside = np.concatenate([mean + std * DEVIATIONS[1:-1], -powers, [0.0], powers])
    edges = np.sort(np.append(inside[(inside > low) & (inside < high)], [low, high]))
    return edges[np.append(True, edges[1:] > edges[:-1])]


def density(xi):
    """The density of N(0, 1)."""
    return np.exp(-xi * xi / 2) / np.sqrt(2 * np.pi)
