"""The noise that batch norm adds: how far a batch's statistics, and one example's output, scatter.

A batch of m values has its own mean and biased variance. Their scatter about the population's, and
that of the normalised value of one example over random companies, are computed here: to first order
for any distribution, exactly for normal ones. Three layers vary the noise while the gradient's batch
stays: ``GhostBatchNorm`` has the noise of small batches, ``BorrowedStatistics`` has it from other
examples, and ``InjectedNoise`` draws it at random.
The chapter derives the formulas. Ioffe and Szegedy (2015), section 3.4; Hoffer, Hubara and Soudry
(2017).
"""

import math
from collections.abc import Callable
from numbers import Real

import numpy as np
import torch
from jaxtyping import Float
from scipy import special, stats
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bncore import arguments as check

# By which moments computed from data may miss what holds for exact ones.
ROUNDING = 1e-9

Values = Real | Float[np.ndarray, "values"]


def mean_variance(m: int, var: Real = 1.0, population: int | None = None) -> float:
    """Variance of the mean of a batch: var / m for independent draws.

    From N values without replacement it is var / m (N - m) / (N - 1), and 0 for the whole set.

    Parameters
    ----------
    m : int
        Batch size, at least 1 and at most ``population``.
    var : float
        Variance of the values, with divisor N if they are N.
    population : int, optional
        Number N of values from which the batch is drawn without replacement; by default draws are
        independent.

    Raises
    ------
    TypeError
        If m or population is not an integer, or var not a real number.
    ValueError
        If m is below 1 or above population, population is below 2, or var is negative.
    """
    m, population = _batch(m, population, least=1)
    var = check.nonnegative("var", var)
    return var / m * _correction(m, population)


def variance_variance(
    m: int, var: Real = 1.0, kurtosis: Real = 3.0, population: int | None = None
) -> float:
    """Variance of the biased variance of a batch.

    For independent draws, with a4 the kurtosis, var² (m - 1) ((m - 1) a4 - m + 3) / m³. Without
    replacement from N values, with c = N / (N - 1), it is ((m - 1) / m)² var² times
    c (a4 + 3) / m + (m - 2) (m - 3) / (m (m - 1)) q - c², where
    q = (c N² - N (a4 + 3)) / ((N - 2) (N - 3)).

    Parameters
    ----------
    m : int
        Batch size, at least 2.
    var, kurtosis : float
        Variance of the values, and their fourth central moment over its square: at least 1, and 3
        for normal values. With divisors N if they are N.
    population : int, optional
        As in ``mean_variance``.

    Raises
    ------
    TypeError
        If m or population is not an integer, or another argument is not a real number.
    ValueError
        If m is below 2 or above population, var is negative, or kurtosis is below 1 or above
        (N² - 3 N + 3) / (N - 1), which is the most that N values have.
    """
    m, population = _batch(m, population, least=2)
    var, a4 = check.nonnegative("var", var), _kurtosis(kurtosis, population)
    if population is None:
        return var**2 * (m - 1) * ((m - 1) * a4 - m + 3) / m**3
    if m == population:
        return 0.0
    c = population / (population - 1)
    apart = 0.0
    if m > 3:
        q = (c * population**2 - population * (a4 + 3)) / ((population - 2) * (population - 3))
        apart = (m - 2) * (m - 3) / (m * (m - 1)) * q
    return ((m - 1) / m * var) ** 2 * max(c * (a4 + 3) / m + apart - c**2, 0.0)


