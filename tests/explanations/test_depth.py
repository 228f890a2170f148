"""Growth rates against closed forms, adaptive integrals, and spheres sampled."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import eval_gegenbauer
from torch import nn

from bncore.explanations import panels
from bncore.explanations.activation import ACTIVATIONS, Function
from bncore.explanations.depth import (
    batch_variance,
    growth_rate,
    relu_growth_rate,
    residual_growth,
    smallest_growth_rate,
    symmetry_multiplier,
)
from bncore.explanations.sphere import ACCURACY
from bncore.mechanics import transform

EPS = np.finfo(np.float64).eps

KINKS = {"relu": [0], "leaky_relu": [0], "abs": [0], "elu": [0]}


def gaussian(f, kinks=()):
    """E f(z) by scipy's adaptive rule."""
    density = lambda z: f(z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)  # noqa: E731
    ends = [-12.0, *kinks, 12.0]
    return sum(
        quad(density, a, b, epsabs=1e-13, epsrel=1e-12, limit=400)[0] for a, b in pairwise(ends)
    )


def leaky(slope):
    return lambda z: nn.functional.leaky_relu(z, slope)


def test_relu_in_closed_form():
    assert growth_rate("relu") == pytest.approx(np.pi / (np.pi - 1), rel=panels.TOLERANCE, abs=0)
    assert f"{growth_rate('relu'):.4f}" == "1.4669"


def test_erf_in_closed_form():
    assert growth_rate("erf") == pytest.approx(
        2 / (np.sqrt(5) * np.arcsin(2 / 3)), rel=panels.TOLERANCE, abs=0
    )


def test_the_identity_does_not_grow():
    assert growth_rate("identity") == pytest.approx(1, rel=panels.TOLERANCE, abs=0)


@pytest.mark.parametrize("slope", np.linspace(-1.5, 1.5, 13))
def test_leaky_relu_in_closed_form(slope):
    square = (1 + slope**2) / 2
    expected = square / (square - (1 - slope) ** 2 / (2 * np.pi))
    assert growth_rate(leaky(slope)) == pytest.approx(expected, rel=panels.TOLERANCE, abs=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_against_an_adaptive_integrator(name):
    function, kinks = Function(name), KINKS.get(name, [])
    at = lambda z: tuple(float(v[0]) for v in function(np.array([z])))  # noqa: E731
    mean = gaussian(lambda z: at(z)[0], kinks)
    variance = gaussian(lambda z: (at(z)[0] - mean) ** 2, kinks)
    slope = gaussian(lambda z: at(z)[1] ** 2, kinks)
    assert growth_rate(name) == pytest.approx(slope / variance, rel=ACCURACY)


@given(
    st.lists(st.integers(-8, 8), min_size=3, max_size=7).filter(lambda c: any(c[1:])),
    st.integers(-20, 20).filter(bool),
    st.integers(-20, 20),
)
@settings(max_examples=60)
def test_polynomials_in_hermite_form(coefficients, scale, shift):
    """With He_k / sqrt(k!) as a basis, the rate is the mean degree; scale and shift do not count."""
    k = np.arange(len(coefficients))
    factorials = np.cumprod(np.maximum(k, 1))
    power = np.polynomial.hermite_e.herme2poly(np.array(coefficients) / np.sqrt(factorials))

    def polynomial(z):
        y = torch.zeros_like(z)
        for c in power[::-1]:
            y = y * z + c
        return scale * y + shift

    squares = np.array(coefficients, float)[1:] ** 2
    expected = (k[1:] * squares).sum() / squares.sum()
    assert growth_rate(polynomial) == pytest.approx(expected, rel=ACCURACY)
    assert expected >= 1


def piecewise(kinks, slopes):
    def function(z):
        y = slopes[0] * z
        for kink, change in zip(kinks, np.diff(slopes), strict=True):
            y = y + change * torch.relu(z - kink)
        return y

    return function


@given(
    # Kinks up to 1.93: a batch of five reaches 2.
    st.lists(st.integers(-20, 19), min_size=2, max_size=2, unique=True).map(sorted),
    st.lists(st.integers(-4, 4), min_size=3, max_size=3).filter(any),
    st.sampled_from([5, 12, 100]),
)
@settings(max_examples=8)
def test_no_function_is_below_the_bound(kinks, slopes, size):
    function = piecewise([k / 10 + 0.03 for k in kinks], [float(s) for s in slopes])
    rate, finite = growth_rate(function), growth_rate(function, size)
    bent = len(set(slopes)) > 1
    assert rate > 1 + 1e-6 if bent else rate == pytest.approx(1, rel=panels.TOLERANCE, abs=0)
    assert finite >= smallest_growth_rate(size) * (1 - panels.TOLERANCE)


@pytest.mark.parametrize("size", [4, 5, 6, 7, 9, 12, 30, 200, 3000])
def test_relu_of_a_finite_batch_in_closed_form(size):
    assert growth_rate("relu", size) == pytest.approx(relu_growth_rate(size), rel=ACCURACY)
    expected = (size - 2) / (size - 3)
    assert growth_rate("identity", size) == pytest.approx(expected, rel=panels.TOLERANCE, abs=0)


@pytest.mark.parametrize("size", [4, 5, 8, 21])
@pytest.mark.parametrize("degree", [1, 2, 3, 4, 6])
def test_one_degree_of_spherical_harmonics(size, degree):
    """phi(h_i) is a harmonic of that degree, whose energy over variance is k (k + B - 3)."""
    order, radius = (size - 3) / 2, np.sqrt(size - 1)
    k = np.arange(degree + 1)
    nodes = np.cos(np.pi * (k + 0.5) / (degree + 1))
    power = np.polynomial.polynomial.polyfit(nodes, eval_gegenbauer(degree, order, nodes), degree)

    def polynomial(z):
        y = torch.zeros_like(z)
        for c in power[::-1]:
            y = y * (z / radius) + c
        return y

    expected = degree * (degree + size - 3) / (size - 3)
    assert growth_rate(polynomial, size) == pytest.approx(expected, rel=ACCURACY)


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "abs"])
@pytest.mark.parametrize("size", [8, 24])
def test_one_layer_sampled(name, size):
    """Send white gradients back through phi and the batch norm of many units of a symmetric batch."""
    rng, units = np.random.default_rng(0), 60_000
    variance = batch_variance(name, size)
    h = np.sqrt(variance) * rng.normal(size=(size, units)) + rng.normal(size=units)
    ones = np.ones(units)
    y, cache = transform.forward(h, ones, 0 * ones, eps=1e-14)
    phi, dphi = Function(name)(y)
    g = rng.normal(size=(size, units))
    g -= g.mean(axis=0)
    dh = transform.backward(dphi * g, cache).dx
    squares = (dh**2).sum(axis=0) / (size - 1)
    error = squares.std() / np.sqrt(units)
    assert squares.mean() == pytest.approx(growth_rate(name, size), abs=5 * error)
    assert 5 * error < 0.05 * squares.mean()
    spread = phi.var(axis=0, ddof=1)
    assert spread.mean() == pytest.approx(variance, abs=5 * spread.std() / np.sqrt(units))


