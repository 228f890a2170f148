"""The length of the weights: a bracket around a zero of the slope, then bisection.

Kohler et al. (2019), algorithms 1 and 2.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

WIDEN = 4.0
FLAT = 1e-15
WIDENINGS = 60


class Length(NamedTuple):
    """A length g, the bracket (a, b) that the search began with, and how often it was halved."""

    g: float
    bracket: tuple[float, float]
    halvings: int


class NoFiniteLength(Exception):
    """f falls along the line as far as one can see."""


class Unresolved(ValueError):
    """A line refuses a length at which it cannot compute f to its accuracy."""


def bracket(slope, near=0.0, width=1.0):
    """Lengths a and b between which the slope of f changes its sign, abs(a) <= abs(b), and the slope at a.

    Looks around ``near`` first, then widens in the direction in which f falls.

    Raises
    ------
    NoFiniteLength
        If the slope keeps its sign until it is 1e-15 of what it was at 0, for 60 widenings, or as
        far as the line computes it.
    """
    start = slope(near)
    if start == 0:
        return near, near, start
    step = -np.copysign(width, start)
    a, at_a, first = near, start, None
    for _ in range(WIDENINGS):
        b = near + step
        try:
            at_b = slope(b)
        except Unresolved as refusal:
            raise NoFiniteLength(
                f"the slope of f along the direction keeps its sign up to the length {a:.3g}, where "
                f"it is {at_a:.3g}, and it is not computed farther out: {refusal}"
            ) from refusal
        if at_b * start <= 0:
            return (a, b, at_a) if abs(a) <= abs(b) else (b, a, at_b)
        first = abs(slope(0.0)) if first is None else first
        if abs(at_b) <= FLAT * first:
            break
        a, at_a, step = b, at_b, step * WIDEN
    raise NoFiniteLength(
        f"the slope of f along the direction keeps its sign up to the length {b:.3g}, where it is "
        f"{at_b:.3g}: to working precision f falls for ever, without a minimiser of finite length"
    )


def bisection(slope, a, b, at_a, steps):
    """Halve the bracket ``steps`` times, or until its ends are neighbouring numbers.

    Returns the end a, as algorithm 2 does, and the number of halvings.
    """
    if at_a == 0:
        return a, 0
    rising = at_a > 0
    for step in range(steps):
        middle = a + (b - a) / 2
        if middle in (a, b):
            return a, step
        at_middle = slope(middle)
        if at_middle == 0:
            return middle, step + 1
        a, b = (middle, b) if (at_middle > 0) == rising else (a, middle)
    return a, steps


def search(line, steps, method, near=0.0, width=1.0):
    """The length g at which the slope of f(g w / ||w||_S) vanishes; no product with the data."""

    def slope(g):
        return line.slope(g / line.norm) / line.norm

    a, b, at_a = bracket(slope, near, width)
    if method == "brentq" and at_a != 0:
        g, report = brentq(slope, a, b, maxiter=steps, full_output=True, disp=False)
        return Length(g, (a, b), report.iterations)
    g, halvings = bisection(slope, a, b, at_a, steps)
    return Length(g, (a, b), halvings)