def output_moments(
    z: Values,
    m: int,
    skewness: Real = 0.0,
    kurtosis: Real = 3.0,
    population: int | None = None,
) -> tuple[Values, Values]:
    """Mean and variance of one example's normalised value over random companies, to order 1 / m.

    The example lies z standard deviations above the population mean, and eps is 0. With skewness a3
    and kurtosis a4 the mean is z + (a3 / 2 + 3 (a4 - 1) z / 8 - z³ / 2) / m, and the variance is
    (1 + a3 z + (a4 - 1) z² / 4) / m.

    Parameters
    ----------
    z : float or Float[ndarray, "values"]
    m : int
        Batch size with the example, at least 2.
    skewness, kurtosis : float
        Of the population; kurtosis is at least 1 + skewness².
    population : int, optional
        Number of values from which the company is drawn without replacement: both terms of order
        1 / m shrink by (N - m) / (N - 1).

    Returns
    -------
    mean, variance : float or Float[ndarray, "values"]

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If m is below 2 or above population, z is not finite, or there is no distribution of such
        moments.

    Notes
    -----
    Over a random example the mean square is exactly 1, so noise takes from the signal: averaged over
    z the noise is (a4 + 3) / (4 m) of it.
    """
    m, population = _batch(m, population, least=2)
    _values("z", z)
    a3, a4 = check.number("skewness", skewness), _kurtosis(kurtosis, population)
    if not a4 >= (1 + a3**2) * (1 - ROUNDING):
        raise ValueError(
            f"kurtosis is {a4:g} with skewness {a3:g}, expected at least 1 + skewness², "
            f"{1 + a3**2:g}: no distribution has these moments"
        )
    scale = _correction(m, population) / m
    kind = z.dtype if isinstance(z, np.ndarray | np.floating) else None
    z = np.asarray(z, dtype=float)[()]
    mean = z + scale * (a3 / 2 + 3 * (a4 - 1) * z / 8 - z**3 / 2)
    variance = scale * (1 + a3 * z + (a4 - 1) * z**2 / 4)
    if kind is None:
        return float(mean), float(variance)
    return mean.astype(kind), variance.astype(kind)


class GaussianOutput:
    """The exact distribution of one example's normalised value when its company is normal.

    With d the example minus the mean of the others, and t = d over their biased standard
    deviation, the output is sqrt(m - 1) t / sqrt(m + t²), and sqrt(m - 2) t has Student's t
    distribution with m - 2 degrees of freedom and noncentrality sqrt(m - 1) z. So the output never
    exceeds sqrt(m - 1). Here eps is 0.

    Parameters
    ----------
    z : float
        The example, in standard deviations above the population mean.
    m : int
        Batch size with the example, at least 3.

    Raises
    ------
    TypeError
        If z is not a real number or m not an integer.
    ValueError
        If z is not finite or m is below 3: in a batch of two the output is -1 or 1.
    """

    def __init__(self, z: Real, m: int):
        self.z, self.m = check.number("z", z), check.integer("m", m, least=3)
        if not math.isfinite(self.z):
            raise ValueError(f"z is {z}, expected a finite number")
        chi = stats.chi(self.m - 2, scale=1 / math.sqrt(self.m - 1))
        self._deviation, weights = _legendre(*chi.ppf([1e-17, 1 - 1e-16]), nodes=200)
        self._weights = weights * self._chi_pdf(self._deviation)

    def cdf(self, x_hat: Values) -> Values:
        """Probability of an output of at most x_hat.

        Raises
        ------
        TypeError
            If x_hat is neither a real number nor a floating-point array.
        ValueError
            If it is or holds NaN.
        """
        x_hat, sign, t, _ = self._student(x_hat)
        inside = self._integral(
            t,
            sign,
            lambda deviation: special.gammaincc(self.m / 2 - 1, (self.m - 1) * deviation**2 / 2),
            special.ndtr,
        )
        # For t of at least 1 the integral leaves out a negative distance.
        below = np.where(t >= 1, special.ndtr(-math.sqrt(self.m - 1) * sign * self.z), 0.0)
        upper = np.clip(inside + below, 0.0, 1.0)
        values = np.where(sign > 0, upper, 1 - upper)
        values = np.where(x_hat**2 < self.m - 1, values, x_hat > 0)
        return values if values.ndim else float(values)

    def pdf(self, x_hat: Values) -> Values:
        """Density of the output at x_hat; zero beyond sqrt(m - 1).

        Raises
        ------
        TypeError, ValueError
            As ``cdf``.
        """
        x_hat, sign, t, slope = self._student(x_hat)
        root = math.sqrt(self.m - 1)
        density = self._integral(
            t,
            sign,
            lambda deviation: self._chi_pdf(deviation) * deviation,
            lambda score: root * self._deviation * _normal_pdf(score),
        )
        density = density / np.maximum(t, 1)
        values = np.where(x_hat**2 < self.m - 1, slope * density, 0.0)
        return values if values.ndim else float(values)

    def moments(self) -> tuple[float, float]:
        """Mean and variance, by quadrature of the distribution function."""
        edge = math.sqrt(self.m - 1)
        reach = 12 * math.sqrt((1 + self.z**2) / self.m)
        low, high = (
            math.asin(max(min(end / edge, 1.0), -1.0))
            for end in (min(self.z, edge) - reach, max(self.z, -edge) + reach)
        )
        angle, weights = _legendre(low, high, nodes=400)
        x = edge * np.sin(angle)
        above = weights * edge * np.cos(angle) * (1 - self.cdf(x))
        start = edge * math.sin(low)
        mean = start + above.sum()
        return float(mean), float(start**2 + 2 * (x * above).sum() - mean**2)

    def _student(self, x_hat):
        """The output with its sign, its t without sign, and dt over dx_hat."""
        _values("x_hat", x_hat, infinite=True)
        x_hat, n = np.asarray(x_hat, dtype=float), self.m - 1
        rest = np.where(x_hat**2 < n, n - x_hat**2, 1.0)
        t = math.sqrt(self.m) * np.abs(x_hat) / np.sqrt(rest)
        return x_hat, np.where(x_hat < 0, -1.0, 1.0), t, math.sqrt(self.m) * n / rest**1.5

    def _chi_pdf(self, deviation):
        """Density of the others' biased standard deviation."""
        k, square = self.m - 2, (self.m - 1) * deviation**2
        constant = math.log(self.m - 1) / 2 + (1 - k / 2) * math.log(2) - special.gammaln(k / 2)
        logs = constant + special.xlogy((k - 1) / 2, square) - square / 2
        return np.exp(logs)

    def _integral(self, t, sign, over_distance, over_score):
        """Expectation over d > 0 where t is at least 1, and over the deviation where it is less.

        Either integrand is then smooth on the scale of its nodes.
        """
        root = math.sqrt(self.m - 1)
        values = np.zeros_like(t)
        small = t < 1
        if small.any():
            shift = (sign[small] * self.z)[:, None]
            score = root * (t[small][:, None] * self._deviation - shift)
            values[small] = over_score(score) @ self._weights
        for side in (-1.0, 1.0):
            large = ~small & (sign == side)
            if large.any():
                centre = side * self.z
                low, high = (max(centre + reach / root, 0.0) for reach in (-9, 9))
                distance, weights = _legendre(low, high, nodes=200)
                weights = weights * root * _normal_pdf(root * (distance - centre))
                values[large] = over_distance(distance / t[large][:, None]) @ weights
        return values


