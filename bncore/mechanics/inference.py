"""Inference: replace the batch's statistics by fixed ones, and batch norm becomes an affine map.

Three estimates of those statistics, the normalisation that uses them, and folding it away.
Source: Ioffe and Szegedy (2015), section 3.1 and Algorithm 2.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Real
from numpy.typing import DTypeLike

from bncore import arguments as check
from bncore.mechanics import transform
from bncore.mechanics.folding import (
    affine_map,
    fold_conv,
    fold_conv_after,
    fold_linear,
    fold_linear_after,
)

__all__ = [
    "RunningStatistics",
    "affine_map",
    "exact_statistics",
    "fold_conv",
    "fold_conv_after",
    "fold_linear",
    "fold_linear_after",
    "normalize",
    "population_statistics",
]

Vector = Float[np.ndarray, "features"]
Batch = Real[np.ndarray, "_ _ *_"] | check.Listed


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
        Of mean and var: float16, float32 or float64. torch keeps float32.

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
        self.num_features = check.positive_integer("num_features", num_features)
        self.momentum = None if momentum is None else check.fraction("momentum", momentum)
        if np.dtype(dtype) not in check.FLOATS:
            raise TypeError(f"dtype is {dtype!r}, expected float16, float32 or float64")
        self.num_batches_tracked = 0
        self.mean = np.zeros(self.num_features, dtype)
        self.var = np.ones(self.num_features, dtype)

    def update(self, x: Batch) -> None:
        """Take one training batch into the averages.

        Raises
        ------
        TypeError
            If x is not an array of real numbers.
        ValueError
            If x has another number of features, fewer than two values of each, a value that is
            not finite, or an average leaves the range of its dtype. The averages then stay as they
            were. Also if ``momentum`` is None and mean and var were restored, but not the number of
            batches that they average: it would be taken for 0.
        """
        x = check.batch("x", x, self.num_features, least=2)
        m = check.values_per_feature(x)
        self._check_counter()
        mean, var = _moments(x)
        weight = 1 / (self.num_batches_tracked + 1) if self.momentum is None else self.momentum
        mean = self._average(weight, self.mean, mean)
        var = self._average(weight, self.var, m * var / (m - 1))
        self.mean, self.var = mean, var
        self.num_batches_tracked += 1

    def _average(self, weight, running, batch):
        average = weight * batch + (1 - weight) * running.astype(np.float64)
        return check.narrowed("the average", average, running.dtype)

    def _check_counter(self):
        seen = check.integer("num_batches_tracked", self.num_batches_tracked, least=0)
        if self.momentum is None and seen == 0 and (self.mean.any() or (self.var != 1).any()):
            raise ValueError(
                "num_batches_tracked is 0, but mean and var have moved from 0 and 1: with "
                "momentum None the new batch would replace them; set num_batches_tracked to the "
                "number of batches that they average"
            )


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
        In the widest dtype of the batches, float32 at least; lists and integers are float64.

    Raises
    ------
    TypeError
        If a batch is not an array of real numbers.
    ValueError
        If there is no batch, or one has fewer than two values a feature, another number of
        features than the first, or a value that is not finite; or if a result leaves the range of
        its dtype, as the variance of float32 values near 1e20 does: hand in float64 then.

    References
    ----------
    Ioffe and Szegedy (2015), Algorithm 2, line 10.
    """
    mean, var, dtype = 0.0, 0.0, np.float32
    for k, (m, x) in enumerate(_checked(batches, least=2), start=1):
        batch_mean, batch_var = _moments(x)
        with np.errstate(over="ignore"):
            mean = mean + (batch_mean - mean) / k
            var = var + (m * batch_var / (m - 1) - var) / k
        dtype = np.promote_types(dtype, x.dtype)
    return check.narrowed("mean", mean, dtype), check.narrowed("var", var, dtype)


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
        As from ``population_statistics``.

    Raises
    ------
    TypeError, ValueError
        As ``population_statistics``, but that one value a feature is enough.

    References
    ----------
    Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance: analysis
    and recommendations", The American Statistician 37(3).
    """
    n, mean, deviations, origin, dtype = 0, 0.0, 0.0, None, np.float32
    for m, x in _checked(batches, least=1):
        if origin is None:
            origin, _ = _moments(x)
        with np.errstate(over="ignore"):
            batch_mean, batch_var = _moments(x - _beside(origin, x))
            delta = batch_mean - mean
            mean = mean + m / (n + m) * delta
            deviations = deviations + m * batch_var + n * m / (n + m) * np.square(delta)
        n += m
        dtype = np.promote_types(dtype, x.dtype)
    var = deviations / n
    return check.narrowed("mean", origin + mean, dtype), check.narrowed("var", var, dtype)


def normalize(
    x: Real[np.ndarray, "batch features *spatial"] | check.Listed,
    mean: check.VectorLike,
    var: check.VectorLike,
    gamma: check.VectorLike | None = None,
    beta: check.VectorLike | None = None,
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
        In the dtype and memory order of x; half precision is computed in float32. Empty where x
        is.

    Raises
    ------
    TypeError
        If an argument is not an array of real numbers, or eps is not a real number.
    ValueError
        If shapes disagree, a value is not finite, var is negative, eps <= 0, or y leaves the range
        of the dtype of x.

    References
    ----------
    Ioffe and Szegedy (2015), Algorithm 2, line 11.
    """
    y, _ = transform.forward_fixed(x, mean, var, gamma, beta, eps)
    return y


def _moments(x):
    """Mean and variance (divisor m) of each feature, accumulated in float64.

    The second pass removes the rounding error that the first left in the mean.
    """
    axes = (0, *range(2, x.ndim))
    with np.errstate(over="ignore", invalid="ignore"):
        mean = x.mean(axis=axes, dtype=np.float64)
        deviation = x - _beside(mean, x)
        error = deviation.mean(axis=axes)
        squares = np.square(deviation).sum(axis=axes)
    if not np.isfinite(squares).all():
        values = x[:, int(np.isfinite(squares).argmin())]
        raise ValueError(
            f"a batch runs from {values.min():.3g} to {values.max():.3g} in a feature, expected "
            f"values whose squared deviations sum to less than {np.finfo(np.float64).max:.3g}: "
            "divide it by a constant"
        )
    var = squares / check.values_per_feature(x) - np.square(error)
    return mean + error, np.maximum(var, 0)


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
