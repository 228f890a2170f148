"""Losses of a score a = z'w with their first two derivatives, stable for scores of any size.

z = -y x, so that a negative score is a correct answer and an increasing loss punishes mistakes.
Kohler et al. (2019), section 4 and assumption 2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float

from bncore import arguments as check

# exp(700) is finite; the logistic function of anything lower is 0 beside 1e-304.
LOWEST = -700.0

# Where losses are checked: on each panel Chebyshev's points, with the slopes of the polynomial
# through values at them, and its last coefficients.
RADII = 2.0 ** np.arange(-20, 41)
EDGES = np.concatenate([-RADII[::-1], [0.0], RADII])
LOBATTO = -np.cos(np.pi * np.arange(20) / 19)
BASIS = np.polynomial.chebyshev.chebvander(LOBATTO, 19)
INVERSE = np.linalg.inv(BASIS)
DERIVATIVE = np.polynomial.chebyshev.chebvander(LOBATTO, 18) @ (
    np.polynomial.chebyshev.chebder(np.eye(20)) @ INVERSE
)
TAIL = INVERSE[-2:].T
ROUNDING = 1e-13 * np.abs(DERIVATIVE).sum(axis=1)

Function = Callable[[Float[np.ndarray, "*scores"]], Float[np.ndarray, "*scores"]]


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss phi and its derivatives, each a vectorised function of the scores.

    Attributes
    ----------
    phi, dphi, d2phi : callable
        phi, phi' and phi'', from an array of scores to an array of the same shape.
    slope_bound : float
        The largest magnitude of phi', which the theorems call Phi; infinite where it is not known.
    curvature_bound : float
        The largest magnitude of phi''; infinite where it is not known.
    name : str
        What to call it in messages.
    """

    phi: Function
    dphi: Function
    d2phi: Function
    slope_bound: float = np.inf
    curvature_bound: float = np.inf
    name: str = "custom"

    @property
    def functions(self) -> tuple[Function, Function, Function]:
        """phi, phi' and phi''."""
        return self.phi, self.dphi, self.d2phi

    @property
    def width(self) -> float:
        """The distance over which phi' changes where the bounds say so, but at most 1."""
        width = self.slope_bound / self.curvature_bound if self.curvature_bound > 0 else np.inf
        return min(width, 1.0) if 0 < width < np.inf else 1.0

    @cached_property
    def sizes(self) -> Float[np.ndarray, "3"]:
        """The largest magnitudes of phi, phi' and phi'' for abs(a) <= 1."""
        a = np.linspace(-1.0, 1.0, 17)
        return np.array([np.abs(function(a)).max() for function in self.functions])


def _softplus(a):
    return np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))


def _logistic(a):
    lowest = LOWEST if np.result_type(a) == np.float64 else -88
    return 1 / (1 + np.exp(-np.maximum(a, lowest)))


def _logistic_slope(a):
    decay = np.exp(-np.abs(a))
    return decay / (1 + decay) ** 2


def _logistic_bend(a):
    return -_logistic_slope(a) * np.tanh(a / 2)


def _sech_squared(a):
    return 4 * _logistic_slope(2 * a)


LOSSES = {
    "softplus": Loss(_softplus, _logistic, _logistic_slope, 1.0, 1 / 4, "softplus"),
    "sigmoid": Loss(_logistic, _logistic_slope, _logistic_bend, 1 / 4, 1 / (6 * 3**0.5), "sigmoid"),
    "tanh": Loss(
        np.tanh,
        _sech_squared,
        lambda a: -2 * np.tanh(a) * _sech_squared(a),
        1.0,
        4 / (3 * 3**0.5),
        "tanh",
    ),
    "squared": Loss(
        lambda a: (1 + a) ** 2,
        lambda a: 2 * (1 + a),
        lambda a: np.full_like(a, 2.0),
        np.inf,
        2.0,
        "squared",
    ),
}


