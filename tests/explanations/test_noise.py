"""Formulas of the noise against all batches, all subsets, and the exact distribution."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bncore.explanations import noise
from bncore.explanations.noise import GaussianOutput

seeds = st.integers(0, 10**6)
EPS = np.finfo(np.float64).eps


def population(seed, n):
    """n skewed values with their variance and kurtosis."""
    x = np.random.default_rng(seed).normal(size=n) ** 3 + 5
    return x, x.var(), ((x - x.mean()) ** 4).mean() / x.var() ** 2


def rounding(x, var, kurtosis):
    """Of a variance of means and of one of variances, where values are rounded before centring."""
    rounded = 64 * EPS * np.abs(x).max() / var**0.5
    return rounded * var, rounded * var**2 * kurtosis


def variance_and_error(values):
    """The variance of a sample, and its standard error."""
    squares = (values - values.mean()) ** 2
    return squares.mean(), squares.std() / len(values) ** 0.5


@given(seeds, st.integers(1, 4), st.integers(2, 5))
def test_independent_draws_against_all_batches(seed, m, n):
    x, var, kurtosis = population(seed, n)
    batches = np.array(list(product(x, repeat=m)))
    of_mean, of_variance = rounding(x, var, kurtosis)
    assert batches.mean(1).var() == pytest.approx(noise.mean_variance(m, var), abs=of_mean)
    if m > 1:
        expected = noise.variance_variance(m, var, kurtosis)
        assert batches.var(1).var() == pytest.approx(expected, abs=of_variance)


@given(seeds, st.integers(2, 8), st.data())
def test_draws_without_replacement_against_all_subsets(seed, n, data):
    x, var, kurtosis = population(seed, n)
    m = data.draw(st.integers(1, n))
    batches = np.array(list(combinations(x, m)))
    of_mean, of_variance = rounding(x, var, kurtosis)
    expected = noise.mean_variance(m, var, n)
    assert batches.mean(1).var() == pytest.approx(expected, abs=of_mean)
    if m > 1:
        expected = noise.variance_variance(m, var, kurtosis, n)
        assert batches.var(1).var() == pytest.approx(expected, abs=of_variance)


@given(st.integers(2, 50), st.floats(1, 20))
def test_a_large_population_is_like_independent_draws(m, kurtosis):
    for function, arguments in (
        (noise.mean_variance, ()),
        (noise.variance_variance, (kurtosis,)),
    ):
        found = function(m, 2.0, *arguments, population=10**8)
        assert found == pytest.approx(function(m, 2.0, *arguments), rel=4 * m / 10**8)


@settings(max_examples=50)
@given(st.floats(-4, 4), st.integers(3, 300), st.floats(-0.999, 0.999))
def test_the_exact_distribution_against_quantiles_of_the_company(z, m, place):
    x_hat, n, count = place * np.sqrt(m - 1), m - 1, 5000
    deviation = stats.chi(m - 2).ppf((np.arange(count) + 0.5) / count) / np.sqrt(n)
    t = np.sqrt(m) * x_hat / np.sqrt(n - x_hat**2)
    expected = stats.norm.cdf(np.sqrt(n) * (t * deviation - z)).mean()
    # A mean over so many quantiles of what goes monotonically from 0 to 1.
    assert GaussianOutput(z, m).cdf(x_hat) == pytest.approx(expected, abs=1 / count)


@pytest.mark.parametrize("m", [3, 20])
def test_over_random_examples_the_output_is_beta(m):
    z, step = np.linspace(-6.5, 6.5, 101, retstep=True)
    x_hat = np.array([-0.99, -0.4, 0.1, 0.8]) * np.sqrt(m - 1)
    found = sum(step * stats.norm.pdf(a) * GaussianOutput(a, m).cdf(x_hat) for a in z)
    square = stats.beta(0.5, (m - 2) / 2).cdf(x_hat**2 / (m - 1))
    expected = (1 + np.sign(x_hat) * square) / 2
    atol = noise.ACCURACY + 2 * stats.norm.sf(6.5)
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@settings(max_examples=8)
@given(st.floats(-3, 3), st.integers(4, 100))
def test_density_and_moments_belong_to_the_distribution(z, m):
    exact, edge = GaussianOutput(z, m), np.sqrt(m - 1)
    # In the angle of a point on the sphere the density is smooth to its ends, and not narrow for 800.
    angle, weights = (np.pi / 2 * v for v in np.polynomial.legendre.leggauss(800))
    points = edge * np.sin(angle)
    mass = weights * exact.pdf(points) * edge * np.cos(angle)
    peak = (mass / weights).max()
    mean, var = exact.moments()
    for power, moment in enumerate((1, mean, var + mean**2)):
        accuracy = noise.ACCURACY * edge**power * (4 + np.pi * peak)
        assert mass @ points**power == pytest.approx(moment, abs=accuracy)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    x = np.linspace(-0.9, 0.9, 7) * edge
    half = np.diff(x) / 2
    density = exact.pdf(((x[:-1] + half)[:, None] + half[:, None] * nodes).ravel())
    found = half * (density.reshape(6, 60) @ weights)
    atol = noise.ACCURACY * (2 + 2 * half.max() * density.max())
    np.testing.assert_allclose(found, np.diff(exact.cdf(x)), rtol=0, atol=atol)


def test_the_output_against_companies_that_are_drawn():
    rng = np.random.default_rng(0)
    batches = rng.normal(3, 2, size=(40_000, 6))
    batches[:, 0] = 3 + 2 * 1.5
    x_hat = (batches[:, 0] - batches.mean(1)) / batches.std(1)
    exact = GaussianOutput(1.5, 6)
    assert stats.kstest(x_hat, exact.cdf).pvalue > 1e-3
    assert exact.cdf(-5.0) == 0
    assert exact.cdf(5.0) == 1
    assert exact.pdf(5.0) == 0
    assert isinstance(exact.pdf(0.3), float)


def exact_moments(z, m, kurtosis_power):
    """Mean and variance of the output for a company of gamma values, with their errors."""
    rng = np.random.default_rng(0)
    batches = rng.gamma(kurtosis_power, size=(50_000, m))
    batches = (batches - kurtosis_power) / np.sqrt(kurtosis_power)
    batches[:, 0] = z
    x_hat = (z - batches.mean(1)) / batches.std(1)
    variance, error = variance_and_error(x_hat)
    return x_hat.mean(), (variance / len(x_hat)) ** 0.5, variance, error


@pytest.mark.parametrize("z", [-1.0, 0.0, 1.5])
def test_the_first_order_for_skewed_values(z):
    shape, m = 4.0, 128
    mean, var = noise.output_moments(z, m, 2 / np.sqrt(shape), 3 + 6 / shape)
    found, error, variance, error_of_variance = exact_moments(z, m, shape)
    # The next order is 1 / m of the first.
    assert found == pytest.approx(mean, abs=4 * error + 10 / m**2)
    assert variance == pytest.approx(var, abs=4 * error_of_variance + 6 / m * var)


@settings(max_examples=10)
@given(st.floats(-3, 3))
def test_the_first_order_is_the_limit_of_the_exact_normal_moments(z):
    for m in (1000, 4000):
        mean, var = noise.output_moments(z, m)
        exact = GaussianOutput(z, m).moments()
        assert abs(exact[0] - mean) <= (1 + abs(z)) ** 3 / m**2
        assert abs(exact[1] - var) <= 6 * (1 + abs(z)) ** 4 / m**2


def test_a_company_without_replacement_has_less_noise():
    rng = np.random.default_rng(0)
    values = rng.normal(size=40)
    values = (values - values.mean()) / values.std()
    a3, a4 = (values**3).mean(), (values**4).mean()
    others = np.stack([rng.permutation(values[1:])[:29] for _ in range(20_000)])
    batches = np.column_stack([np.full(20_000, values[0]), others])
    x_hat = (values[0] - batches.mean(1)) / batches.std(1)
    without = noise.output_moments(values[0], 30, a3, a4, population=40)[1]
    variance, error = variance_and_error(x_hat)
    assert variance == pytest.approx(without, abs=4 * error + 4 / 30 * without)
    assert noise.output_moments(values[0], 40, a3, a4, population=40) == (values[0], 0)


@given(seeds, st.integers(2, 40))
def test_no_values_have_more_kurtosis_than_is_accepted(seed, n):
    values = np.random.default_rng(seed).standard_cauchy(n)
    outlier = np.r_[1.0, np.zeros(n - 1)]
    for x in (values, outlier):
        kurtosis = float(((x - x.mean()) ** 4).mean() / x.var() ** 2)
        assert noise.variance_variance(2, 1.0, kurtosis, n) >= 0
    with pytest.raises(ValueError, match=f"kurtosis is .*, expected at most .*: no {n} values"):
        noise.variance_variance(2, 1.0, 1.001 * kurtosis, n)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_moments_of_the_output_have_the_type_of_z(dtype):
    z = np.array([-60.0, 0.5, 60.0])
    for found, exact in zip(
        noise.output_moments(z.astype(dtype), 8), noise.output_moments(z, 8), strict=True
    ):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, exact, rtol=np.finfo(dtype).eps)
    assert all(type(value) is float for value in noise.output_moments(1, 8))
    assert noise.output_moments(np.int64(1), 8) == noise.output_moments(1, 8)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: noise.mean_variance(0), ValueError, "m is 0, expected at least 1"),
        (lambda: noise.mean_variance(2.0), TypeError, "m is a float, expected an integer"),
        (lambda: noise.mean_variance(9, 1.0, 8), ValueError, "m is 9, expected at most population"),
        (
            lambda: noise.mean_variance(1, 1.0, 1),
            ValueError,
            "population is 1, expected at least 2",
        ),
        (lambda: noise.mean_variance(2, -1.0), ValueError, "var is -1.0"),
        (lambda: noise.variance_variance(1), ValueError, "m is 1, expected at least 2"),
        (lambda: noise.variance_variance(4, 1.0, 0.5), ValueError, "kurtosis is 0.5, expected"),
        (lambda: noise.variance_variance(4, "1"), TypeError, "var is a str"),
        (
            lambda: noise.output_moments(1.0, 8, 2.0, 3.0),
            ValueError,
            r"kurtosis is 3 with skewness 2, expected at least 1 \+ skewness², 5",
        ),
        (lambda: noise.output_moments(1.0, 1), ValueError, "m is 1, expected at least 2"),
        (lambda: GaussianOutput(1.0, 2), ValueError, "m is 2, expected at least 3"),
        (lambda: GaussianOutput(np.inf, 4), ValueError, "z is inf, expected a finite number"),
        (lambda: GaussianOutput("1", 4), TypeError, "z is a str, expected a real number"),
        (
            lambda: noise.variance_variance(3, 1.0, 10.0, 4),
            ValueError,
            "kurtosis is 10.0, expected at most 2.33333: no 4 values have more",
        ),
        (lambda: noise.output_moments("a", 8), TypeError, "z is a str, expected a numpy.ndarray"),
        (lambda: noise.output_moments(np.nan, 8), ValueError, "z has an entry that is not finite"),
        (
            lambda: noise.output_moments([[1.0], [1.0, 2.0]], 8),
            ValueError,
            "z is a list whose rows",
        ),
        (lambda: GaussianOutput(1.0, 4).cdf(np.nan), ValueError, "x_hat has an entry that is not"),
        (lambda: GaussianOutput(1.0, 4).pdf(None), TypeError, "x_hat is a None, expected a numpy"),
    ],
)
def test_errors_teach(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("m", [3, 4, 10, 100, 10_000])
@pytest.mark.parametrize("z", [-2.0, 0.0, 0.5, 3.0])
def test_the_distribution_is_that_of_a_noncentral_t(m, z):
    t = z + np.linspace(-7, 7, 25) * math.sqrt((1 + z**2) / m)
    x_hat = math.sqrt(m - 1) * t / np.sqrt(m + t**2)
    expected = stats.nct.cdf(math.sqrt(m - 2) * t, m - 2, math.sqrt(m - 1) * z)
    known = np.isfinite(expected)  # scipy has none for some points far out
    assert known[8:17].all()
    found = GaussianOutput(z, m).cdf(x_hat)
    np.testing.assert_allclose(found[known], expected[known], rtol=0, atol=noise.ACCURACY)
    # The density integrates to the probabilities between the points.
    angle, weight = np.polynomial.legendre.leggauss(400)
    low, high = t[8], t[16]
    inside = (low + high) / 2 + angle * (high - low) / 2
    slope = math.sqrt(m - 1) * m / (m + inside**2) ** 1.5
    density = GaussianOutput(z, m).pdf(math.sqrt(m - 1) * inside / np.sqrt(m + inside**2))
    found = weight @ (density * slope) * (high - low) / 2
    assert found == pytest.approx(expected[16] - expected[8], abs=4 * noise.ACCURACY)


@pytest.mark.parametrize("m", [3, 8, 60])
@pytest.mark.parametrize("z", [0.5, 4.0, 40.0, 1000.0])
def test_moments_of_far_examples_keep_their_digits(m, z):
    """The bound less the output, over its size, against an integral over the noncentral t."""
    edge = math.sqrt(m - 1)
    mean, variance = GaussianOutput(z, m).moments()
    rng = np.random.default_rng(0)
    d = z + rng.normal(size=200_000) / edge
    s = np.sqrt(rng.chisquare(m - 2, size=200_000)) / edge
    t = d / s
    short = edge * (1 - np.where(t > 0, 1, -1) / np.sqrt(1 + m / t**2))
    short = np.where(t > 1e3, edge * m / (2 * t**2), short)
    error = 5 * short.std() / 200_000**0.5
    assert edge - mean == pytest.approx(short.mean(), abs=error + noise.ACCURACY * edge)
    expected, error = variance_and_error(short)
    accuracy = noise.ACCURACY * edge**2
    assert variance == pytest.approx(expected, abs=5 * error + accuracy)


def test_lists_and_integers_are_taken():
    z = np.array([-1.0, 0.0, 2.0])
    output = GaussianOutput(1, 8)
    for values in ([-1.0, 0.0, 2.0], [-1, 0, 2], np.array([-1, 0, 2])):
        np.testing.assert_array_equal(output.cdf(values), output.cdf(z))
        np.testing.assert_array_equal(output.pdf(values), output.pdf(z))
        found = noise.output_moments(values, 8, 1, 3)
        np.testing.assert_array_equal(found, noise.output_moments(z, 8, 1.0, 3.0))
    assert isinstance(output.cdf(1), float)
    assert output.cdf(z.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise.variance_variance(4, 1e200), "the variance is inf, beyond the largest"),
        (lambda: noise.output_moments(1e200, 8), "the mean is -inf, beyond the largest float64"),
        (lambda: noise.output_moments(np.float16([100.0]), 2), "the mean.* beyond .* float16"),
        (lambda: noise.output_moments(0.0, 8, 1e200), "kurtosis is 3 with skewness 1e.200"),
        (lambda: noise.mean_variance(2**53 + 1), "m is 9007199254740993, expected at most 2.53"),
        (lambda: GaussianOutput(1e7, 8), "z is 10000000.0, expected at most 1e.06 in size"),
        (lambda: GaussianOutput(0.5, 10**9).moments(), "the distribution cannot be integrated to"),
    ],
)
def test_what_leaves_the_floats_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