def test_a_large_batch_is_the_limit():
    order = 3 / 10**6
    for name in ("relu", "tanh", "gelu", "abs"):
        assert growth_rate(name, 10**6) == pytest.approx(growth_rate(name), rel=order)
        assert batch_variance(name, 10**6) == pytest.approx(batch_variance(name), rel=order)


@given(st.integers(-900, 1000), st.sampled_from(["relu", "tanh", "gelu"]), st.sampled_from([None, 8]))  # fmt: skip
@settings(max_examples=20)
def test_rates_do_not_depend_on_the_size_of_the_activation(exponent, name, size):
    def scaled(z):
        return 2.0**exponent * ACTIVATIONS[name](z)

    assert growth_rate(scaled, size) == pytest.approx(growth_rate(name, size), rel=8 * EPS, abs=0)
    if abs(exponent) < 500:
        expected = 2.0 ** (2 * exponent) * batch_variance(name, size)
        assert batch_variance(scaled, size) == pytest.approx(expected, rel=8 * EPS, abs=0)
    if abs(exponent) > 512:
        with pytest.raises(ValueError, match="the variance of activation is of the order of 2"):
            batch_variance(scaled, size)


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), torch.relu_])
def test_an_activation_may_work_in_place(activation):
    expected = growth_rate("relu", 8)
    assert growth_rate(activation, 8) == pytest.approx(expected, rel=64 * EPS, abs=0)


def test_batch_variance_of_relu():
    assert batch_variance("relu") == pytest.approx(
        (np.pi - 1) / (2 * np.pi), rel=panels.TOLERANCE, abs=0
    )
    assert batch_variance("identity", 8) == pytest.approx(8 / 7, rel=panels.TOLERANCE, abs=0)


def assert_grown(found, expected):
    """Exponentials of sums of as many logarithms."""
    rtol = (len(found) + 4) * EPS * (1 + np.log(found[0]))
    np.testing.assert_allclose(found, expected, rtol=rtol)


