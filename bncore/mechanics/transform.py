"""The batch-normalizing transform and its gradients.

y = gamma * x_hat + beta,    x_hat = (x - mean) / sqrt(var + eps),    statistics over the batch.
Ioffe and Szegedy (2015), Algorithm 1 and section 3. ``textbook`` has the same in ten lines each.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bncore import arguments as check
from bncore.mechanics._blocks import centred, patterns, short_buffers

Batch = Float[np.ndarray, "batch features *spatial"]
Vector = Float[np.ndarray, "features"]

SMALLEST = {np.dtype(kind): float(np.finfo(kind).tiny) for kind in (np.float32, np.float64)}


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


@dataclass(slots=True, eq=False, repr=False)
class Cache:
    """What ``forward`` keeps for ``backward``: x itself, not a copy, and its statistics.

    The mean is kept in two parts, shift + residual: one number in the precision of x cannot hold
    the mean of a batch that lies far from 0 to a small fraction of the batch's deviation.

    Attributes
    ----------
    x : Float[ndarray, "batch features *spatial"]
        The input of ``forward``. It must not change before ``backward``.
    gamma, beta : Float[ndarray, "features"] or None
        Copies of the affine parameters.
    eps : float
        Added to the variance.
    shift : Float[ndarray, "features"] or None
        A number near each feature's mean, in the precision of the computation; None where 0 is
        near enough for every feature.
    residual : Float[ndarray, "features"]
        mean - shift, in double precision.
    var : Float[ndarray, "features"]
        Biased variance (divisor m), in double precision.
    inv_std : Float[ndarray, "features"]
        1 / sqrt(var + eps), in double precision.
    """

    x: Batch
    gamma: Vector | None
    beta: Vector | None
    eps: float
    shift: Vector | None
    residual: Vector
    var: Vector
    inv_std: Vector
    fingerprint: bytes

    @property
    def batch_size(self) -> int:
        """m, the number of values that each feature's statistics average."""
        return self.x.size // self.x.shape[1]

    @property
    def mean(self) -> Vector:
        """Batch mean, in double precision."""
        return self.residual.copy() if self.shift is None else self.shift + self.residual

    @property
    def scale(self) -> Vector:
        """gamma / sqrt(var + eps), the slope of y in x when the statistics are fixed."""
        return self.inv_std if self.gamma is None else self.gamma * self.inv_std

    @property
    def x_hat(self) -> Batch:
        """The normalised input, computed anew at each access, in the dtype of x."""
        return (self.x_centred * _spread(self.inv_std, self)).astype(self.x.dtype)

    @property
    def x_centred(self) -> Batch:
        """x - mean, computed anew at each access, in double precision."""
        deviation = self.x.astype(np.float64)
        if self.shift is not None:
            deviation -= _spread(self.shift, self)
        return deviation - _spread(self.residual, self)


