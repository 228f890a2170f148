"""The geometry of the backward pass: which part of a gradient batch norm lets through.

Up to gamma / sqrt(var + eps), dx is what a ridge regression of dy on x leaves over.
Source: the closed form that follows from Ioffe and Szegedy (2015), section 3.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

from bncore import arguments as check

Batch = Float[np.ndarray, "batch features *spatial"]
BatchLike = Real[np.ndarray, "batch features *spatial"] | check.Listed
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


def split(dy: BatchLike, x: BatchLike) -> Parts:
    """Split a gradient into the two parts that batch norm removes and the part that it passes.

    level = mean(dy)
    tilt  = (x - mean) * sum(dy * (x - mean)) / sum((x - mean)^2)
    rest  = dy - level - tilt

    With eps -> 0 the gradient with respect to x is gamma / sqrt(var) * rest. With eps > 0 it is
    gamma / sqrt(var + eps) * (rest + leak(var, eps) * tilt).

    Parameters
    ----------
    dy : Float[ndarray, "batch features *spatial"]
        Gradient of a loss with respect to the output of batch norm; converted to the dtype of x.
    x : Float[ndarray, "batch features *spatial"]
        Its input.

    Returns
    -------
    Parts
        In the dtype and memory order of x, computed in double precision.

    Raises
    ------
    TypeError
        If an argument holds no real numbers.
    ValueError
        If x has fewer than two axes or no values, the shapes differ, a value is not finite, the
        dtype of x cannot hold dy exactly, or a part leaves its range.
    """
    dy, x = _checked(dy, x)
    exponent, *parts = _split(dy, x)
    with np.errstate(over="ignore"):
        parts = [np.ldexp(part, exponent) for part in parts]
    return Parts(*(check.result(*named, x) for named in zip(Parts._fields, parts, strict=True)))


def leak(var: check.VectorLike, eps: float | int) -> Vector:
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
        Between 0 and 1, in the dtype of var; 1 for a feature that is constant over the batch.

    Raises
    ------
    TypeError
        If var holds no real numbers or eps is none.
    ValueError
        If an entry of var is negative or not finite, or eps is not positive.
    """
    var, eps = check.array("var", var, ndim=1), check.positive("eps", eps)
    check.finite("var", var)
    check.no_negative("var", var)
    double = var.astype(np.float64)
    ratio = np.minimum(double, eps) / np.maximum(double, eps)
    return (np.where(double <= eps, 1, ratio) / (1 + ratio)).astype(var.dtype)


def surviving_share(dy: BatchLike, x: BatchLike) -> Vector:
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
        Between 0 and 1, in the dtype of x; 0 where dy is zero.

    Raises
    ------
    TypeError, ValueError
        As ``split``.
    """
    dy, x = _checked(dy, x)
    _, level, tilt, rest = _split(dy, x)
    passed, whole = (_total(part**2).reshape(-1) for part in (rest, level + tilt + rest))
    share = np.divide(passed, whole, out=np.zeros_like(passed), where=whole > 0)
    return np.minimum(share, 1).astype(x.dtype)


def _checked(dy, x):
    x = check.batch("x", x)
    dy = check.exactly("dy", dy, x.dtype)
    if dy.shape != x.shape:
        raise ValueError(f"dy has shape {dy.shape}, expected {x.shape}, that of x")
    return dy, x


def _split(dy, x):
    """The exponents and the three parts, in double precision and each divided by 2^exponent."""
    dy, exponent = _scaled(dy.astype(np.float64))
    x, _ = _scaled(x.astype(np.float64))
    m = check.values_per_feature(x)
    centred = x - x[:1, :, *(slice(1) for _ in x.shape[2:])]
    centred, _ = _scaled(centred - _total(centred) / m)
    square = _total(centred**2)
    slope = np.divide(_total(dy * centred), square, out=np.zeros_like(square), where=square > 0)
    level, tilt = np.broadcast_to(_total(dy) / m, dy.shape), slope * centred
    return exponent, level, tilt, dy - level - tilt


def _scaled(values):
    """The values times powers of two, which cost no digits, below 1 in each feature."""
    largest = np.abs(values).max(axis=(0, *range(2, values.ndim)), keepdims=True)
    _, exponent = np.frexp(largest)
    return np.ldexp(values, -exponent), exponent


def _total(values):
    return values.sum(axis=(0, *range(2, values.ndim)), keepdims=True)
