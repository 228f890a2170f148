"""The sums over the batch that the transform needs, accurate far from 0 too."""

import numpy as np

from bncore import arguments as check
from bncore.mechanics._blocks import centred, walk
from bncore.mechanics._cache import WORKING


def statistics(x):
    """Shift, residual and variance of each feature.

    Squares are summed around a shift, since squares of large numbers would cancel. A feature keeps
    the shift 0 if its mean lies within one deviation of 0. If not, its shift is the mean of a few
    values, or, should these have been no fair sample, the mean that the sum around it gives.
    """
    path, dtype = walk(x), WORKING[x.dtype]
    lines = path.over(x)
    residual, var, near = _moments(path, lines, None, dtype)
    if np.count_nonzero(near) == near.size:
        return None, residual, var
    if not np.isfinite(var).all():
        check.finite("x", x)
    shift = np.where(near, 0, _sample_mean(lines, dtype)).astype(dtype)
    residual, var, near = _moments(path, lines, shift, dtype)
    if not near.all():
        shift = np.where(near, shift, shift + residual).astype(dtype)
        residual, var, near = _moments(path, lines, shift, dtype)
        if not np.isfinite(var).all():
            _refuse_wide_spread(x, int(np.isfinite(var).argmin()))
    return shift, residual, var


def correlations(dy, cache):
    """sum(dy) and sum(dy * (x - shift)) over the batch, by one pass over both.

    FloatingPointError if they leave the range of the precision that is computed in.
    """
    path, dtype = cache.walk, cache.working
    dy, totals = path.over(dy), np.zeros((2, dy.shape[1]))
    for block, piece, _ in centred(path, path.over(cache.x), cache.shift, dtype):
        incoming = block.of(dy).astype(dtype, copy=False)
        block.add_sums(incoming, piece, totals)
    if np.count_nonzero(np.isfinite(totals)) < totals.size:
        raise FloatingPointError
    return totals


def _sample_mean(lines, dtype):
    """Average a few values of each feature, exactly where they are all equal."""
    few = lines[:16, :, :64].astype(dtype)
    first = few[:1, :, :1]
    return (first + (few - first).mean(axis=(0, 2), keepdims=True)).reshape(-1)


def _moments(path, lines, shift, dtype):
    """Mean of x - shift, variance of x, and whether the mean lies within one deviation of the shift."""
    outer, features, inner = path.lines
    totals = np.zeros((2, features))
    for block, piece, _ in centred(path, lines, shift, dtype):
        block.add_sums(piece, piece, totals)
    residual, square = totals / (outer * inner)
    distance = residual * residual
    var = np.maximum(square - distance, 0)
    return residual, var, (distance <= var) & (var < np.inf)


def _refuse_wide_spread(x, feature):
    values, dtype = x[:, feature], WORKING[x.dtype]
    raise ValueError(
        f"x runs from {values.min():.3g} to {values.max():.3g} in feature {feature}, expected "
        f"values whose squared distances sum to less than {np.finfo(dtype).max:.3g}, the largest "
        f"{dtype}; divide x by a constant"
    )
