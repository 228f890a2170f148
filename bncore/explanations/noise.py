"""The noise that batch norm adds: how far a batch's statistics, and one example's output, scatter.

A batch of m values has its own mean and biased variance. Their scatter about the population's, and
that of the normalised value of one example over random companies, are computed here: to first order
for any distribution, exactly for normal ones. ``ghost_batches`` has batch norms that vary the noise.
The chapter derives the formulas. Ioffe and Szegedy (2015), section 3.4; Hoffer, Hubara and Soudry
(2017).
"""

import math
import numbers
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Real
from scipy import special, stats

from bncore import arguments as check

# By which moments computed from data may miss what holds for exact ones.
ROUNDING = 1e-9

# What the distribution and the moments of ``GaussianOutput`` are right to.
ACCURACY = 1e-10
MOST = 2**53
LARGEST_Z = 1e6

Number = numbers.Real
Values = Number | Real[np.ndarray, "values"] | check.Listed
Found = float | np.floating | Float[np.ndarray, "values"]


def mean_variance(m: int, var: Number = 1.0, population: int | None = None) -> float:
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
        If m is below 1 or above population, population is below 2 or above 2^53, or var is negative.
    """
    m, population = _batch(m, population, least=1)
    var = check.nonnegative("var", var)
    return var / m * _correction(m, population)


def variance_variance(
    m: int, var: Number = 1.0, kurtosis: Number = 3.0, population: int | None = None
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
        If m is below 2 or above population, var is negative, kurtosis is below 1 or above
        (N² - 3 N + 3) / (N - 1), which is the most that N values have, or the result leaves the
        range of floats.
    """
    m, population = _batch(m, population, least=2)
    var, a4 = check.nonnegative("var", var), _kurtosis(kurtosis, population)
    return _finite(var * var * _of_unit_variance(m, a4, population))


def _of_unit_variance(m, a4, population):
    if population is None:
        return (m - 1) * ((m - 1) * a4 - m + 3) / m**3
    if m == population:
        return 0.0
    c = population / (population - 1)
    apart = 0.0
    if m > 3:
        q = (c * population**2 - population * (a4 + 3)) / ((population - 2) * (population - 3))
        apart = (m - 2) * (m - 3) / (m * (m - 1)) * q
    return ((m - 1) / m) ** 2 * max(c * (a4 + 3) / m + apart - c**2, 0.0)


