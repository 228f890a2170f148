"""The learning rate that the direction of scale-invariant weights feels, and what settles it.

Gradient descent turns weights w of a scale-invariant loss as it would turn w / norm(w) with a rate
divided by the square of their length. Weight decay drives that rate to an equilibrium, and a growing
rate does the same without decay.
van Laarhoven (2017); Hoffer et al. (2018); Li and Arora (2020); Wan et al. (2021).
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

from bncore import arguments as check
from bncore.explanations.weight_length import Number, rate_and_decay, within_floats

# By which a product of two arguments may miss a bound that it meets.
ROUNDING = 1e-12


def effective_rate(rate: Number, length: Number, decay: Number = 0.0) -> float:
    """The learning rate that the direction feels, rate / ((1 - rate decay) length^2).

    A step of gradient descent with weight decay, w -> (1 - rate decay) w - rate grad L(w), turns w
    as a step with this rate and without decay turns w / length; see ``turn``.

    Parameters
    ----------
    rate : float
        Learning rate.
    length : float
        Length of w.
    decay : float
        Coefficient of weight decay.

    Raises
    ------
    TypeError
        If an argument is not a real number.
    ValueError
        If rate or length is not positive, decay is negative, rate times decay is 1 or more, or the
        effective rate leaves the range of floats.
    """
    rate, decay = rate_and_decay(rate, decay)
    length = check.positive("length", length)
    return within_floats("length", length, rate / (1 - rate * decay) / length / length)


def turn(
    direction: Real[np.ndarray, "inputs"] | check.Listed,
    gradient: Real[np.ndarray, "inputs"] | check.Listed,
    rate: Number,
) -> Float[np.ndarray, "inputs"]:
    """The direction after one step, (v - rate g) / sqrt(1 + rate^2 norm(g)^2).

    The step turns v by the angle arctan(rate norm(g)).

    Parameters
    ----------
    direction : Float[ndarray, "inputs"]
        v, of length 1.
    gradient : Float[ndarray, "inputs"]
        g, the gradient of a scale-invariant loss at v, hence orthogonal to v.
    rate : float
        The effective rate.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If shapes differ, v is not of length 1, g is not orthogonal to it, or the rate is not
        positive.
    """
    rate = check.positive("rate", rate)
    direction = check.array("direction", direction)
    gradient = check.array("gradient", gradient, dtype=direction.dtype)
    for name, value in (("direction", direction), ("gradient", gradient)):
        check.finite(name, value)
    if direction.ndim != 1 or gradient.shape != direction.shape:
        raise ValueError(
            f"direction has shape {direction.shape} and gradient {gradient.shape}, expected two "
            "vectors of one length"
        )
    dtype = direction.dtype
    direction, gradient = direction.astype(float), gradient.astype(float)
    length = np.linalg.norm(direction)
    if abs(length - 1) > 1e-6 + 2 * np.finfo(dtype).eps:
        raise ValueError(f"direction has length {length:.6g}, expected 1")
    largest = np.abs(gradient).max()
    if largest == 0:
        return direction.astype(dtype)
    # Scaled first, so that no square leaves the range.
    across = gradient / largest
    slope = np.linalg.norm(across)
    across = across / slope
    if abs(direction @ across) > 1e-6 + 2 * np.finfo(dtype).eps:
        raise ValueError(
            f"gradient has the cosine {direction @ across:.3g} with direction, expected 0, as for a "
            "scale-invariant loss"
        )
    angle = math.atan(rate * float(largest) * float(slope))
    return (math.cos(angle) * direction - math.sin(angle) * across).astype(dtype)


class Equilibrium(NamedTuple):
    """Where weight decay and the growth of the weights balance.

    Attributes
    ----------
    length : float
        Length of w.
    effective_rate : float
        Learning rate of the direction there, see ``effective_rate``.
    angle : float
        By which one step turns w, in radians; with momentum its root mean square.
    steps : float
        Number of small steps in which a deviation of length^4 shrinks to 1/e, (1 - momentum) /
        (4 rate decay).
    """

    length: float
    effective_rate: float
    angle: float
    steps: float


def equilibrium(
    rate: Number, decay: Number, gradient: Number, momentum: Number = 0.0
) -> Equilibrium:
    """The length of w at which gradient descent with weight decay keeps it.

    length^4 = rate G^2 / (decay (1 - momentum) (2 - rate decay / (1 + momentum))),
    cos(angle) = 1 - rate decay / (1 + momentum).

    Without momentum this is exact for gradients of constant length G at w / norm(w). With momentum,
    v -> momentum v + grad L(w) + decay w and w -> w - rate v, it holds nearly, in the mean, if each
    gradient is uncorrelated with the earlier ones, and is far off where gradients follow a pattern.

    Parameters
    ----------
    rate : float
        Learning rate.
    decay : float
        Coefficient of weight decay.
    gradient : float
        G, the root mean square length of the gradient at w / norm(w).
    momentum : float
        In [0, 1).

    Raises
    ------
    TypeError
        If an argument is not a real number.
    ValueError
        If rate, decay or gradient is not positive, rate times decay is 1 or more, momentum is
        outside [0, 1), or a result leaves the range of floats.

    References
    ----------
    van Laarhoven (2017); Wan et al. (2021), with momentum.
    """
    rate, decay = rate_and_decay(rate, decay)
    if decay == 0:
        raise ValueError("decay is 0, expected a number above 0: without it the length only grows")
    gradient, momentum = check.positive("gradient", gradient), _momentum(momentum)
    shrink = rate * decay / (1 + momentum)
    # Root by root: products and the square of the gradient may leave the range of floats.
    length = (rate**0.25 / decay**0.25) * math.sqrt(gradient)
    length /= ((1 - momentum) * (2 - shrink)) ** 0.25
    half = math.sqrt(rate) * math.sqrt(decay) / math.sqrt(2 * (1 + momentum))
    return Equilibrium(
        length,
        effective_rate(rate, length, decay),
        2 * math.asin(half),  # the arc cosine of 1 - shrink, also for tiny ones
        within_floats("rate", rate, (1 - momentum) / 4 / rate / decay),
    )


class Schedule(NamedTuple):
    """Learning rates that do without weight decay what a fixed rate does with it.

    Attributes
    ----------
    rates : Float[ndarray, "steps"]
        For each step.
    factor : float
        q: after t steps the weights are q^-t times those of the run with weight decay.
    velocity : float
        What the momentum buffer has to hold before the first step, as a multiple of the weights; 0
        without momentum.
    """

    rates: Float[np.ndarray, "steps"]
    factor: float
    velocity: float


def exponential_schedule(
    rate: Number, decay: Number, steps: int, momentum: Number = 0.0
) -> Schedule:
    """The growing learning rates that replace weight decay on a scale-invariant loss.

    rates[t] = rate q^(-2 t - 1), where q, the factor, is the larger root of
    x^2 - (1 + momentum - rate decay) x + momentum = 0; without momentum it is 1 - rate decay.
    The run with decay starts with a momentum buffer of 0, v -> momentum v + grad L(w) + decay w,
    w -> w - rate v; the run without starts with velocity times the weights.

    Parameters
    ----------
    rate : float
        Learning rate of the run with weight decay.
    decay : float
        Its coefficient.
    steps : int
        Number of steps.
    momentum : float
        In [0, 1).

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If an argument is outside its range, or rate times decay exceeds (1 - sqrt(momentum))^2,
        beyond which there is no real root.

    References
    ----------
    Li and Arora (2020).
    """
    rate, decay = rate_and_decay(rate, decay)
    steps, momentum = check.positive_integer("steps", steps), _momentum(momentum)
    largest = (1 - math.sqrt(momentum)) ** 2
    if momentum and rate * decay > largest * (1 + ROUNDING):
        raise ValueError(
            f"rate * decay is {rate * decay:.3g}, expected at most (1 - sqrt(momentum))^2 = "
            f"{largest:.3g}: beyond it no real learning rates do the same"
        )
    # 1 - q is the smaller root of x^2 - (1 - momentum + rate decay) x + rate decay = 0, and this form
    # keeps its digits where q is close to 1.
    middle = 1 - momentum + rate * decay
    root = math.sqrt(max(middle**2 - 4 * rate * decay, 0.0))
    short = 2 * rate * decay / (middle + root)
    factor = 1 - short
    with np.errstate(over="ignore"):  # refused below
        rates = rate * np.exp(-math.log1p(-short) * (2.0 * np.arange(steps) + 1))
    if not np.isfinite(rates).all():
        raise ValueError(
            f"steps is {steps}, expected fewer: the learning rate leaves the range of floats after "
            f"{int(np.isfinite(rates).argmin())} steps"
        )
    velocity = -2 * decay / (middle + root) / factor if momentum else 0.0
    return Schedule(rates, factor, velocity)


def _momentum(momentum):
    momentum = check.number("momentum", momentum)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}, expected a number in [0, 1)")
    return momentum
