"""Inference: replace the batch's statistics by fixed ones, and batch norm becomes an affine map.

Three estimates of those statistics, the normalisation that uses them, and folding it away.
Source: Ioffe and Szegedy (2015), section 3.1 and Algorithm 2.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float
from numpy.typing import DTypeLike

from bncore import arguments as check
from bncore.mechanics.folding import affine_map, fold_conv, fold_linear

__all__ = [
    "RunningStatistics",
    "affine_map",
    "exact_statistics",
    "fold_conv",
    "fold_linear",
    "normalize",
    "population_statistics",
]

Vector = Float[np.ndarray, "features"]
Batch = Float[np.ndarray, "_ features *_spatial"]


class RunningStatistics:
    """Averages of the batch means and variances seen while training, in torch's convention.

    running <- (1 - momentum) * running + momentum * batch

    The batch variance enters with divisor m - 1, although training normalises with divisor m;
    m = batch * spatial is the number of values of each feature. After t batches the initial value
    still weighs (1 - momentum)^t, and the average looks back over some 1 / momentum batches. With
    ``momentum=None`` every batch weighs the same and the initial value nothing.

    Parameters
    ----------
    num_features : int
        Length of axis 1 of the batches.
    momentum : float or None
        Weight of the newest batch, in [0, 1]; None for the cumulative average.
    dtype : dtype
        Of mean and var. torch keeps float32.

    Attributes
    ----------
    mean, var : Float[ndarray, "features"]
        The estimates; 0 and 1 before the first batch. ``update`` replaces these arrays and never
        writes into them.
    num_batches_tracked : int
        Number of batches seen.

    Raises
    ------
    TypeError
        If num_features is not an integer, momentum not a real number, or dtype not floating point.
    ValueError
        If num_features < 1 or momentum lies outside [0, 1].
    """

    def __init__(
        self,
        num_features: int,
        momentum: float | int | None = 0.1,
        dtype: DTypeLike = np.float64,
    ):
        check.positive_integer("num_features", num_features)
        if momentum is not None:
            check.fraction("momentum", momentum)
        if np.dtype(dtype) not in check.FLOATS:
            raise TypeError(f"dtype is {dtype!r}, expected float16, float32 or float64")
        self.num_features = num_features
        self.momentum = momentum
        self.num_batches_tracked = 0
        self.mean = np.zeros(num_features, dtype)
        self.var = np.ones(num_features, dtype)

    def update(self, x: Batch) -> None:
        """Take one training batch into the averages.

        Raises
        ------
        TypeError
            If x is not an array of floating-point numbers.
        ValueError
            If x has another number of features, fewer than two values of each, or a value that is
            not finite. The averages then stay as they were.
        """
        x = check.batch("x", x, self.num_features, least=2)
        m = check.values_per_feature(x)
        mean, var = _moments(x)
        weight = 1 / (self.num_batches_tracked + 1) if self.momentum is None else self.momentum
        self.num_batches_tracked += 1
        self.mean = self._average(weight, self.mean, mean)
        self.var = self._average(weight, self.var, m * var / (m - 1))

    def _average(self, weight, running, batch):
        average = weight * batch + (1 - weight) * running.astype(np.float64)
        return average.astype(running.dtype)


def population_statistics(batches: Iterable[Batch]) -> tuple[Vector, Vector]:
    """Estimate the population's mean and variance from those of its batches.

    mean = E_B[mu_B],    var = E_B[m / (m - 1) sigma_B²]

    E_B is the plain average over batches, sigma_B² the variance of a batch with divisor m. For
    batches of one size this is the paper's m / (m - 1) E_B[sigma_B²]. Batches of unequal size each
    get their own m / (m - 1) and the same weight, as in ``RunningStatistics(momentum=None)``.

    The variance is unbiased when the values in a batch are independent draws from the population.
    Batches drawn without replacement from a finite set of N values are not: for them the
    expectation is N / (N - 1) times the variance of that set. Values at neighbouring positions of
    one image tend to be alike, and the estimate is then too small. ``exact_statistics`` needs no
    assumption.

    Parameters
    ----------
    batches : iterable of Float[ndarray, "batch features *spatial"]
        Read once, so a generator will do.

    Returns
    -------
    mean, var : Float[ndarray, "features"]
        In the widest dtype of the batches, float32 at least.

    Raises
    ------
    TypeError
        If a batch is not an array of floating-point numbers.
    ValueError
        If there is no batch, or one has fewer than two values a feature, another number of
        features than the first, or a value that is not finite.

    References
    ----------
    Ioffe and Szegedy (2015), Algorithm 2, line 10.
    """
    mean, var, dtype = 0.0, 0.0, np.float32
    for k, (m, x) in enumerate(_checked(batches, least=2), start=1):
        batch_mean, batch_var = _moments(x)
        mean = mean + (batch_mean - mean) / k
        var = var + (m * batch_var / (m - 1) - var) / k
        dtype = np.promote_types(dtype, x.dtype)
    return mean.astype(dtype), var.astype(dtype)


def exact_statistics(batches: Iterable[Batch]) -> tuple[Vector, Vector]:
    """Mean and variance of all the batches taken together, one batch in memory at a time.

    With n values of mean mu_A and squared deviations M_A so far, a batch of m values adds

    mu = mu_A + (m / (n + m)) delta,    M = M_A + M_B + (n m / (n + m)) delta²,
    delta = mu_B - mu_A

    and var = M / n at the end: the divisor is n, as in ``numpy.var``. Batches may differ in size
    and in spatial shape. The means are kept relative to the first batch's, so that an offset far
    larger than the spread of the data costs no digits.

    Parameters
    ----------
    batches : iterable of Float[ndarray, "batch features *spatial"]
        Read once, so a generator will do.

    Returns
    -------
    mean, var : Float[ndarray, "features"]
        In the widest dtype of the batches, float32 at least.

    Raises
    ------
    TypeError
        If a batch is not an array of floating-point numbers.
    ValueError
        If there is no batch, or one is empty, has another number of features than the first, or a
        value that is not finite.

    References
    ----------
    Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance: analysis
    and recommendations", The American Statistician 37(3).
    """
    n, mean, deviations, origin, dtype = 0, 0.0, 0.0, None, np.float32
    for m, x in _checked(batches, least=1):
        if origin is None:
            origin = _moments(x)[0]
        batch_mean, batch_var = _moments(x - _beside(origin, x))
        delta = batch_mean - mean
        mean = mean + m / (n + m) * delta
        deviations = deviations + m * batch_var + n * m / (n + m) * np.square(delta)
        n += m
        dtype = np.promote_types(dtype, x.dtype)
    return (origin + mean).astype(dtype), (deviations / n).astype(dtype)


def normalize(
    x: Float[np.ndarray, "batch features *spatial"],
    mean: Vector,
    var: Vector,
    gamma: Vector | None = None,
    beta: Vector | None = None,
    eps: float | int = 1e-5,
) -> Float[np.ndarray, "batch features *spatial"]:
    """Normalise each feature with fixed statistics, then scale and shift it.

    y = gamma * (x - mean) / sqrt(var + eps) + beta

    No value depends on another example of the batch. The same map in the form ``scale * x + shift``
    is ``affine_map``; subtracting the mean first, as here, keeps the digits that cancel there when
    the mean is much larger than the deviation.

    Parameters
    ----------
    x : Float[ndarray, "batch features *spatial"]
        The input.
    mean, var : Float[ndarray, "features"]
        The fixed statistics.
    gamma, beta : Float[ndarray, "features"], optional
        Learned scale and shift; None stands for ones and zeros.
    eps : float
        Positive; in the units of var.

    Returns
    -------
    y : Float[ndarray, "batch features *spatial"]
        In the dtype of x; half precision is computed in float32.

    Raises
    ------
    TypeError
        If an argument is not floating point, or eps is not a real number.
    ValueError
        If x is empty, shapes disagree, a value is not finite, var is negative, or eps <= 0.

    References
    ----------
    Ioffe and Szegedy (2015), Algorithm 2, line 11.
    """
    x = check.batch("x", x)
    check.fixed_statistics(mean, var, gamma, beta, eps, x.shape[1], "x")
    scale, _ = affine_map(mean.astype(np.float64), var, gamma, None, eps)
    dtype = np.result_type(x, mean, np.float32)
    y = x - _beside(mean.astype(dtype), x)
    y *= _beside(scale, x)
    if beta is not None:
        y += _beside(beta, x)
    return y.astype(x.dtype, copy=False)


def _moments(x):
    """Mean and variance (divisor m) of each feature, accumulated in float64.

    The second pass removes the rounding error that the first left in the mean.
    """
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axis=axes, dtype=np.float64)
    deviation = x - _beside(mean, x)
    error = deviation.mean(axis=axes)
    return mean + error, np.square(deviation).mean(axis=axes) - np.square(error)


def _beside(vector, x):
    """The vector shaped to broadcast along axis 1 of x."""
    return vector.reshape(-1, *[1] * (x.ndim - 2))


def _checked(batches, least):
    """Yield each batch with its number of values a feature; the first fixes the features."""
    features = None
    for index, x in enumerate(batches):
        x = check.batch(f"batches[{index}]", x, features, least=least)
        m = check.values_per_feature(x)
        features = x.shape[1]
        yield m, x
    if features is None:
        raise ValueError("batches is empty, expected at least one batch")