@given(st.floats(1, 4), st.integers(1, 50), st.floats(0.05, 9))
def test_residual_growth_is_a_product(rate, blocks, offset):
    factors = 1 + rate / (np.arange(blocks) + offset)
    expected = np.append(np.cumprod(factors[::-1])[::-1], 1.0)
    assert_grown(residual_growth(rate, blocks, offset), expected)


@given(
    st.floats(1e-12, 1e6),
    st.integers(1, 20),
    st.integers(-20, 20).map(lambda k: 10.0**k),
)
@settings(max_examples=200)
def test_residual_growth_in_rational_arithmetic(rate, blocks, offset):
    """What it adds to 1 is right too, where it is small against the offset."""
    product, exact = Fraction(1), [Fraction(1)]
    for block in range(blocks, 0, -1):
        product *= 1 + Fraction(rate) / (block - 1 + Fraction(offset))
        exact.append(product)
    assume(product < Fraction(10) ** 300)
    expected = [float(value) for value in reversed(exact)]
    assert_grown(residual_growth(rate, blocks, offset), expected)


def test_residual_growth_is_a_power_of_depth():
    growth = residual_growth(1.5, 4000, 3.0)
    slope = np.log(growth[1000] / growth[2000]) / np.log(2)
    assert slope == pytest.approx(1.5, abs=5 / 1000)  # the next order, 1 / block


@pytest.mark.parametrize(
    ("activation", "error", "message"),
    [
        ("swish", ValueError, "activation is 'swish', expected one of 'identity'"),
        (3, TypeError, "activation is a int, expected a name or a function of a tensor"),
        (nn.ReLU, TypeError, r"activation is a ReLU \(a class\), expected a name"),
        (np.tanh, TypeError, "cannot be applied to a torch tensor"),
        (lambda z: z.sum(), ValueError, r"returns \(\) of torch.float64 for a tensor"),
        (lambda z: z.float(), ValueError, "of torch.float32 for a tensor of shape"),
        (lambda z: 1.0, ValueError, "returns a float for a tensor"),
        (torch.sign, ValueError, "jumps, or is too steep, at z = 0"),
        (lambda z: (z > 0.3).double(), TypeError, "cut off from its argument and has no derivative"),
        (lambda z: (z > 0.3).double() + 0 * z, ValueError, "jumps, or is too steep, at z = 0.3"),
        (lambda z: z + (z > 1.234), ValueError, r"at z = 1\.234"),
        (torch.round, ValueError, "jumps, or is too steep"),
        (lambda z: z.abs().sqrt(), ValueError, "expected finite values|jumps, or is too steep"),
        (lambda z: torch.zeros_like(z) + 2, ValueError, "activation is constant"),
        (lambda z: 1e9 + z, ValueError, "varies by less than a millionth"),
        (torch.log, ValueError, "activation is nan at z = -12"),
        (lambda z: torch.exp(z * z / 4), ValueError, "grows so fast that its expectation"),
        (lambda z: torch.softmax(z, 0), ValueError, "among others or in another order"),
        (lambda z: torch.heaviside(z, z), TypeError, "derivative for aten::heaviside is not"),
        (lambda z: z.cumsum(0), ValueError, "other values for the same inputs among others"),
        (lambda z: torch.rand_like(z), TypeError, "cut off from its argument"),
        (lambda z: torch.rand_like(z) * z, ValueError, "other values for the same inputs"),
        (lambda z: torch.sin(3000 * z), ValueError, "panels do not resolve"),
        (nn.BatchNorm1d(3), TypeError, r"cannot be applied to a torch tensor, .* \(expected 2D or 3D"),
        (lambda z: 1e-320 * z, ValueError, "activation is at most 5.99e-320 .* expected 1e-290 or"),
        (lambda z: torch.exp(4 * z * z), ValueError, "grows so fast that its expectation"),
        (lambda z: torch.sin(1e200 * z), ValueError, "too large or too steep to be squared"),
    ],
)  # fmt: skip
def test_an_activation_is_refused(activation, error, message, unchecked):
    with pytest.raises(error, match=message):
        growth_rate(activation)


def test_fast_growth_is_refused_where_a_batch_reaches_far():
    def square(z):
        return torch.exp(z * z / 4)

    with pytest.raises(ValueError, match="grows so fast"):
        growth_rate(square, 1000)
    with pytest.raises(ValueError, match="grows so fast"):
        batch_variance(square)
    assert growth_rate(square, 20) > smallest_growth_rate(20)


def test_a_batch_beyond_the_bend_is_refused():
    with pytest.raises(
        ValueError, match=r"constant for abs\(z\) up to 1.73, all that a batch of 4"
    ):
        growth_rate(lambda z: torch.relu(z - 2), 4)


