"""What a layer stores of its running averages, and what it uses: from one to the other.

``newest`` is the weight of the newest batch, None for the plain average. ``left`` is what is left
of the initial value after t updates, (1 - newest)^t. The forms are those of ``Convention.keeps``.
"""

import math

import numpy as np

SETTLED = 2**30
"""A count after which nothing is left of an initial value, and that has room to grow in 32 bits."""

MOMENTS = ("mean", "var")


def left_over(newest, updates):
    """What is left of the initial value; nothing if the number of updates is not known."""
    if updates is None:
        return 0.0
    if newest is None:
        return float(updates == 0)
    return (1 - newest) ** updates


def left_in_sums(weight, newest):
    """What the weight of sums says is left: it is (1 - left) / newest, or t."""
    return float(weight == 0) if newest is None else max(0.0, 1 - float(weight) * newest)


def count_in_sums(left, newest):
    """The number of updates that leaves as much; None if nothing is left."""
    return round(math.log(left) / math.log1p(-newest)) if left > 0 and newest > 0 else None


def used(convention, stored, left):
    """Mean and variance at inference, in double precision."""
    mean, var = (stored[key].astype(np.float64) for key in MOMENTS)
    if convention.keeps == "hidden" and left < 1:
        return mean / (1 - left), var / (1 - left)
    if convention.keeps == "sums":
        weight = float(stored["weight"])
        return (mean / weight, var / weight) if weight else (0 * mean, 0 * var)
    return mean, var


def running(convention, stored, left, newest):
    """The running averages, with the initial value's part in them, in double precision."""
    mean, var = (stored[key].astype(np.float64) for key in MOMENTS)
    if convention.keeps == "both":
        return mean * (1 - left), var * (1 - left)
    if convention.keeps == "sums":
        return used(convention, stored, left) if newest is None else (mean * newest, var * newest)
    return mean, var


def from_running(convention, averages, left, newest, updates, counted):
    """What is stored of running averages in which ``left`` is the initial value's part.

    ``updates`` is the number of batches, and ``counted`` the number that explains what is left;
    either may be None.
    """
    stored = dict(zip(MOMENTS, averages, strict=True))
    if convention.keeps == "both":
        stored |= {f"hidden_{key}": value for key, value in stored.items()}
        stored |= {
            key: stored[key] / (1 - left) if left < 1 else 0 * stored[key] for key in MOMENTS
        }
    if convention.keeps == "sums":
        weight = float(updates) if newest is None else (1 - left) / newest
        scale = weight if newest is None else 1 / newest
        stored = {key: value * scale for key, value in stored.items()} | {"weight": weight}
    if convention.keeps in ("hidden", "both"):
        updates = SETTLED if counted is None else counted
    return stored if updates is None else stored | {"updates": updates}


def from_used(convention, moments):
    """What is stored so that these are used, with nothing left of an initial value."""
    stored = dict(zip(MOMENTS, moments, strict=True))
    if convention.keeps == "both":
        stored |= {f"hidden_{key}": value for key, value in stored.items()}
    if convention.keeps == "sums":
        newest = (
            None if convention.momentum is None else convention.newest_weight(convention.momentum)
        )
        weight = 1 / newest if newest else 1.0
        stored = {key: value * weight for key, value in stored.items()} | {"weight": weight}
    return stored | ({"updates": SETTLED} if convention.keeps in ("hidden", "both") else {})
