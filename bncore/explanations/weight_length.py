"""How the length of weights grows that a scale-invariant loss does not see.

The gradient of such a loss is orthogonal to the weights, so every step of gradient descent makes them
longer, and weight decay shorter. ``effective_rate`` has what that does to their direction.
van Laarhoven (2017); Arora, Li and Lyu (2019).
"""

import math

import numpy as np
from jaxtyping import Float, Real

from bncore import arguments as check

Number = float | int
Lengths = Float[np.ndarray, "steps_and_start"]


def squared_lengths(
    rate: Number,
    gradients: Real[np.ndarray, "steps"] | check.Listed,
    start: Number = 1.0,
    decay: Number = 0.0,
) -> Lengths:
    """Squared lengths of w under gradient descent with weight decay on a scale-invariant loss.

    r -> (1 - rate decay)^2 r + rate^2 G^2 / r, exactly, because the gradient at w is orthogonal to
    w and has the length G / sqrt(r).

    Parameters
    ----------
    rate : float
        Learning rate.
    gradients : Float[ndarray, "steps"]
        G for each step: the length of the gradient at w / norm(w), that is norm(w) times its
        length at w.
    start : float
        Squared length before the first step.
    decay : float
        Coefficient of weight decay.

    Returns
    -------
    Float[ndarray, "steps_and_start"]
        One more entry than steps; the first is ``start``.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If rate or start is not positive, decay is negative, rate times decay is 1 or more, a
        gradient is negative or not finite, or a length leaves the range of floats.
    """
    rate, decay = rate_and_decay(rate, decay)
    gradients = check.array("gradients", gradients)
    if gradients.ndim != 1:
        raise ValueError(f"gradients has shape {gradients.shape}, expected one number a step")
    check.finite("gradients", gradients)
    check.no_negative("gradients", gradients)
    lengths = np.empty(len(gradients) + 1)
    lengths[0] = check.positive("start", start)
    with np.errstate(all="ignore"):  # refused below
        for t, gradient in enumerate(gradients.astype(float)):
            push = rate * gradient / lengths[t] * (rate * gradient)
            lengths[t + 1] = (1 - rate * decay) ** 2 * lengths[t] + push
    good = np.isfinite(lengths) & (lengths > 0)
    if not good.all():
        raise ValueError(
            f"gradients has {len(gradients)} entries, expected fewer or others: after "
            f"{int(good.argmin())} steps the squared length is {lengths[good.argmin()]}"
        )
    return lengths


def smooth_squared_lengths(
    steps: Real[np.ndarray, "times"] | check.Listed,
    rate: Number,
    gradient: Number,
    start: Number = 1.0,
    decay: Number = 0.0,
) -> Float[np.ndarray, "times"]:
    """Squared length after a number of small steps with a gradient of constant length.

    With decay, sqrt(e + (start^2 - e) exp(-4 rate decay t)) with e = rate G^2 / (2 decay), the
    square in equilibrium; without, sqrt(start^2 + 2 rate^2 G^2 t). It solves
    d(r^2)/dt = 2 rate^2 G^2 - 4 rate decay r^2, which ``squared_lengths`` approaches for small steps.

    Parameters
    ----------
    steps : Float[ndarray, "times"]
        Numbers of steps t.
    rate : float
        Learning rate.
    gradient : float
        G, the length of the gradient at w / norm(w).
    start : float
        Squared length before the first step.
    decay : float
        Coefficient of weight decay.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If rate or start is not positive, gradient or decay is negative, rate times decay is 1 or
        more, a number of steps is negative, or a length leaves the range of its dtype.
    """
    rate, decay = rate_and_decay(rate, decay)
    gradient, start = check.nonnegative("gradient", gradient), check.positive("start", start)
    steps = check.array("steps", steps)
    check.finite("steps", steps)
    if (steps < 0).any():
        raise ValueError(f"steps holds {steps.min()}, expected at least 0")
    dtype, steps = steps.dtype, steps.astype(float)
    shrink = 4 * rate * decay
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        decayed = shrink * steps
        # Of the steps those count that have not decayed: all of them where nothing decays.
        counted = np.where(decayed > 1e-300, -np.expm1(-decayed) / shrink, steps)
        # Squares of squared lengths could leave the range; these hypotenuses do not.
        grown = rate * gradient * np.sqrt(2 * counted)
        found = np.hypot(start * np.exp(-decayed / 2), grown)
    return check.narrowed("the squared length", found, dtype)


def length_bound(
    rate: Number, curvature: Number, slope: Number, drop: Number, start: Number = 1.0
) -> float:
    """A bound on the squared length of w under gradient descent on a scale-invariant loss.

    R = max(start, rate C + rate^2 G^2 / start) + 2 rate D. No rate is too large for it, and the
    gradients at w / norm(w) satisfy min over T steps of norm^2 <= R (R - start) / (rate^2 T).

    Parameters
    ----------
    rate : float
        Learning rate.
    curvature, slope : float
        C and G: bounds, over the unit sphere, on the largest eigenvalue of the Hessian and on the
        length of the gradient.
    drop : float
        D, the largest difference of two values of the loss.
    start : float
        Squared length before the first step.

    Raises
    ------
    TypeError
        If an argument is not a real number.
    ValueError
        If rate or start is not positive, a bound is negative, or the result leaves the range of
        floats.

    References
    ----------
    After Arora, Li and Lyu (2019).
    """
    rate, start = check.positive("rate", rate), check.positive("start", start)
    curvature, slope, drop = (
        check.nonnegative(name, value)
        for name, value in (("curvature", curvature), ("slope", slope), ("drop", drop))
    )
    push = rate * slope / start * (rate * slope)
    return within_floats("rate", rate, max(start, rate * curvature + push) + 2 * rate * drop)


def rate_and_decay(rate: Number, decay: Number) -> tuple[float, float]:
    """Both as floats. Refuse a rate that is not positive, a negative decay, and a product of 1 or more."""
    rate, decay = check.positive("rate", rate), check.nonnegative("decay", decay)
    if rate * decay >= 1:
        raise ValueError(
            f"rate * decay is {rate * decay:.3g}, expected below 1: a step would turn the weights "
            "around"
        )
    return rate, decay


def within_floats(name: str, value: float, result: float) -> float:
    """The result. Refuse one that has become 0 or infinite, and name an argument that brought it."""
    if not 0 < result < math.inf:
        raise ValueError(
            f"{name} is {value:g}, with which the result, {result:g}, leaves the range of floats"
        )
    return result
