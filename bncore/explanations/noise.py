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


class GhostBatchNorm(BatchNorm):
    """Batch norm whose statistics come from small parts of the batch, each normalised by itself.

    A batch is cut, in its order, into ghost batches of ``size`` examples. A running average takes
    the ghost batches one after the other, as torch's batch norm does when it sees them one by one.
    In training mode any floating-point input is normalised, in float32 at least, and comes back in
    its own type. In evaluation mode it is torch's batch norm.

    Parameters
    ----------
    num_features : int
        Features, on axis 1 of inputs (batch, features, *spatial).
    size : int
        Examples in a ghost batch; at least 2, and it must divide every batch in training mode.
    eps, momentum : float
        As in torch; momentum None averages all ghost batches equally.

    Raises
    ------
    TypeError
        If num_features or size is not an integer, eps or momentum not a real number or, when
        called, the input not a floating-point tensor.
    ValueError
        If num_features is below 1, size below 2, eps negative, momentum outside [0, 1] or, when
        called, the input has another shape or size does not divide the batch.

    References
    ----------
    Hoffer, Hubara and Soudry (2017), Algorithm 1.
    """

    def __init__(
        self, num_features: int, size: int, eps: float = 1e-5, momentum: float | None = 0.1
    ):
        size = check.integer("size", size, least=2)
        check.positive_integer("num_features", num_features)
        check.nonnegative("eps", eps)
        if momentum is not None:
            check.fraction("momentum", momentum)
        super().__init__(num_features, eps, momentum)
        self.size = size

    def forward(self, x: Float[torch.Tensor, "batch features *spatial"]):
        self._check_input_dim(x)
        if not self.training:
            return super().forward(x)
        self._check_batch(x)
        ghosts = _exact(x).reshape(-1, self.size, *x.shape[1:])
        axes = [1, *range(3, ghosts.ndim)]
        var, mean = torch.var_mean(ghosts, axes, correction=0, keepdim=True)
        self._keep(mean.detach().flatten(1), var.detach().flatten(1), ghosts[0, :, 0].numel())
        mean, var = self._next(mean), self._next(var)
        return self._scaled((ghosts - mean) / torch.sqrt(var + self.eps), x)

    def _next(self, statistic):
        return statistic

    def _check_batch(self, x):
        if len(x) % self.size or len(x) == 0:
            raise ValueError(
                f"the batch has {len(x)} examples, expected a multiple of size, {self.size}"
            )
        if x.numel() == 0:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected no empty axis")

    def _keep(self, means, variances, values):
        kind = self.running_mean.dtype
        means, unbiased = means.to(kind), (variances * values / (values - 1)).to(kind)
        for mean, var in zip(means, unbiased, strict=True) if self.momentum is None else ():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, 1 / self.num_batches_tracked.item())
            self.running_var.lerp_(var, 1 / self.num_batches_tracked.item())
        if self.momentum is None:
            return
        self.num_batches_tracked.add_(len(means))
        age = torch.arange(len(means) - 1, -1, -1, device=means.device, dtype=means.dtype)
        weights = self.momentum * (1 - self.momentum) ** age
        for running, new in ((self.running_mean, means), (self.running_var, unbiased)):
            running.mul_((1 - self.momentum) ** len(means)).add_(weights @ new)

    def _scaled(self, x_hat, x):
        shape = (-1, *[1] * (x.ndim - 2))
        y = self.weight.reshape(shape) * x_hat.reshape(x.shape) + self.bias.reshape(shape)
        return y.to(x.dtype)

    def _check_input_dim(self, x):
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, torch.Tensor) else check.type_name(x)
            raise TypeError(f"x is a {kind}, expected a floating-point torch.Tensor")
        if x.ndim < 2 or x.shape[1] != self.num_features:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected (batch, {self.num_features}, *spatial)"
            )