def get(loss: object) -> Loss:
    """Return the loss of a name, of a triple (phi, dphi, d2phi), or the loss itself.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If no loss has the name.
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise ValueError(f"loss is {loss!r}, expected one of {', '.join(LOSSES)}")
        return LOSSES[loss]
    if isinstance(loss, tuple) and len(loss) == 3 and all(map(callable, loss)):
        return Loss(*loss)
    raise TypeError(
        f"loss is a {check.type_name(loss)}, expected a name, a triple of callables "
        "(phi, dphi, d2phi) or a Loss"
    )


def checked(loss: object, smooth: bool = False) -> Loss:
    """The loss of ``get``, after ``check_derivatives``; each loss is checked once."""
    loss = get(loss)
    if loss not in LOSSES.values():
        _check(loss, smooth)
    return loss


def check_derivatives(loss: object, smooth: bool = True) -> None:
    """Compare phi' with the changes of phi, phi'' with those of phi', and both with their bounds.

    Scores from 0 to 2^40 on either side are divided into panels, each twice as wide as the one
    before, and halved where a function is not a polynomial of degree 19 to 1e-9 of its size nearer
    to 0. Where it is one, the derivative of the polynomial is known, and has to be the given one.
    Kinks and structure too fine for 4000 panels are left out; so are scores beyond 32 where a
    function leaves the range of numbers.

    Parameters
    ----------
    loss : str, triple of callables or Loss
    smooth : bool
        Whether phi' must not jump: expectations of phi'' over Gaussian scores do not see jumps.

    Raises
    ------
    ValueError
        If a derivative is wrong, larger than its bound, or not finite, or a function jumps: says
        which, where, and what was expected.
    """
    _check(get(loss), smooth)


@lru_cache(maxsize=256)
@np.errstate(over="ignore", invalid="ignore")
def _check(loss, smooth):
    low, high = EDGES[:-1], EDGES[1:]
    scales, count = None, 0
    while len(low):
        a = (low + high)[:, np.newaxis] / 2 + (high - low)[:, np.newaxis] / 2 * LOBATTO
        values = _evaluated(loss, a)
        if scales is None:
            scales = _scales(values)
            _check_bounds(loss, a, values)
        near = np.searchsorted(RADII, np.maximum(np.abs(low), np.abs(high)))
        seen = np.isfinite(values).all(axis=(0, 2)) & np.isfinite(scales[:, near]).all(axis=0)
        split = np.zeros(len(low), bool)
        for order, name in ((1, "dphi"), (2, "d2phi")):
            above, given = values[order - 1], values[order]
            size, largest = scales[order - 1, near], scales[order, near]
            rough = _rough(above, size) | _rough(given, largest)
            split |= rough
            half = (high - low)[:, np.newaxis] / 2
            expected = above @ DERIVATIVE.T / half
            moved = np.abs(a).max(axis=1) * np.abs(given).max(axis=1)
            rounding = ROUNDING * (np.abs(above).max(axis=1) + moved)[:, np.newaxis] / half
            off = np.abs(given - expected) - rounding > 1e-6 * largest[:, np.newaxis] + 1e-280
            wrong = off & (seen & ~rough)[:, np.newaxis]
            if wrong.any():
                i = np.unravel_index(wrong.argmax(), wrong.shape)
                raise ValueError(
                    f"{name}({a[i]:.4g}) is {given[i]:.6g}, expected {expected[i]:.6g}, the slope of "
                    f"{'phi' if order == 1 else 'dphi'} there"
                )
        narrow = high - low < 1e-12 * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
        for order, name in enumerate(("phi", "dphi") if smooth else ("phi",)):
            jump = np.abs(values[order, :, -1] - values[order, :, 0])
            smooth_part = 4 * (high - low) * scales[order + 1, near]
            jumps = seen & narrow & (jump - smooth_part > 1e-6 * scales[order, near])
            if jumps.any():
                raise ValueError(
                    f"{name} jumps by {jump[jumps][0]:.3g} at {low[jumps][0]:.6g}, expected a "
                    "continuous function: its derivative is not a function there"
                )
        split &= seen & ~narrow
        count += len(low)
        if count + 2 * split.sum() > 4000:
            return
        middle = (low + high)[split] / 2
        low, high = np.append(low[split], middle), np.append(middle, high[split])


def _evaluated(loss, a):
    """phi, phi' and phi'' at all a; refuse other shapes, and what is not finite for abs(a) <= 32."""
    found = []
    with np.errstate(all="ignore"):
        for name, function in zip(("phi", "dphi", "d2phi"), loss.functions, strict=True):
            values = np.asarray(function(a.reshape(-1)))
            if values.shape != (a.size,):
                raise ValueError(
                    f"{name} returns shape {values.shape} for scores of shape {(a.size,)}, expected "
                    "the same shape"
                )
            found.append(values.reshape(a.shape).astype(np.float64))
            bad = ~np.isfinite(found[-1]) & (np.abs(a) <= 32)
            if bad.any():
                first = np.unravel_index(np.where(bad, np.abs(a), np.inf).argmin(), a.shape)
                raise ValueError(
                    f"{name}({a[first]:.4g}) is {found[-1][first]}, expected a finite number for "
                    "abs(a) up to 32"
                )
    return np.array(found)


def _scales(values):
    """The largest size of each function up to each radius, on both sides of 0."""
    largest = np.abs(values).max(axis=2)
    both = np.maximum(largest[:, : len(RADII)][:, ::-1], largest[:, len(RADII) :])
    return np.maximum.accumulate(both, axis=1)


def _check_bounds(loss, a, values):
    for bound, name, given in (
        ("slope_bound", "dphi", values[1]), ("curvature_bound", "d2phi", values[2])
    ):  # fmt: skip
        limit = getattr(loss, bound)
        size = np.where(np.isfinite(given), np.abs(given), 0.0)
        if (size > (1 + 1e-9) * limit).any():
            i = np.unravel_index(size.argmax(), size.shape)
            raise ValueError(
                f"{bound} is {limit:.6g}, but {name}({a[i]:.4g}) is {given[i]:.6g}: expected the "
                f"largest magnitude of {name}"
            )


def _rough(values, scale):
    """Where the last coefficients of the polynomial through the values are not small."""
    return (np.abs(values @ TAIL) > 1e-9 * scale[:, np.newaxis]).any(axis=1)