def forward(
    x: Batch, gamma: Vector | None = None, beta: Vector | None = None, eps: float = 1e-5
) -> tuple[Batch, Cache]:
    """Normalise each feature over the batch, then scale and shift it.

    y = gamma * (x - mean) / sqrt(var + eps) + beta

    Mean and biased variance are taken over every axis but axis 1, that of the features. Half and
    single precision are computed in single precision, with totals in double.

    Parameters
    ----------
    x : Float[ndarray, "batch features *spatial"]
        float16, float32 or float64, with at least two values a feature.
    gamma, beta : Float[ndarray, "features"], optional
        Scale and shift in the dtype of x, or in float32 for a float16 x. None means 1 and 0.
    eps : float
        Positive. It keeps the division finite and makes the mean of x_hat² var / (var + eps).

    Returns
    -------
    y : Float[ndarray, "batch features *spatial"]
        In the dtype of x. A feature that is constant over the batch becomes beta exactly. Where
        gamma or beta is so large that y leaves the range of the dtype, y is infinite.
    cache : Cache
        What ``backward`` needs. It refers to x, so do not overwrite x before ``backward``.

    Raises
    ------
    TypeError
        If an array is not a plain floating-point array, a parameter's dtype does not fit that of
        x, or eps is not a real number.
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
    _check_batch(x)
    _check_parameter("gamma", gamma, x)
    _check_parameter("beta", beta, x)
    eps = _checked_eps(eps, x)

    with short_buffers(over="ignore", invalid="ignore"):
        shift, residual, var = _statistics(x)
        inv_std = 1 / np.sqrt(var + eps)
        affine = (_copy(gamma), _copy(beta), eps)
        cache = Cache(np.asarray(x), *affine, shift, residual, var, inv_std, _fingerprint(x))
        scale = cache.scale
        offset = residual * scale
        offset = -offset if beta is None else beta - offset
        scale, offset = _working(x, scale, offset)

        y = np.empty(x.shape, x.dtype)
        for block, piece, room in centred(x, shift, _working_dtype(x), out=y):
            np.multiply(piece, scale[block.columns], out=room)
            room += offset[block.columns]
    return y, cache


def backward(dy: Batch, cache: Cache) -> Gradients:
    """Carry the gradient of a loss from y back to x, gamma and beta.

    dbeta  = sum(dy)
    dgamma = sum(dy * x_hat)
    dx     = gamma / sqrt(var + eps) * (dy - dbeta / m - x_hat * dgamma / m)

    Parameters
    ----------
    dy : Float[ndarray, "batch features *spatial"]
        Gradient of the loss with respect to y, in the shape and dtype of y.
    cache : Cache
        From the ``forward`` that returned y.

    Returns
    -------
    Gradients
        dx in the dtype of x; dgamma and dbeta in those of gamma and beta, None where these were.

    Raises
    ------
    TypeError
        If dy is not a plain floating-point array, or cache is not what ``forward`` returned.
    ValueError
        If dy and the cache differ in shape or dtype, if x changed since ``forward``, or if dy is
        not finite or so large that its products with x - mean overflow.

    References
    ----------
    Ioffe and Szegedy (2015), section 3; the closed form follows by inserting their six equations
    into each other.
    """
    _check_incoming(dy, cache)
    x, m, inv_std = cache.x, cache.batch_size, cache.inv_std
    with short_buffers(over="ignore", invalid="ignore"):
        dbeta, sum_dy_centred = _correlations(dy, cache)
        dgamma = inv_std * (sum_dy_centred - cache.residual * dbeta)

        slope = inv_std * dgamma / m
        level = dbeta / m - cache.residual * slope
        scale, slope, level = _working(x, cache.scale, slope, level)

        dx = np.empty(x.shape, x.dtype)
        for block, piece, room in centred(x, cache.shift, _working_dtype(x), out=dx):
            np.multiply(piece, slope[block.columns], out=room)
            room += level[block.columns]
            np.subtract(block.of(dy), room, out=room)
            room *= scale[block.columns]
    return Gradients(dx, _like(cache.gamma, dgamma), _like(cache.beta, dbeta))


def backward_steps(dy: Batch, cache: Cache) -> Steps:
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
        dx_hat and dx in the dtype of x; dvar and dmean in double precision; dgamma and dbeta in
        the dtypes of gamma and beta, None where these were None.

    References
    ----------
    Ioffe and Szegedy (2015), section 3: the six equations after Algorithm 1.
    """
    _check_incoming(dy, cache)
    with np.errstate(over="ignore", invalid="ignore"):
        _correlations(dy, cache)  # refuses what backward refuses
    m, x_centred, inv_std = cache.batch_size, cache.x_centred, _spread(cache.inv_std, cache)
    x_hat = x_centred * inv_std
    dy = dy.astype(np.float64)

    def total(values):
        return values.sum(axis=(0, *range(2, dy.ndim)), keepdims=True)

    dx_hat = dy if cache.gamma is None else dy * _spread(cache.gamma, cache)
    dvar = total(dx_hat * x_centred) * (-1 / 2) * inv_std**3
    dmean = -total(dx_hat) * inv_std + dvar * total(-2 * x_centred) / m
    dx = dx_hat * inv_std + dvar * 2 * x_centred / m + dmean / m
    dgamma = total(dy * x_hat)
    dbeta = total(dy)

    dtype = cache.x.dtype
    return Steps(
        dx_hat.astype(dtype),
        dvar.reshape(-1),
        dmean.reshape(-1),
        dx.astype(dtype),
        _like(cache.gamma, dgamma.reshape(-1)),
        _like(cache.beta, dbeta.reshape(-1)),
    )


def _statistics(x):
    """Shift, residual and variance of each feature.

    Squares are summed around a shift, since squares of large numbers would cancel. A feature keeps
    the shift 0 if its mean lies within one deviation of 0. If not, its shift is the mean of a few
    values, or, should these have been no fair sample, the mean that the sum around it gives.
    """
    residual, var, near = _moments(x, None)
    if np.count_nonzero(near) == near.size:
        return None, residual, var
    if not np.isfinite(var).all():
        check.finite("x", x)
    shift = np.where(near, 0, _sample_mean(x)).astype(_working_dtype(x))
    residual, var, near = _moments(x, shift)
    if not near.all():
        shift = np.where(near, shift, shift + residual).astype(shift.dtype)
        residual, var, near = _moments(x, shift)
        if not np.isfinite(var).all():
            _refuse_wide_spread(x, int(np.isfinite(var).argmin()))
    return shift, residual, var


def _sample_mean(x):
    """Average a few values of each feature, exactly where they are all equal."""
    few = x[(slice(16), slice(None), *(slice(4) for _ in x.shape[2:]))]
    few = few.astype(_working_dtype(x))
    first = few[(slice(1), slice(None), *(slice(1) for _ in x.shape[2:]))]
    return (first + (few - first).mean(axis=_batch_axes(x), keepdims=True)).reshape(-1)


