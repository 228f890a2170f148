r"""One core for all: the statistics of an array over chosen axes, forward and backward.

y = c * gamma * x_hat + beta,    x_hat = (x - mean) / sqrt(var + eps)

Entries that share a mean and a variance form a set. What a normalisation is, the sets say: batch norm
has one for each feature, layer norm one for each example, group norm one for each example and group,
weight standardization one for each unit. Without centring, the mean is 0 and var the mean square: root
mean square and weight normalization.

Computed in double precision, whatever x is: to read, to compare and to test by.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Real

from bncore import arguments as check
from bncore.mechanics.transform import Gradients

Array = Float[np.ndarray, "..."]
ArrayLike = Real[np.ndarray, "..."] | check.Listed
Vector = Float[np.ndarray, "features"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cache:
    """What a normalisation keeps for ``backward``. It does not refer to x.

    Attributes
    ----------
    x_hat : Float[ndarray, "..."]
        The normalised input, in the shape of x and in double precision.
    mean, var : Float[ndarray, "..."]
        The statistics in double precision, one a set. Without centring the mean is 0 and var the
        mean square.
    inv_std : Float[ndarray, "..."]
        1 / sqrt(var + eps).
    gamma, beta : Float[ndarray, "features"] or None
        Copies of scale and shift.
    factor : float
        The constant c, by which gamma is multiplied.
    axis : int
        The axis of x that gamma and beta belong to.
    view : tuple of int
        The shape in which the axes below form the sets.
    axes : tuple of int
        The axes of the view over which a set runs.
    centred : bool
        Whether the mean is subtracted.
    dtype : numpy.dtype
        That of x.
    """

    x_hat: Array
    mean: Array
    var: Array
    inv_std: Array
    gamma: Vector | None
    beta: Vector | None
    factor: float
    axis: int
    view: tuple[int, ...]
    axes: tuple[int, ...]
    centred: bool
    dtype: np.dtype

    def beside(self, vector: Vector) -> Array:
        """A vector of features, in the shape that meets x."""
        return vector.reshape(-1, *(1 for _ in self.x_hat.shape[self.axis + 1 :]))


def normalize(
    x: Array,
    view: tuple[int, ...],
    axes: tuple[int, ...],
    gamma: Vector | None = None,
    beta: Vector | None = None,
    eps: float | int = 1e-5,
    *,
    centred: bool = True,
    factor: float = 1.0,
    axis: int = 1,
    name: str = "x",
) -> tuple[Array, Cache]:
    """Normalise each set of entries by its own statistics, then scale and shift each feature.

    y = factor * gamma * (x - mean) / sqrt(var + eps) + beta

    Parameters
    ----------
    x : Float[ndarray, "..."]
        Finite, of float16, float32 or float64.
    view : tuple of int
        A shape with as many entries as x, which may divide an axis into several.
    axes : tuple of int
        The axes of the view over which each set runs: at least 2 entries, or 1 without centring.
    gamma, beta : Float[ndarray, "features"], optional
        Scale and shift. None means 1 and 0.
    eps : float
        At least 0. With 0 every set needs a spread.
    centred : bool
        Whether the mean is subtracted. If not, var is the mean square.
    factor : float
        A constant beside gamma.
    axis : int
        The axis of x that gamma and beta belong to.
    name : str
        What to call x in an error.

    Returns
    -------
    y : Float[ndarray, "..."]
        In the dtype and memory order of x.
    cache : Cache
        What ``backward`` needs.

    Raises
    ------
    ValueError
        If x is empty, a set has too few entries or, with eps 0, no spread; if squares or y leave
        the range of the dtype.
    """
    _refuse_few(name, x, view, axes, centred)
    check.finite(name, x)
    with np.errstate(all="ignore"):
        values = x.astype(np.float64).reshape(view)
        mean = np.zeros_like(values, shape=[1 if i in axes else n for i, n in enumerate(view)])
        if centred:
            # Sums around one of the values: constant sets stay exactly constant.
            first = values[tuple(slice(1) if i in axes else slice(None) for i in range(len(view)))]
            values = values - first
            rest = values.mean(axis=axes, keepdims=True)
            values, mean = values - rest, first + rest
        var = np.square(values).mean(axis=axes, keepdims=True)
        inv_std = 1 / np.sqrt(var + eps)
    if not np.isfinite(var).all():
        raise ValueError(
            f"{name} reaches {np.abs(x).max():.3g} in magnitude, expected values whose squares sum "
            f"to less than {np.finfo(np.float64).max:.3g}; divide {name} by a constant"
        )
    if not np.isfinite(inv_std).all():
        raise ValueError(
            f"{'the variance' if centred else 'the mean square'} of a set of {name} is 0, expected "
            "more: it is divided by, and nothing is added to it"
        )
    x_hat = (values * inv_std).reshape(x.shape)
    gamma, beta = (None if one is None else one.copy() for one in (gamma, beta))
    cache = Cache(
        *(x_hat, mean, var, inv_std, gamma, beta, factor, axis),
        *(view, axes, centred, x.dtype),
    )
    with np.errstate(all="ignore"):
        y = factor * x_hat if gamma is None else x_hat * cache.beside(factor * gamma)
        if beta is not None:
            y = y + cache.beside(beta)
    return check.result("y", y, x), cache


def backward(dy: ArrayLike, cache: Cache) -> Gradients:
    """Carry the gradient of a loss from y back to x, gamma and beta, for every function of this package.

    dbeta  = sum(dy)
    dgamma = c * sum(dy * x_hat)
    dx     = (dx_hat - mean(dx_hat) - x_hat * mean(dx_hat * x_hat)) / sqrt(var + eps)

    with dx_hat = c * gamma * dy. Sums run over all entries of a feature, means over the set that
    shares its statistics. Where nothing was centred, mean(dx_hat) falls away. The constant c is 1,
    but for the normalisations of weights that say otherwise.

    Parameters
    ----------
    dy : Float[ndarray, "..."]
        Gradient of the loss with respect to y, in the shape of x and, or exactly convertible to,
        its dtype.
    cache : Cache
        From the function that returned y.

    Returns
    -------
    mechanics.transform.Gradients
        dx in the dtype of x and the memory order of dy; dgamma and dbeta in the dtypes of gamma and
        beta, None where these were None. For weights, dx is the gradient of the weights handed in
        and dgamma that of their scale.

    Raises
    ------
    TypeError
        If dy holds no real numbers, or cache is not what a function of this package returned.
    ValueError
        If dy has another shape than x, is not finite, or a gradient leaves the range of its dtype.
    """
    check.kept(cache, Cache, "the normalization")
    dy = check.array("dy", dy, dtype=cache.dtype)
    x_hat = cache.x_hat
    if dy.shape != x_hat.shape:
        raise ValueError(
            f"dy has shape {dy.shape}, expected {x_hat.shape}, that of x: is the cache from another "
            "call?"
        )
    dy = check.exactly("dy", dy, cache.dtype)
    others = tuple(i for i in range(dy.ndim) if i != cache.axis)
    with np.errstate(all="ignore"):
        incoming = dy.astype(np.float64)
        dbeta = incoming.sum(axis=others)
        dgamma = cache.factor * (incoming * x_hat).sum(axis=others)
        scale = np.ones(1) if cache.gamma is None else cache.gamma.astype(np.float64)
        dx_hat = (incoming * cache.beside(cache.factor * scale)).reshape(cache.view)
        x_hat = x_hat.reshape(cache.view)
        removed = x_hat * (dx_hat * x_hat).mean(axis=cache.axes, keepdims=True)
        if cache.centred:
            removed += dx_hat.mean(axis=cache.axes, keepdims=True)
        dx = ((dx_hat - removed) * cache.inv_std).reshape(dy.shape)
    return Gradients(
        check.result("dx", dx, dy),
        _narrowed("dgamma", dgamma, cache.gamma),
        _narrowed("dbeta", dbeta, cache.beta),
    )


def _refuse_few(name, x, view, axes, centred):
    if x.size == 0:
        raise ValueError(f"{name} has shape {x.shape}, expected at least one value: it is empty")
    count = int(np.prod([view[axis] for axis in axes]))
    if count < 1 + centred:
        raise ValueError(
            f"{name} has shape {x.shape}, which leaves {count} value to each set that shares its "
            f"statistics, expected at least {1 + centred}: one value has no deviation"
        )


def _narrowed(name, gradient, parameter):
    return None if parameter is None else check.narrowed(name, gradient, parameter.dtype)