class BorrowedStatistics(GhostBatchNorm):
    """Batch norm in which each ghost batch is normalised by the statistics of the one before it.

    The first borrows those of the last.

    The noise is that of ghost batches, alike in all features, but an example has no part in the
    statistics that it meets. Running averages are those of ``GhostBatchNorm``.

    Parameters
    ----------
    num_features, size, eps, momentum
        As in ``GhostBatchNorm``. In a batch of ``size`` an example meets its own statistics.

    Raises
    ------
    TypeError, ValueError
        As ``GhostBatchNorm``.
    """

    def _next(self, statistic):
        return statistic.roll(1, 0)


class InjectedNoise(GhostBatchNorm):
    """Batch norm over the whole batch, with the noise of ghost batches drawn at random instead.

    For each ghost batch and feature one normal offset and one gamma factor of the variance are
    drawn, with the means and variances that the statistics of a part of this batch have
    (``mean_variance``, ``variance_variance`` with the feature's kurtosis). All values of a feature
    count as independent: with spatial axes whose neighbours resemble each other the noise is weaker
    than that of ghost batches. What is left out: the noise knows nothing of the examples that it
    meets, nor of other features, and offset and factor are independent. A feature whose variance is
    not above eps gets no noise.

    Parameters
    ----------
    num_features, size, eps, momentum
        As in ``GhostBatchNorm``. A batch of ``size`` itself has no noise added.

    Raises
    ------
    TypeError, ValueError
        As ``GhostBatchNorm``.
    """

    def forward(self, x: Float[torch.Tensor, "batch features *spatial"]):
        self._check_input_dim(x)
        if not self.training or len(x) == self.size:
            return super().forward(x)
        self._check_batch(x)
        axes, count, exact = [0, *range(2, x.ndim)], x[:, 0].numel(), _exact(x)
        var, mean = torch.var_mean(exact, axes, correction=0, keepdim=True)
        self._keep(mean.detach().reshape(1, -1), var.detach().reshape(1, -1), count)
        x_hat = (exact - mean) / torch.sqrt(var + self.eps)
        offset, factor = self._draw(x_hat.detach(), count, count // len(x) * self.size, axes)
        ghosts = x_hat.reshape(-1, self.size, *x.shape[1:])
        shape = (len(ghosts), 1, self.num_features, *[1] * (x.ndim - 2))
        noisy = (ghosts - offset.reshape(shape)) / torch.sqrt(factor.reshape(shape) + self.eps)
        return self._scaled(torch.where(var > self.eps, noisy.reshape(x.shape), x_hat), x)

    def _draw(self, x_hat, count, m, axes):
        square = (x_hat**2).mean(axes).clamp(min=1e-18)  # its square is still a float32
        kurtosis = ((x_hat**4).mean(axes) / square**2).clamp(min=1.0)
        # The variance of the variance is linear in the kurtosis.
        none, slope = (variance_variance(m, 1.0, a4, count) for a4 in (1.0, 2.0))
        spread = (none + (slope - none) * (kurtosis - 1)).clamp(min=1e-12)
        centre = (m - 1) / m * count / (count - 1)
        draws = (count // m, self.num_features)
        offset = torch.randn(draws, dtype=x_hat.dtype, device=x_hat.device)
        shape = (centre**2 / spread).expand(draws)
        factor = torch.distributions.Gamma(shape, shape / centre, validate_args=False).sample()
        return offset * math.sqrt(mean_variance(m, 1.0, count)), factor


def ghost(size: int) -> Callable[[int], nn.Module]:
    """A normalisation for the networks of ``bncore.lab``: ``GhostBatchNorm`` of this size."""
    return lambda num_features: GhostBatchNorm(num_features, size)


def borrowed(size: int) -> Callable[[int], nn.Module]:
    """A normalisation for the networks of ``bncore.lab``: ``BorrowedStatistics`` of this size."""
    return lambda num_features: BorrowedStatistics(num_features, size)


def injected(size: int) -> Callable[[int], nn.Module]:
    """A normalisation for the networks of ``bncore.lab``: ``InjectedNoise`` of this size."""
    return lambda num_features: InjectedNoise(num_features, size)


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


def _exact(x):
    """The tensor in float32 where it has less."""
    return x.float() if x.element_size() < 4 else x