def _batch(m, population, least):
    m = check.integer("m", m, least=least)
    if population is not None:
        population = check.integer("population", population, least=2)
        if m > population:
            raise ValueError(
                f"m is {m}, expected at most population, {population}: draws are without "
                "replacement"
            )
    return m, population


def _correction(m, population):
    return 1.0 if population is None else (population - m) / (population - 1)


def _normal_pdf(score):
    return np.exp(-(score**2) / 2) / math.sqrt(2 * math.pi)


def _legendre(low, high, nodes):
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return low + (points + 1) / 2 * (high - low), weights / 2 * (high - low)


def _kurtosis(value, population):
    value = check.positive("kurtosis", value)
    if value < 1 - ROUNDING:
        raise ValueError(f"kurtosis is {value}, expected at least 1: no distribution has less")
    if population is None:
        return max(value, 1.0)
    most = (population**2 - 3 * population + 3) / (population - 1)  # all values equal but one
    if value > most * (1 + ROUNDING):
        raise ValueError(
            f"kurtosis is {value}, expected at most {most:g}: no {population} values have more"
        )
    return min(max(value, 1.0), most)


def _values(name, value, infinite=False):
    """Refuse anything but a real number or a floating-point array without NaN."""
    if isinstance(value, np.ndarray):
        check.array(name, value)
    else:
        check.number(name, value)
    if infinite and not np.isnan(value).any():
        return
    if not np.isfinite(value).all():
        raise ValueError(f"{name} has an entry that is not finite, expected finite ones only")