def output_moments(
    z: Values,
    m: int,
    skewness: Number = 0.0,
    kurtosis: Number = 3.0,
    population: int | None = None,
) -> tuple[Found, Found]:
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
        If m is below 2 or above population, z is not finite, there is no distribution of such
        moments, or a result leaves the range of the dtype of z.

    Notes
    -----
    Over a random example the mean square is exactly 1, so noise takes from the signal: averaged over
    z the noise is (a4 + 3) / (4 m) of it.
    """
    m, population = _batch(m, population, least=2)
    z, kind = _values("z", z)
    a3, a4 = check.finite_number("skewness", skewness), _kurtosis(kurtosis, population)
    if not a4 >= (1 + a3 * a3) * (1 - ROUNDING):
        raise ValueError(
            f"kurtosis is {a4:g} with skewness {a3:g}, expected at least 1 + skewness², "
            f"{1 + a3 * a3:g}: no distribution has these moments"
        )
    scale = _correction(m, population) / m
    with np.errstate(over="ignore", invalid="ignore"):
        mean = z + scale * (a3 / 2 + 3 * (a4 - 1) * z / 8 - z**3 / 2)
        variance = scale * (1 + a3 * z + (a4 - 1) * z**2 / 4)
    return _like(z, kind, "the mean", mean), _like(z, kind, "the variance", variance)


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
        If z is beyond 10^6 in size, m above 2^53, or m below 3: in a batch of two the output is -1
        or 1.
    """

    def __init__(self, z: Number, m: int):
        self.z, (self.m, _) = check.finite_number("z", z), _batch(m, None, least=3)
        if abs(self.z) > LARGEST_Z:
            raise ValueError(
                f"z is {z}, expected at most {LARGEST_Z:g} in size: an example so far away is "
                "normalised to the bound, sqrt(m - 1)"
            )
        self._chi = stats.chi(self.m - 2, scale=1 / math.sqrt(self.m - 1))
        self._narrow, self._wide = self._chi.ppf([1e-17, 1 - 1e-16])

    def cdf(self, x_hat: Values) -> Found:
        """Probability of an output of at most x_hat, right to 1e-10.

        Raises
        ------
        TypeError
            If x_hat is neither a real number nor an array of them.
        ValueError
            If it is or holds NaN.
        """
        x_hat, kind = _values("x_hat", x_hat, infinite=True)
        values = self._below(*self._student(x_hat))
        values = np.where(np.abs(x_hat) < math.sqrt(self.m - 1), values, x_hat > 0)
        return _like(x_hat, kind, "the probability", values)

    def pdf(self, x_hat: Values) -> Found:
        """Density of the output at x_hat, right to 1e-10 of its peak; zero beyond sqrt(m - 1).

        Raises
        ------
        TypeError, ValueError
            As ``cdf``; or if the density leaves the range of the dtype of x_hat.
        """
        x_hat, kind = _values("x_hat", x_hat, infinite=True)
        t, sign = self._student(x_hat)
        root = math.sqrt(self.m - 1)
        density = self._integral(
            t,
            sign,
            lambda deviation: self._chi_pdf(deviation) * deviation,
            lambda score, deviation: root * deviation * _normal_pdf(score),
        )
        inside = np.abs(x_hat) < root
        slope = math.sqrt(self.m) * root**2 / np.where(inside, root**2 - x_hat**2, 1.0) ** 1.5
        values = np.where(inside, slope * density / np.maximum(t, 1), 0.0)
        return _like(x_hat, kind, "the density", values)

    def moments(self) -> tuple[float, float]:
        """Mean and variance, right to 1e-10 of the bound and of its square, by quadrature of ``cdf``."""
        edge, reach = math.sqrt(self.m - 1), 9 / math.sqrt(self.m - 1)
        low, high = (
            math.atan2(
                distance, (self._narrow if distance * side > 0 else self._wide) * self.m**0.5
            )
            for side, distance in ((-1, self.z - reach), (1, self.z + reach))
        )

        def above(nodes):
            angle, weights = _legendre(low, high, nodes)
            t = math.sqrt(self.m) * np.tan(angle)
            beyond = weights * edge * np.cos(angle) * (1 - self._below(np.abs(t), np.sign(t)))
            # The distance of x from the lower end, without a difference of nearly equal numbers.
            x = 2 * edge * np.cos((angle + low) / 2) * np.sin((angle - low) / 2)
            return np.array([beyond.sum() / edge, 2 * (x * beyond).sum() / edge**2])

        first, second = _refined(above, "the moments")
        return edge * (math.sin(low) + float(first)), edge**2 * float(second - first**2)

    def _student(self, x_hat):
        """The size of the output's t, and its sign."""
        n = self.m - 1
        rest = np.where(np.abs(x_hat) < math.sqrt(n), n - x_hat**2, 1.0)
        inside = np.where(rest > 0, rest, 1.0)
        return math.sqrt(self.m) * np.abs(x_hat) / np.sqrt(inside), np.where(x_hat < 0, -1.0, 1.0)

    def _below(self, t, sign):
        """Probability of a t below sign * t."""
        inside = self._integral(
            t,
            sign,
            lambda deviation: special.gammaincc(self.m / 2 - 1, (self.m - 1) * deviation**2 / 2),
            lambda score, deviation: special.ndtr(score),
        )
        # For t of at least 1 the integral leaves out a negative distance.
        below = np.where(t >= 1, special.ndtr(-math.sqrt(self.m - 1) * sign * self.z), 0.0)
        upper = np.clip(inside + below, 0.0, 1.0)
        return np.where(sign > 0, upper, 1 - upper)

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
        root, small = math.sqrt(self.m - 1), t < 1

        def expectation(nodes):
            values = np.zeros_like(t)
            if small.any():
                deviation, weights = _legendre(self._narrow, self._wide, nodes)
                score = root * (t[small][:, None] * deviation - (sign[small] * self.z)[:, None])
                values[small] = over_score(score, deviation) @ (weights * self._chi_pdf(deviation))
            for side in (-1.0, 1.0):
                large = ~small & (sign == side)
                centre = side * self.z
                low, high = (max(centre + reach / root, 0.0) for reach in (-9, 9))
                if large.any() and high > low:
                    distance, weights = _legendre(low, high, nodes)
                    weights = weights * root * _normal_pdf(root * (distance - centre))
                    values[large] = over_distance(distance / t[large][:, None]) @ weights
            return values

        return _refined(expectation, "the distribution")


def _batch(m, population, least):
    m = check.integer("m", m, least=least)
    if population is not None:
        population = check.integer("population", population, least=2)
        if m > population:
            raise ValueError(
                f"m is {m}, expected at most population, {population}: draws are without "
                "replacement"
            )
    for name, value in (("m", m), ("population", population or 2)):
        if value > MOST:
            raise ValueError(f"{name} is {value}, expected at most 2^53, to be exact as a float")
    return m, population


def _correction(m, population):
    return 1.0 if population is None else (population - m) / (population - 1)


def _normal_pdf(score):
    return np.exp(-(score**2) / 2) / math.sqrt(2 * math.pi)


def _legendre(low, high, nodes):
    points, weights = _leggauss(nodes)
    return low + (points + 1) / 2 * (high - low), weights / 2 * (high - low)


_leggauss = lru_cache(np.polynomial.legendre.leggauss)


def _refined(integral, what):
    """The integral with so many nodes that twice as many change nothing."""
    before = integral(100)
    for nodes in (200, 400, 800, 1600):
        found = integral(nodes)
        largest = np.abs(found).max(initial=1.0)
        if np.abs(found - before).max(initial=0.0) <= ACCURACY * largest:
            return found
        before = found
    raise ValueError(
        f"{what} cannot be integrated to {ACCURACY:g} with 1600 nodes, expected a smaller z or m"
    )


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
    """Numbers as an array of float64, without NaN; and the dtype to answer in, None for a float."""
    if isinstance(value, numbers.Real) and not isinstance(value, np.floating):
        kind, found = None, np.asarray(check.number(name, value))
    else:
        found = check.array(name, np.asarray(value) if isinstance(value, np.floating) else value)
        kind = found.dtype
    if np.isnan(found).any() or not (infinite or np.isfinite(found).all()):
        raise ValueError(f"{name} has an entry that is not finite, expected finite ones only")
    return found.astype(np.float64), kind


def _like(given, kind, name, values):
    """The values in the dtype that was given, or as a float."""
    values = check.narrowed(name, np.broadcast_to(values, given.shape), kind or np.float64)
    return values if given.ndim else values[()] if kind else float(values)


def _finite(value):
    return float(check.narrowed("the variance", np.float64(value), np.float64))