@pytest.mark.parametrize("function", [lambda b: growth_rate("relu", b), relu_growth_rate, smallest_growth_rate, lambda b: batch_variance("relu", b)])  # fmt: skip
def test_a_batch_size_is_refused(function, unchecked):
    for size in (3, 1, 0, -4):
        message = f"batch_size is {size}, expected at least 4: a batch of two"
        with pytest.raises(ValueError, match=message):
            function(size)
    for size in (10**7 + 1, 10**400):
        with pytest.raises(
            ValueError, match=r"batch_size is 10+1?, expected at most 10000000: lar"
        ):
            function(size)
    with pytest.raises(TypeError, match="batch_size is a float, expected an integer"):
        function(8.0)


def test_arguments_of_residual_growth_are_refused(unchecked):
    with pytest.raises(ValueError, match="rate is 0, expected a finite number above 0"):
        residual_growth(0, 3, 1.0)
    with pytest.raises(ValueError, match="offset is 0, expected a finite number above 0"):
        residual_growth(1.5, 3, 0)
    with pytest.raises(ValueError, match="blocks is 0, expected at least 1"):
        residual_growth(1.5, 0, 1.0)
    with pytest.raises(
        ValueError, match=r"by a factor of 10\^899 for rate 1e\+300, blocks 3 and off"
    ):
        residual_growth(1e300, 3, 1.0)
    with pytest.raises(
        ValueError, match=r"10\^365 for rate 1000, blocks 400 and offset 0.1, beyond"
    ):
        residual_growth(1000.0, 400, 0.1)
    with pytest.raises(
        ValueError, match="beyond float64: expected a smaller rate, fewer blocks or"
    ):
        residual_growth(1e300, 1, 1e-300)


@pytest.mark.parametrize("size", [4, 5, 8, 20, 64, 300])
def test_the_identity_keeps_examples_alike(size):
    assert symmetry_multiplier("identity", size) == pytest.approx(
        (size - 1) / (size + 1), abs=ACCURACY
    )


@pytest.mark.parametrize("size", [5, 16])
@pytest.mark.parametrize("name", [*ACTIVATIONS, torch.sin])
def test_one_layer_multiplies_small_differences(name, size):
    """Sampled units of one layer, the deviation there and back so that second orders cancel."""
    function, rng = Function(name), np.random.default_rng(size)
    white, tilt = rng.normal(size=(80_000, size)), rng.normal(size=size)
    tilt -= tilt.mean()
    largest = 1 / 8
    tilt *= largest / np.abs(tilt).max()
    G = np.eye(size) - 1 / size
    shapes = []
    for sign in (1, -1):
        covariance = G + sign * G @ np.diag(tilt) @ G
        h = white @ np.linalg.cholesky(covariance + np.ones((size, size))).T
        h = h - h.mean(axis=1, keepdims=True)
        values = function(h / h.std(axis=1, keepdims=True))[0]
        values = values - values.mean(axis=1, keepdims=True)
        shape = values.T @ values / len(values)
        shapes.append(shape * (size - 1) / np.trace(shape))
    into, out = G @ np.diag(tilt) @ G, (shapes[0] - shapes[1]) / 2
    predicted = symmetry_multiplier(name, size)
    # The next order is the square of the tilt.
    assert np.sum(out * into) / np.sum(into**2) == pytest.approx(predicted, abs=largest**2)
    # Each row scatters by a few times the tilt over the root of the sample.
    scatter = 4 * largest * size / len(white) ** 0.5
    assert np.linalg.norm(out - predicted * into) < scatter


@pytest.mark.parametrize("size", [4, 5, 8, 64, 256])
def test_relu_against_the_eigenvalue_of_yang(size):
    r = -1 / (size - 1)
    slope = 1 - np.arccos(r) / np.pi
    kernel = np.sqrt(1 - r * r) / np.pi + r * slope
    eigenvalue = ((size - 2) * (1 - kernel) + size / (size - 1) * slope) / (
        (size + 1) * (1 - kernel)
    )
    assert symmetry_multiplier("relu", size) == pytest.approx(eigenvalue, abs=ACCURACY)


def test_the_multiplier_of_large_batches_is_the_limit():
    for name in ("relu", "silu", "abs", "tanh"):
        limit = symmetry_multiplier(name)
        apart = [abs(symmetry_multiplier(name, size) - limit) for size in (100, 1000, 10000)]
        assert apart[2] < apart[1] < apart[0]
        assert apart[2] < 20 / 10000
    assert symmetry_multiplier("identity") == pytest.approx(1, abs=panels.TOLERANCE)
    assert symmetry_multiplier("relu", 64) < 1 < symmetry_multiplier("silu", 64)
