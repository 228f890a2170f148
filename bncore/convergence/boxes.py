"""Boxes on which functions are resolved: adaptive Gauss-Lobatto quadrature in one or two variables.

On a box each function is expanded in Legendre polynomials along either axis. The last coefficients
say what the polynomials miss; boxes where they miss most are halved until the whole is small enough.
The integral by Lobatto's rule on the same nodes is more accurate still.
"""

from typing import NamedTuple

import numpy as np

ORDER = 20
# Lobatto's nodes: the ends of a box are among them, so that no step hides beside an end.
TOP = np.polynomial.legendre.Legendre.basis(ORDER - 1)
POINTS = np.concatenate([[-1.0], np.sort(TOP.deriv().roots().real), [1.0]])
for _ in range(2):
    POINTS[1:-1] -= TOP.deriv()(POINTS[1:-1]) / TOP.deriv(2)(POINTS[1:-1])
WEIGHTS = 2 / (ORDER * (ORDER - 1) * TOP(POINTS) ** 2)
LAST = np.polynomial.legendre.legvander(POINTS, ORDER - 1)[:, -2:] * WEIGHTS[:, np.newaxis]
LAST = LAST * [ORDER - 1.5, (ORDER - 1) / 2]
# By the number of axes: the nodes of the box from -1 to 1, and their weights.
GRIDS = {
    1: (POINTS[np.newaxis], WEIGHTS),
    2: (
        np.stack(np.meshgrid(POINTS, POINTS, indexing="ij")).reshape(2, -1),
        np.outer(WEIGHTS, WEIGHTS).reshape(-1),
    ),
}
EPS = np.finfo(np.float64).eps
SMALLEST = np.finfo(np.float64).tiny


class Unresolved(ValueError):
    """An expectation is not computed to its stated accuracy."""


class Rule(NamedTuple):
    """Points, one column each, and weights: sum(weights * f(points)) is the integral of f."""

    points: np.ndarray
    weights: np.ndarray
    size: np.ndarray | None = None  # of each function the integral of its absolute value


class _Boxes(NamedTuple):
    """Ends along each axis; of each function the integral of its size, and what either axis misses."""

    low: np.ndarray  # (boxes, axes)
    high: np.ndarray  # (boxes, axes)
    size: np.ndarray  # (boxes, functions)
    missed: np.ndarray  # (boxes, axes, functions)


def resolve(functions, edges, accuracy, floor, rounded, most, place) -> Rule:
    """A rule for the functions on the box that edges along its axes divide.

    Parameters
    ----------
    functions : callable
        From points, one column each, to values, a row for each function.
    edges : sequence of ndarray
        Along each axis, ascending.
    accuracy : float
    floor : float or ndarray, one for each function
        Boxes are halved until what is missed of a function is at most accuracy * (integral of its
        size) + floor, beside what changes when points are rounded.
    rounded : float
        Points are rounded as if their size were larger by this.
    most : int
        The largest number of points.
    place : callable
        From a point to the words for it in a refusal.

    Raises
    ------
    Unresolved
        If more points would be needed. A jump needs few: it is followed until rounding decides on
        which side of it a point lies.
    """
    low, high = (
        np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, len(edges))
        for ends in ([along[:-1] for along in edges], [along[1:] for along in edges])
    )
    boxes = _measured(functions, low, high, rounded)
    while True:
        size, missed = boxes.size.sum(axis=0), boxes.missed.sum(axis=(0, 1))
        allowed = accuracy * size + floor
        if not np.isfinite(missed).all() or (missed <= allowed).all():
            return _rule(boxes.low, boxes.high)._replace(size=size)
        part = boxes.missed / np.maximum(allowed, SMALLEST)
        split = (part > 1 / (2 * part[..., 0].size)).any(axis=2)
        count = ORDER ** len(edges) * int((2 ** split.sum(axis=1)).sum())
        if count > most:
            box, _, function = np.unravel_index(part.argmax(), part.shape)
            middle = (boxes.low[box] + boxes.high[box]) / 2
            raise Unresolved(
                f"quadrature reaches {missed[function] / max(size[function], SMALLEST):.1e} of the "
                f"size of an expectation, expected {accuracy:.0e}: its integrand needs more "
                f"than {most} points, most of all near {place(middle)}"
            )
        boxes = _halved(functions, boxes, split, rounded)


def _halved(functions, boxes, split, rounded):
    whole = ~split.any(axis=1)
    low, high, split = boxes.low[~whole], boxes.high[~whole], split[~whole]
    for axis in range(low.shape[1]):
        cut = split[:, axis]
        upper, lower = low[cut], high.copy()
        upper[:, axis] = lower[cut, axis] = low[cut, axis] + (high - low)[cut, axis] / 2
        low, high = np.concatenate([low, upper]), np.concatenate([lower, high[cut]])
        split = np.concatenate([split, split[cut]])
    found = _measured(functions, low, high, rounded)
    return _Boxes(*(np.concatenate([a[whole], b]) for a, b in zip(boxes, found, strict=True)))


def _rule(low, high):
    grid, weights = GRIDS[low.shape[1]]
    half = (high - low) / 2
    points = (low + half).T[..., np.newaxis] + half.T[..., np.newaxis] * grid[:, np.newaxis]
    weights = half.prod(axis=1)[:, np.newaxis] * weights
    return Rule(points.reshape(len(grid), -1), weights.reshape(-1))


def _measured(functions, low, high, rounded):
    points, weights, _ = _rule(low, high)
    boxes, axes = low.shape
    values = functions(points)
    size = np.abs(values * weights).reshape(len(values), boxes, -1).sum(axis=2).T
    values = values.reshape(len(values), boxes, *[ORDER] * axes)
    far, volume = np.maximum(np.abs(low), np.abs(high)) + rounded, (high - low).prod(axis=1)
    missed = np.empty((boxes, axes, len(values)))
    for axis in range(axes):
        along = values if axis == axes - 1 else values.swapaxes(2, 3)
        tail = np.abs(along @ LAST).sum(axis=-1)
        change = np.abs(along[..., 1:] - along[..., :-1]).sum(axis=-1)
        if axes == 2:
            tail, change = tail @ WEIGHTS / 2, change @ WEIGHTS / 2
        noise = 16 * EPS * far[:, axis] / (high - low)[:, axis] * change
        missed[:, axis] = (volume * np.maximum(tail - noise, 0.0)).T
    return _Boxes(low, high, size, missed)
