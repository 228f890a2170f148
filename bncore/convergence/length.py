"""The length of the weights: a bracket around a zero of the slope, then bisection.

Kohler et al. (2019), algorithms 1 and 2.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from bncore.convergence.boxes import Unresolved

WIDEN = 4.0
FLAT = 1e-15
WIDENINGS = 60
NUDGE = 1e-6
LOOKS = 7
SMALLEST = np.finfo(np.float64).tiny


class Length(NamedTuple):
    """A length g, the bracket (a, b) that the search began with, and how often it was halved."""

    g: float
    bracket: tuple[float, float]
    halvings: int


class NoFiniteLength(Exception):
    """f falls along the line as far as one can see."""


def bracket(slope, near=0.0, width=1.0):
    """Lengths a and b with a minimum of f between them, abs(a) <= abs(b), and the slope at a.

    f falls from either end into the bracket. Looks at ``near`` first, then ever farther out in the
    direction in which f falls, and last between where it has looked; where ``near`` is a maximum,
    towards larger lengths. Both ends are ``near`` where the slope is 0 and f falls to neither side.

    Raises
    ------
    NoFiniteLength
        If the slope keeps its sign until it is 1e-15 of the steepest seen, or for 60 widenings.
    Unresolved
        If the line refuses a length before the slope has changed its sign.
    """
    a, at_a = near, slope(near)
    if at_a == 0:
        a, at_a = _downhill(slope, near, NUDGE * width)
        if at_a == 0:
            return near, near, at_a
    seen, refusal = [(a, at_a)], None
    for step in -np.copysign(width, at_a) * WIDEN ** np.arange(WIDENINGS):
        a, at_a = seen[-1]
        b = a + step
        try:
            at_b = slope(b)
            if at_b == 0:
                b = b + NUDGE * step
                at_b = slope(b)
        except Unresolved as error:
            refusal = error
            break
        if len(seen) == 1 and at_b * at_a >= 0:
            steepest = max(abs(slope(0.0)), abs(at_a))
        if at_b * at_a < 0 or (at_b == 0 and abs(_before_level(slope, a, b)) > FLAT * steepest):
            return _inside_out(a, b, at_a, at_b)
        seen.append((b, at_b))
        # next to a minimum the slope is as small, but not beside it
        if abs(at_b) <= FLAT * steepest and abs(slope(b + NUDGE * step)) <= FLAT * steepest:
            break
    for (a, at_a), (b, _) in itertools.pairwise(seen):
        for middle in np.linspace(a, b, LOOKS + 2)[1:-1]:
            if (at_middle := slope(middle)) * at_a < 0:
                return _inside_out(a, float(middle), at_a, at_middle)
            a, at_a = (float(middle), at_middle) if at_middle != 0 else (a, at_a)
    a, at_a = seen[-1]
    so_far = (
        f"the slope of f along the direction keeps its sign up to the length {a:.3g}, where it is "
        f"{at_a:.3g}"
    )
    if refusal is not None:
        raise Unresolved(f"{so_far}, and it is not computed farther out: {refusal}") from refusal
    raise NoFiniteLength(
        f"{so_far}: to working precision f falls for ever, without a minimiser of finite length"
    )


def _inside_out(a, b, at_a, at_b):
    return (a, b, at_a) if abs(a) <= abs(b) else (b, a, at_b)


def _downhill(slope, g, step):
    """A length beside g to which f falls, with the slope there; g and 0 if f falls to neither side."""
    for b in (g + step, g - step):
        at_b = slope(b)
        if at_b * (b - g) < 0:
            return b, at_b
    return g, 0.0


def _before_level(slope, a, b):
    """The slope a thousandth of b - a, at most, before f becomes level on the way from a to b.

    It is far from 0 where the least value of f is reached, and next to 0 where f only comes near.
    """
    for _ in range(10):
        middle = a + (b - a) / 2
        a, b = (a, middle) if slope(middle) == 0 else (middle, b)
    return slope(a)


def bisection(slope, a, b, at_a, steps):
    """Halve the bracket ``steps`` times, or until its ends are neighbouring numbers.

    Returns the end a, as algorithm 2 does, and the number of halvings. A middle where the slope
    is 0 ends the search, unless f falls from it to either side.
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
            middle, at_middle = _downhill(slope, middle, NUDGE * (b - a))
        if at_middle == 0:
            return middle, step + 1
        a, b = (middle, b) if (at_middle > 0) == rising else (a, middle)
    return a, steps


def search(line, steps, method, near=0.0, width=1.0):
    """The length g at which f(g w / ||w||_S) has a minimum; no product with the data.

    Raises
    ------
    NoFiniteLength
        If f falls for ever.
    Unresolved
        If f is not computed as far as its minimum, or its slope is not finite.
    """

    def slope(g):
        found = line.slope(g / line.norm) / line.norm
        if not np.isfinite(found):
            raise Unresolved(f"the slope of f is {found} at the length {g:.6g}, expected a number")
        return found

    a, b, at_a = bracket(slope, near, width)
    if method == "brentq" and at_a != 0:
        return _brent(slope, a, b, at_a, steps)
    g, halvings = bisection(slope, a, b, at_a, steps)
    return Length(g, (a, b), halvings)


def _brent(slope, a, b, at_a, steps):
    """SciPy's root of the slope; again from beside it, where that root is a maximum."""
    low, made = a, 0
    while True:
        g, report = brentq(
            slope, low, b, xtol=SMALLEST, maxiter=max(steps - made, 1), full_output=True, disp=False
        )
        made += report.iterations
        beyond = g + NUDGE * (b - low)
        if made >= steps or slope(beyond) * at_a <= 0:
            return Length(g, (a, b), made)
        low = beyond
