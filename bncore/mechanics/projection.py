"""The geometry of the backward pass: which part of a gradient batch norm lets through.

Up to gamma / sqrt(var + eps), dx is what a ridge regression of dy on x leaves over.
Source: the closed form that follows from Ioffe and Szegedy (2015), section 3.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bncore import arguments as check

Batch = Float[np.ndarray, "batch features *spatial"]
Vector = Float[np.ndarray, "features"]


class Parts(NamedTuple):
    """A gradient as a sum of three orthogonal parts, feature by feature.

    Attributes
    ----------
    level : Float[ndarray, "batch features *spatial"]
        The part along the vector of ones: the mean of dy.
    tilt : Float[ndarray, "batch features *spatial"]
        The part along x - mean; zero for a feature that is constant over the batch.
    rest : Float[ndarray, "batch features *spatial"]
        What the least-squares line through the points (x_i, dy_i) leaves over.
    """

    level: Batch
    tilt: Batch
    rest: Batch


def split(dy: Batch, x: Batch) -> Parts:
    """Split a gradient into the two parts that batch norm removes and the part that it passes.

    level = mean(dy)
    tilt  = (x - mean) * sum(dy * (x - mean)) / sum((x - mean)^2)
    rest  = dy - level - tilt

    With eps -> 0 the gradient with respect to x is gamma / sqrt(var) * rest. With eps > 0 it is
    gamma / sqrt(var + eps) * (rest + leak(var, eps) * tilt).

    Parameters
    ----------
    dy : Float[ndarray, "batch features *spatial"]
        Gradient of a loss with respect to the output of batch norm.
    x : Float[ndarray, "batch features *spatial"]
        Its input.

    Returns
    -------
    Parts
        In the widest dtype among the arguments.

    Raises
    ------
    TypeError
        If an argument is not a plain floating-point array.
    ValueError
        If x has fewer than two axes or no values, the shapes differ, or a value is not finite.
    """
    check.batch("x", x)
    check.array("dy", dy)
    if dy.shape != x.shape:
        raise ValueError(f"dy has shape {dy.shape}, expected {x.shape}, that of x")
    check.finite("dy", dy)

    def mean(values):
        return values.mean(axis=(0, *range(2, x.ndim)), keepdims=True)

    first = x[(slice(1), slice(None), *(slice(1) for _ in x.shape[2:]))]
    centred = x - first
    centred = centred - mean(centred)
    square = mean(centred**2)
    slope = np.divide(mean(dy * centred), square, out=np.zeros_like(square), where=square > 0)
    level, tilt = np.broadcast_to(mean(dy), dy.shape), slope * centred
    return Parts(level, tilt, dy - level - tilt)


def leak(var: Vector, eps: float) -> Vector:
    """Share of the part along x - mean that passes because of eps: eps / (var + eps).

    Parameters
    ----------
    var : Float[ndarray, "features"]
        Biased batch variance.
    eps : float
        Positive; in the units of var.

    Returns
    -------
    Float[ndarray, "features"]
        Between 0 and 1; 1 for a feature that is constant over the batch.

    Raises
    ------
    TypeError
        If var is not a plain floating-point array or eps not a real number.
    ValueError
        If an entry of var is negative or not finite, or eps is not positive.
    """
    check.array("var", var)
    check.finite("var", var)
    if (var < 0).any():
        j = int((var < 0).argmax())
        raise ValueError(f"var[{j}] is {var[j]}, expected at least 0")
    check.positive("eps", eps)
    return eps / (var + eps)


def surviving_share(dy: Batch, x: Batch) -> Vector:
    """Share of a gradient's squared length, feature by feature, that lies in ``split(dy, x).rest``.

    If dy has no preferred direction (independent of x, rotationally symmetric), the share of a
    batch with m values a feature, not all equal, follows the Beta((m - 2) / 2, 1) distribution:
    its distribution function is share^((m - 2) / 2) and its mean (m - 2) / m.

    Parameters
    ----------
    dy, x : Float[ndarray, "batch features *spatial"]
        As for ``split``.

    Returns
    -------
    Float[ndarray, "features"]
        Between 0 and 1; 0 where dy is zero.

    Raises
    ------
    TypeError, ValueError
        As ``split``.
    """
    rest = split(dy, x).rest
    axes = (0, *range(2, x.ndim))
    passed, whole = (rest**2).sum(axis=axes), (dy**2).sum(axis=axes)
    return np.divide(passed, whole, out=np.zeros_like(passed), where=whole > 0)
