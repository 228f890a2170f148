"""The batch-normalizing transform and its gradients, with the batch's statistics or fixed ones.

y = gamma * x_hat + beta,    x_hat = (x - mean) / sqrt(var + eps)

Ioffe and Szegedy (2015), Algorithm 1 and section 3. ``textbook`` has the same in ten lines each.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

from bncore import arguments as check
from bncore.mechanics._blocks import centred, short_buffers
from bncore.mechanics._cache import SMALLEST, WORKING, Cache, fingerprint
from bncore.mechanics._statistics import correlations, statistics

__all__ = [
    "Cache",
    "Gradients",
    "Steps",
    "backward",
    "backward_fixed",
    "backward_steps",
    "forward",
    "forward_fixed",
]

Batch = Float[np.ndarray, "batch features *spatial"]
BatchLike = Real[np.ndarray, "batch features *spatial"] | check.Listed
Vector = Float[np.ndarray, "features"]
VectorLike = check.VectorLike


class Gradients(NamedTuple):
    """Gradients of the loss with respect to the inputs of ``forward``.

    ``dgamma`` and ``dbeta`` are None where the parameter was None.
    """

    dx: Batch
    dgamma: Vector | None
    dbeta: Vector | None


class Steps(NamedTuple):
    """Every partial derivative on the way back, in the order in which the chain rule meets them.

    ``dvar`` holds the mean fixed; ``dmean`` includes the path through the variance.
    """

    dx_hat: Batch
    dvar: Vector
    dmean: Vector
    dx: Batch
    dgamma: Vector | None
    dbeta: Vector | None


def forward(
    x: BatchLike,
    gamma: VectorLike | None = None,
    beta: VectorLike | None = None,
    eps: float | int = 1e-5,
) -> tuple[Batch, Cache]:
    """Normalise each feature over the batch, then scale and shift it.

    y = gamma * (x - mean) / sqrt(var + eps) + beta

    Mean and biased variance are taken over every axis but axis 1, that of the features. Half and
    single precision are computed in single precision, with totals in double.

    Parameters
    ----------
    x : Float[ndarray, "batch features *spatial"]
        float16, float32 or float64, in any memory order, with at least two values a feature.
        Lists and integers become float64.
    gamma, beta : Float[ndarray, "features"], optional
        Scale and shift, in any precision; lists and integers take that of x. None means 1 and 0.
    eps : float
        Positive. It keeps the division finite and makes the mean of x_hat² var / (var + eps).

    Returns
    -------
    y : Float[ndarray, "batch features *spatial"]
        In the dtype and memory order of x. A feature that is constant over the batch becomes beta
        exactly. Where gamma or beta is so large that y leaves the range of the dtype, y is
        infinite.
    cache : Cache
        What ``backward`` needs. It refers to x, so do not overwrite x before ``backward``.

    Raises
    ------
    TypeError
        If an argument holds no real numbers, or is a tensor, a sparse matrix or a subclass of
        ndarray.
    ValueError
        If x has fewer than two axes, no features or fewer than two values a feature; if a
        parameter's shape is not (features,); if anything is NaN or infinite; if eps is not positive
        or too small for the precision; or if the values of x spread so widely that their squares
        overflow.

    References
    ----------
    Ioffe and Szegedy (2015), Algorithm 1.
    Chan, Golub and LeVeque (1983), on shifting data before summing their squares.
    """
    x, gamma, beta, eps = _checked(x, gamma, beta, eps)
    with short_buffers(all="ignore"):
        shift, residual, var = statistics(x)
        found = shift, residual, var, 1 / np.sqrt(var + eps)
        cache = Cache(x, gamma, beta, eps, *found, fixed=False, fingerprint=fingerprint(x))
        return _scaled_and_shifted(cache), cache


def backward(dy: BatchLike, cache: Cache) -> Gradients:
    """Carry the gradient of a loss from y back to x, gamma and beta.

    dbeta  = sum(dy)
    dgamma = sum(dy * x_hat)
    dx     = gamma / sqrt(var + eps) * (dy - dbeta / m - x_hat * dgamma / m)

    Parameters
    ----------
    dy : Float[ndarray, "batch features *spatial"]
        Gradient of the loss with respect to y, in the shape of x and, or exactly convertible to,
        its dtype.
    cache : Cache
        From the ``forward`` that returned y.

    Returns
    -------
    Gradients
        dx in the dtype and memory order of x. dgamma and dbeta in the dtypes of gamma and beta,
        in that of x where these were lists or integers, and None where they were None.

    Raises
    ------
    TypeError
        If dy holds no real numbers, or cache is not what ``forward`` returned.
    ValueError
        If dy and the cache differ in shape or dtype, if the cache is of ``forward_fixed``, if x
        changed since ``forward``, if dy is not finite, or if a gradient leaves the range of its
        dtype.

    References
    ----------
    Ioffe and Szegedy (2015), section 3; the closed form follows by inserting their six equations
    into each other.
    """
    dy = _incoming(dy, cache, fixed=False)
    path, m, inv_std = cache.walk, cache.batch_size, cache.inv_std
    try:
        with short_buffers(all="ignore", over="raise", invalid="raise"):
            dbeta, sum_dy_centred = correlations(dy, cache)
            dgamma = inv_std * (sum_dy_centred - cache.residual * dbeta)

            slope = inv_std * dgamma / m
            level = dbeta / m - cache.residual * slope
            scale, slope, level = path.columns(cache.working, cache.scale, slope, level)

            dx, lines = path.empty(cache.x.dtype)
            x, incoming = path.over(cache.x), path.over(dy)
            for block, piece, room in centred(path, x, cache.shift, cache.working, out=lines):
                np.multiply(piece, slope[block.columns], out=room)
                room += level[block.columns]
                np.subtract(block.of(incoming), room, out=room)
                room *= scale[block.columns]
            return Gradients(dx, _like(cache.gamma, dgamma), _like(cache.beta, dbeta))
    except FloatingPointError:
        return _gradients_in_double(dy, cache)


def backward_steps(dy: BatchLike, cache: Cache) -> Steps:
    """Carry the gradient back one node at a time, as the chain rule is written down.

    dx_hat = dy * gamma
    dvar   = sum(dx_hat * (x - mean)) * (-1/2) * (var + eps)^(-3/2)
    dmean  = -sum(dx_hat) / sqrt(var + eps) + dvar * sum(-2 (x - mean)) / m
    dx     = dx_hat / sqrt(var + eps) + dvar * 2 (x - mean) / m + dmean / m
    dgamma = sum(dy * x_hat)
    dbeta  = sum(dy)

    Computed in double precision and not blocked: to read and compare, not to train with.
    Parameters and errors are those of ``backward``.

    Returns
    -------
    Steps
        dx_hat and dx in the dtype of x; dvar and dmean in double precision; dgamma and dbeta as
        in ``backward``.

    References
    ----------
    Ioffe and Szegedy (2015), section 3: the six equations after Algorithm 1.
    """
    dy = _incoming(dy, cache, fixed=False).astype(np.float64)
    check.finite("dy", dy)
    m, x_centred, inv_std = cache.batch_size, cache.x_centred, cache.beside(cache.inv_std)
    x_hat = x_centred * inv_std
    with np.errstate(all="ignore"):
        dx_hat = dy if cache.gamma is None else dy * cache.beside(cache.gamma)
        dvar = _total(dx_hat * x_centred) * (-1 / 2) * inv_std**3
        dmean = -_total(dx_hat) * inv_std + dvar * _total(-2 * x_centred) / m
        dx = dx_hat * inv_std + dvar * 2 * x_centred / m + dmean / m
        dgamma = _total(dy * x_hat)
        dbeta = _total(dy)
    _refuse_large(dy, dgamma, dbeta)
    return Steps(
        check.result("dx_hat", dx_hat, cache.x),
        check.narrowed("dvar", dvar.reshape(-1), np.float64),
        check.narrowed("dmean", dmean.reshape(-1), np.float64),
        check.result("dx", dx, cache.x),
        _narrowed_like(cache.gamma, "dgamma", dgamma),
        _narrowed_like(cache.beta, "dbeta", dbeta),
    )


def forward_fixed(
    x: BatchLike,
    mean: VectorLike,
    var: VectorLike,
    gamma: VectorLike | None = None,
    beta: VectorLike | None = None,
    eps: float | int = 1e-5,
) -> tuple[Batch, Cache]:
    """Normalise each feature with statistics that are given, then scale and shift it.

    y = gamma * (x - mean) / sqrt(var + eps) + beta

    No value depends on another example of the batch: batch norm at inference, or frozen while the
    rest of a network is trained. Subtracting the mean first keeps the digits that cancel in
    ``scale * x + shift`` when the mean is much larger than the deviation.

    Parameters
    ----------
    x : Float[ndarray, "batch features *spatial"]
        As for ``forward``, with any number of values a feature, none included.
    mean, var : Float[ndarray, "features"]
        The fixed statistics, in any precision; lists and integers take that of x.
    gamma, beta : Float[ndarray, "features"], optional
        As for ``forward``.
    eps : float
        Positive; in the units of var.

    Returns
    -------
    y : Float[ndarray, "batch features *spatial"]
        In the dtype and memory order of x.
    cache : Cache
        What ``backward_fixed`` needs. It refers to x, so do not overwrite x before.

    Raises
    ------
    TypeError
        If an argument holds no real numbers, or is a tensor, a sparse matrix or a subclass of
        ndarray.
    ValueError
        If shapes disagree, a value is not finite, var is negative or eps not positive, or if y
        leaves the range of the dtype of x.

    References
    ----------
    Ioffe and Szegedy (2015), Algorithm 2, line 11.
    """
    x = np.asarray(check.batch("x", x, least=0))
    mean, var, gamma, beta, eps = check.fixed_statistics(
        mean, var, gamma, beta, eps, x.shape[1], "x", x.dtype
    )
    working, mean, var = WORKING[x.dtype], mean.astype(np.float64), var.astype(np.float64)
    largest = np.finfo(working).max
    shift = np.clip(mean, -largest, largest).astype(working)
    affine = _copy(gamma), _copy(beta), eps
    given = shift, mean - shift, var, 1 / np.sqrt(var + eps)
    cache = Cache(x, *affine, *given, fixed=True, fingerprint=fingerprint(x))
    with short_buffers(all="ignore"):
        return _scaled_and_shifted(cache), cache


def backward_fixed(dy: BatchLike, cache: Cache) -> Gradients:
    """Carry the gradient of a loss back through a batch norm whose statistics stay fixed.

    dbeta  = sum(dy)
    dgamma = sum(dy * x_hat)
    dx     = gamma / sqrt(var + eps) * dy

    Parameters
    ----------
    dy : Float[ndarray, "batch features *spatial"]
        As for ``backward``.
    cache : Cache
        From ``forward_fixed``; or from ``forward``, and then mean and var count as constants,
        through which no gradient flows.

    Returns
    -------
    Gradients
        As from ``backward``.

    Raises
    ------
    TypeError, ValueError
        As ``backward``.
    """
    dy = _incoming(dy, cache)
    path = cache.walk
    try:
        with short_buffers(all="ignore", over="raise", invalid="raise"):
            dbeta, sum_dy_centred = correlations(dy, cache)
            dgamma = cache.inv_std * (sum_dy_centred - cache.residual * dbeta)
            (scale,) = path.columns(cache.working, cache.scale)

            dx, lines = path.empty(cache.x.dtype)
            for block, piece, room in centred(path, path.over(dy), None, cache.working, lines):
                np.multiply(piece, scale[block.columns], out=room)
            return Gradients(dx, _like(cache.gamma, dgamma), _like(cache.beta, dbeta))
    except FloatingPointError:
        return _gradients_in_double(dy, cache, fixed=True)


def _scaled_and_shifted(cache):
    """y = gamma * x_hat + beta: block by block, or in double precision should that overflow."""
    path, x, residual, beta = cache.walk, cache.x, cache.residual, cache.beta
    try:
        with np.errstate(over="raise", invalid="raise"):
            scale = _normal(cache.scale, cache.working)
            offset = -residual * scale if beta is None else beta - residual * scale
            scale, offset = path.columns(cache.working, scale, offset)

            y, lines = path.empty(x.dtype)
            for block, piece, room in centred(
                path, path.over(x), cache.shift, cache.working, out=lines
            ):
                np.multiply(piece, scale[block.columns], out=room)
                room += offset[block.columns]
            return y
    except FloatingPointError:
        y = cache.x_centred * cache.beside(cache.inv_std)
        if cache.gamma is not None:
            y *= cache.beside(cache.gamma)
        if beta is not None:
            y += cache.beside(beta)
        return check.narrowed("y", y, x.dtype) if cache.fixed else y.astype(x.dtype, copy=False)


def _gradients_in_double(dy, cache, fixed=False):
    """The gradients where single precision, or that of a result, may be too narrow."""
    check.finite("dy", dy)
    dy, x_hat = dy.astype(np.float64), cache.x_centred * cache.beside(cache.inv_std)
    with np.errstate(all="ignore"):
        dbeta, dgamma = _total(dy), _total(dy * x_hat)
        passed = dy if fixed else dy - (dbeta + x_hat * dgamma) / cache.batch_size
        dx = cache.beside(cache.scale) * passed
    if not fixed:
        _refuse_large(dy, dgamma, dbeta)
    return Gradients(
        check.result("dx", dx, cache.x),
        _narrowed_like(cache.gamma, "dgamma", dgamma),
        _narrowed_like(cache.beta, "dbeta", dbeta),
    )


def _checked(x, gamma, beta, eps):
    """The arguments of forward. Whether x is finite shows in its statistics."""
    x = np.asarray(check.array("x", x))
    if x.ndim < 2 or not x.size >= 2 * x.shape[1] > 0:
        check.batch("x", x, least=2)
    if gamma is not None:
        gamma = check.vector("gamma", gamma, x.shape[1], "x", x.dtype).copy()
    if beta is not None:
        beta = check.vector("beta", beta, x.shape[1], "x", x.dtype).copy()
    eps, smallest = check.positive("eps", eps), SMALLEST[WORKING[x.dtype]]
    if eps < smallest:
        raise ValueError(
            f"eps is {eps}, expected at least {smallest:.3g}: smaller variances underflow in "
            f"{WORKING[x.dtype]}"
        )
    return x, gamma, beta, eps


def _incoming(dy, cache, fixed=True):
    """dy, checked against the cache; ``fixed`` says whether that may hold fixed statistics."""
    check.kept(cache, Cache)
    if cache.fixed and not fixed:
        raise ValueError(
            "cache holds fixed statistics, expected those of a batch, which forward keeps: the "
            "gradient of forward_fixed is backward_fixed(dy, cache)"
        )
    return cache.matching(dy)


def _normal(scale, dtype):
    """The scale, unless an entry would lose digits in the dtype: that is left to double precision."""
    small = np.abs(scale) < SMALLEST[dtype]
    if np.count_nonzero(small) and scale[small].any():
        raise FloatingPointError
    return scale


def _refuse_large(dy, *totals):
    if not np.isfinite(totals).all():
        raise ValueError(
            f"dy reaches {np.abs(dy).max():.3g} in magnitude, expected values whose products with "
            f"x - mean sum to less than {np.finfo(np.float64).max:.3g}; divide dy by a constant"
        )


def _total(values):
    return values.sum(axis=(0, *range(2, values.ndim)), keepdims=True)


def _copy(vector):
    return None if vector is None else np.array(vector)


def _like(parameter, gradient):
    return None if parameter is None else gradient.astype(parameter.dtype, copy=False)


def _narrowed_like(parameter, name, gradient):
    if parameter is None:
        return None
    return check.narrowed(name, gradient.reshape(-1), parameter.dtype)
