"""A running average is a window onto the past: what each batch weighs in it, and how long it looks.

Source: unrolling the update of Ioffe and Szegedy's (2015) moving averages, in torch's convention.
"""

import math

import numpy as np
from jaxtyping import Float

from bncore import arguments as check

MOST = 10**8


def weights(momentum: float | int | None, updates: int) -> Float[np.ndarray, "updates_and_initial"]:
    """What the initial value and each batch weigh in a running average. They sum to 1.

    initial: (1 - momentum)^t,    batch k of t: momentum (1 - momentum)^(t - k)

    Parameters
    ----------
    momentum : float or None
        Weight of the newest batch, in [0, 1]; None for the cumulative average.
    updates : int
        t, the number of batches.

    Returns
    -------
    Float[ndarray, "updates + 1"]
        The initial value's weight, then the batches' from the oldest to the newest.

    Raises
    ------
    TypeError
        If momentum is not a real number or updates not an integer.
    ValueError
        If momentum lies outside [0, 1], or updates is below 1 or too large for an array.
    """
    check.positive_integer("updates", updates)
    if updates > MOST:
        raise ValueError(f"updates is above {MOST:,}, expected at most that: each has a weight")
    if momentum is None:
        return np.append(0.0, np.full(updates, 1 / updates))
    momentum = check.fraction("momentum", momentum)
    keep = 1 - momentum
    return np.append(keep**updates, momentum * keep ** np.arange(updates - 1, -1, -1))


def effective_batches(momentum: float | int | None, updates: int) -> float:
    """How many batches a plain average needs for the same variance, the initial value aside.

    (sum of weights)² / (sum of squared weights) = (2 - momentum) / momentum * (1 - k) / (1 + k)

    with k = (1 - momentum)^t, what is left of the initial value: two geometric sums.

    Parameters
    ----------
    momentum : float or None
        As in ``weights``, but above 0: with momentum 0 no batch counts.
    updates : int
        Number of batches.

    Raises
    ------
    TypeError
        If momentum is not a real number or updates not an integer.
    ValueError
        If momentum lies outside (0, 1] or updates is below 1.
    """
    updates = check.number("updates", check.positive_integer("updates", updates))
    if momentum is None:
        return updates
    momentum = check.fraction("momentum", momentum)
    if momentum == 0:
        raise ValueError("momentum is 0, expected a number in (0, 1]: no batch counts")
    if momentum == 1:
        return 1.0
    # (1 - k) / (1 + k) is a hyperbolic tangent, which does not cancel where k is nearly 1.
    rate = -math.log1p(-momentum)
    half = updates * rate / 2
    if half > 1:
        return (2 - momentum) / momentum * math.tanh(half)
    relative = math.tanh(half) / half if half > 0 else 1.0
    return (2 - momentum) / 2 * updates * (rate / momentum) * relative
