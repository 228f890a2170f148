"""Losses of a score a = z'w with their first two derivatives, stable for scores of any size.

z = -y x, so that a negative score is a correct answer and an increasing loss punishes mistakes.
Kohler et al. (2019), section 4 and assumption 2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from bncore import arguments as check

# exp(700) is finite; the logistic function of anything lower is 0 beside 1e-304.
LOWEST = -700.0

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


def check_derivatives(loss: object, largest: float = 10.0, tolerance: float = 1e-5) -> None:
    """Compare the two derivatives of a loss with central differences on [-largest, largest].

    Raises
    ------
    ValueError
        If a derivative is off by more than ``tolerance``, relative to its largest value: says
        which, where, and what was expected.
    """
    loss = get(loss)
    check.positive("largest", largest)
    check.positive("tolerance", tolerance)
    a = np.linspace(-largest, largest, 401)
    h = 1e-5 * largest
    for name, function, derivative in (
        ("dphi", loss.phi, loss.dphi),
        ("d2phi", loss.dphi, loss.d2phi),
    ):
        expected = (function(a + h) - function(a - h)) / (2 * h)
        given = np.asarray(derivative(a))
        if given.shape != a.shape:
            raise ValueError(
                f"{name} returns shape {given.shape} for scores of shape {a.shape}, expected the "
                "same shape"
            )
        error = np.abs(given - expected)
        if not (error <= tolerance * max(1.0, np.abs(expected).max())).all():
            worst = int(np.nanargmax(np.where(np.isnan(error), np.inf, error)))
            raise ValueError(
                f"{name}({a[worst]:.3g}) is {given[worst]:.6g}, expected {expected[worst]:.6g}, "
                "the derivative by central differences"
            )