def _moments(x, shift):
    """Mean of x - shift, variance of x, and whether the mean lies within one deviation of the shift."""
    totals = np.zeros((2, x.shape[1]))
    m = x.size // x.shape[1]
    for block, piece, _ in centred(x, shift, _working_dtype(x)):
        block.add_sums(piece, piece, totals)
    residual, square = totals / m
    distance = residual * residual
    var = np.maximum(square - distance, 0)
    return residual, var, (distance <= var) & (var < np.inf)


def _correlations(dy, cache):
    """sum(dy) and sum(dy * (x - shift)) over the batch, by one pass over both."""
    totals = np.zeros((2, dy.shape[1]))
    for block, piece, _ in centred(cache.x, cache.shift, _working_dtype(dy)):
        incoming = block.of(dy).astype(piece.dtype, copy=False)
        block.add_sums(incoming, piece, totals)
    if np.count_nonzero(np.isfinite(totals)) < totals.size:
        check.finite("dy", dy)
        raise ValueError(
            f"dy reaches {np.abs(dy).max():.3g} in magnitude, expected values whose products with "
            f"x - mean sum to less than {_largest(dy):.3g}; divide dy by a constant"
        )
    return totals


def _check_batch(x):
    check.array("x", x)
    if x.ndim < 2:
        raise ValueError(
            f"x has shape {x.shape}, expected at least two axes: (batch, features, *spatial)"
        )
    if x.shape[1] == 0:
        raise ValueError(f"x has shape {x.shape}, expected at least one feature on axis 1")
    m = x.size // x.shape[1]
    if m == 0:
        raise ValueError(f"x has shape {x.shape}, an empty batch; expected at least two samples")
    if m == 1:
        raise ValueError(
            f"x has shape {x.shape}, one value a feature, expected at least two: the variance of "
            "one value is 0, and its output would be beta whatever the value"
        )


def _check_parameter(name, value, x):
    if value is None:
        return
    check.vector(name, value, x.shape[1], "x")
    if value.dtype not in (x.dtype, _working_dtype(x)):
        allowed = "float16 or float32" if x.dtype == np.float16 else str(x.dtype)
        raise TypeError(
            f"{name} has dtype {value.dtype}, expected {allowed}, because x has dtype {x.dtype}"
        )


def _checked_eps(eps, x):
    eps = check.positive("eps", eps)
    dtype = _working_dtype(x)
    if eps < SMALLEST[dtype]:
        raise ValueError(
            f"eps is {eps}, expected at least {SMALLEST[dtype]:.3g}: smaller variances underflow "
            f"in {dtype}"
        )
    return eps


def _check_incoming(dy, cache):
    if not isinstance(cache, Cache):
        raise TypeError(
            f"cache is a {check.type_name(cache)}, expected the Cache that forward returned"
        )
    check.array("dy", dy)
    for what in ("shape", "dtype"):
        given, expected = getattr(dy, what), getattr(cache.x, what)
        if given != expected:
            raise ValueError(
                f"dy has {what} {given}, expected {expected}, that of the x in the cache: "
                "is the cache from another call?"
            )
    if _fingerprint(cache.x) != cache.fingerprint:
        raise ValueError(
            "x was changed since forward, expected the values it had then: the cache refers to x "
            "and holds no copy; call forward again or give it a copy of x"
        )


def _fingerprint(x):
    return x[_grid(x.shape)].tobytes()


@lru_cache(maxsize=64)
def _grid(shape):
    """Slices that pick some 64 entries, evenly spaced along every axis."""
    steps = [max(1, round(length / 64 ** (1 / len(shape)))) for length in shape]
    return tuple(slice(step // 2, None, step) for step in steps)


def _refuse_wide_spread(x, feature):
    values = x[:, feature]
    raise ValueError(
        f"x runs from {values.min():.3g} to {values.max():.3g} in feature {feature}, expected "
        f"values whose squared distances sum to less than {_largest(x):.3g}, the largest "
        f"{_working_dtype(x)}; divide x by a constant"
    )


def _working_dtype(x):
    """Half precision is computed in single precision, the others in their own."""
    return x.dtype if x.dtype != np.float16 else np.dtype(np.float32)


def _working(x, *vectors):
    """Vectors of features in the dtype computed in, laid out for the blocks of x."""
    return patterns(np.array(vectors, _working_dtype(x)), x.shape)


def _largest(x):
    return np.finfo(_working_dtype(x)).max


def _batch_axes(x):
    return (0, *range(2, x.ndim))


def _spread(vector, cache):
    return vector.reshape(-1, *(1 for _ in cache.x.shape[2:]))


def _copy(vector):
    return None if vector is None else np.array(vector)


def _like(parameter, gradient):
    return None if parameter is None else gradient.astype(parameter.dtype)
