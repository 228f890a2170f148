"""Growth rates against closed forms, adaptive integrals, spheres sampled, and networks."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad
from scipy.special import eval_gegenbauer
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from bncore.explanations import _activation
from bncore.explanations._activation import ACTIVATIONS, Function
from bncore.explanations.depth import (
    batch_variance,
    gradient_norms,
    growth_rate,
    propagate,
    relu_growth_rate,
    residual_growth,
    smallest_growth_rate,
    symmetry_multiplier,
)
from bncore.mechanics import transform

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
    assert growth_rate("relu") == pytest.approx(np.pi / (np.pi - 1), rel=1e-13)
    assert growth_rate("relu") == pytest.approx(1.4669, abs=5e-5)


def test_erf_in_closed_form():
    assert growth_rate("erf") == pytest.approx(2 / (np.sqrt(5) * np.arcsin(2 / 3)), rel=1e-11)


def test_the_identity_does_not_grow():
    assert growth_rate("identity") == pytest.approx(1, rel=1e-13)


@pytest.mark.parametrize("slope", np.linspace(-1.5, 1.5, 13))
def test_leaky_relu_in_closed_form(slope):
    square = (1 + slope**2) / 2
    expected = square / (square - (1 - slope) ** 2 / (2 * np.pi))
    assert growth_rate(leaky(slope)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_against_an_adaptive_integrator(name):
    function, kinks = Function(name), KINKS.get(name, [])
    at = lambda z: tuple(float(v[0]) for v in function(np.array([z])))  # noqa: E731
    mean = gaussian(lambda z: at(z)[0], kinks)
    variance = gaussian(lambda z: (at(z)[0] - mean) ** 2, kinks)
    slope = gaussian(lambda z: at(z)[1] ** 2, kinks)
    assert growth_rate(name) == pytest.approx(slope / variance, rel=1e-9)


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
    assert growth_rate(polynomial) == pytest.approx(expected, rel=1e-8)
    assert expected >= 1


def piecewise(kinks, slopes):
    def function(z):
        y = slopes[0] * z
        for kink, change in zip(kinks, np.diff(slopes), strict=True):
            y = y + change * torch.relu(z - kink)
        return y

    return function


@given(
    st.lists(st.integers(-20, 20), min_size=2, max_size=2, unique=True).map(sorted),
    st.lists(st.integers(-4, 4), min_size=3, max_size=3).filter(any),
    st.sampled_from([5, 12, 100]),
)
@settings(max_examples=8)
def test_no_function_is_below_the_bound(kinks, slopes, size):
    function = piecewise([k / 10 + 0.03 for k in kinks], [float(s) for s in slopes])
    rate, finite = growth_rate(function), growth_rate(function, size)
    bent = len(set(slopes)) > 1
    assert rate > 1 + 1e-6 if bent else rate == pytest.approx(1, rel=1e-12)
    assert finite >= smallest_growth_rate(size) * (1 - 1e-12)


@pytest.mark.parametrize("size", [4, 5, 6, 7, 9, 12, 30, 200, 3000])
def test_relu_of_a_finite_batch_in_closed_form(size):
    assert growth_rate("relu", size) == pytest.approx(relu_growth_rate(size), rel=1e-10)
    assert growth_rate("identity", size) == pytest.approx((size - 2) / (size - 3), rel=1e-11)


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
    assert growth_rate(polynomial, size) == pytest.approx(expected, rel=1e-8)


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
    for name in ("relu", "tanh", "gelu", "abs"):
        assert growth_rate(name, 10**6) == pytest.approx(growth_rate(name), rel=1e-5)
        assert batch_variance(name, 10**6) == pytest.approx(batch_variance(name), rel=1e-5)


@given(st.integers(-900, 1000), st.sampled_from(["relu", "tanh", "gelu"]), st.sampled_from([None, 8]))  # fmt: skip
@settings(max_examples=20)
def test_rates_do_not_depend_on_the_size_of_the_activation(exponent, name, size):
    def scaled(z):
        return 2.0**exponent * ACTIVATIONS[name](z)

    assert growth_rate(scaled, size) == pytest.approx(growth_rate(name, size), rel=1e-11)
    if abs(exponent) < 500:
        expected = 2.0 ** (2 * exponent) * batch_variance(name, size)
        assert batch_variance(scaled, size) == pytest.approx(expected, rel=1e-11)
    if abs(exponent) > 512:
        with pytest.raises(ValueError, match="the variance of activation is of the order of 2"):
            batch_variance(scaled, size)


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), torch.relu_])
def test_an_activation_may_work_in_place(activation):
    assert growth_rate(activation, 8) == growth_rate("relu", 8)


def test_batch_variance_of_relu():
    assert batch_variance("relu") == pytest.approx((np.pi - 1) / (2 * np.pi), rel=1e-12)
    assert batch_variance("identity", 8) == pytest.approx(8 / 7, rel=1e-12)


@given(st.floats(1, 4), st.integers(1, 50), st.floats(0.05, 9))
def test_residual_growth_is_a_product(rate, blocks, offset):
    factors = 1 + rate / (np.arange(blocks) + offset)
    expected = np.append(np.cumprod(factors[::-1])[::-1], 1.0)
    np.testing.assert_allclose(residual_growth(rate, blocks, offset), expected, rtol=1e-10)


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
    np.testing.assert_allclose(residual_growth(rate, blocks, offset), expected, rtol=1e-13)


def test_residual_growth_is_a_power_of_depth():
    growth = residual_growth(1.5, 4000, 3.0)
    slope = np.log(growth[1000] / growth[2000]) / np.log(2)
    assert slope == pytest.approx(1.5, abs=5e-3)


@pytest.mark.parametrize("power", [-40, -12, 3, 40])
def test_propagation_of_an_activation_of_any_size(power):
    """With a kink where no panel ends."""
    size = 10.0**power
    (growth,) = propagate(lambda z: size * torch.relu(z - 0.3), 1.0, 1).growth
    assert growth == pytest.approx(size**2 * stats.norm.sf(0.3), rel=1e-11)


@pytest.mark.parametrize("weight", [0.5, 1.0, 2.0, 3.0])
def test_relu_without_normalisation(weight):
    found = propagate("relu", weight, 10, variance=0.7)
    np.testing.assert_allclose(found.growth, weight / 2, rtol=1e-11)
    np.testing.assert_allclose(found.variance, 0.7 * (weight / 2) ** np.arange(10), rtol=1e-10)


def test_tanh_without_normalisation_against_an_adaptive_integrator():
    found = propagate("tanh", 1.7, 4, variance=0.9, bias_variance=0.2)
    q = 0.9
    for variance, growth in zip(found.variance, found.growth, strict=True):
        assert variance == pytest.approx(q, rel=1e-9)
        slope = gaussian(lambda z, q=q: (1 - np.tanh(np.sqrt(q) * z) ** 2) ** 2)
        assert growth == pytest.approx(1.7 * slope, rel=1e-9)
        q = 1.7 * gaussian(lambda z, q=q: np.tanh(np.sqrt(q) * z) ** 2) + 0.2


def small_network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)
    ).double()


def test_gradient_norms_against_finite_differences():
    model, x = small_network(), torch.randn(6, 3, dtype=torch.float64)
    norms = gradient_norms(model, x, seed=5)
    white = torch.randn(6, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def loss():
        with torch.no_grad():
            return (white * model(x)).sum().item()

    for layer, measured in zip((0, 3, 5), norms.weights, strict=True):
        weight, total = model[layer].weight.data, 0.0
        for i in range(weight.numel()):
            entry = weight.view(-1)
            kept = entry[i].item()
            entry[i] = kept + 1e-5
            up = loss()
            entry[i] = kept - 1e-5
            total += ((up - loss()) / 2e-5) ** 2
            entry[i] = kept
        assert measured == pytest.approx(total, rel=1e-6)
    for layer, measured in zip((0, 3, 5), norms.signals, strict=True):
        total = 0.0
        for i in range(6):
            for j in range(model[layer].out_features):
                values = []
                for step in (1e-5, -1e-5):
                    nudge = torch.zeros(6, model[layer].out_features, dtype=torch.float64)
                    nudge[i, j] = step
                    hook = model[layer].register_forward_hook(lambda m, a, y, n=nudge: y + n)
                    values.append(loss())
                    hook.remove()
                total += ((values[0] - values[1]) / 2e-5) ** 2
        assert measured == pytest.approx(total, rel=1e-6)


def test_gradient_norms_leave_the_model_as_it_was():
    model, x = small_network(), torch.randn(6, 3, dtype=torch.float64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradient_norms(model, x)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def in_place():
    torch.manual_seed(0)
    layers = nn.Linear(3, 4), nn.Linear(4, 2)
    return tuple(nn.Sequential(layers[0], nn.ReLU(change), layers[1]) for change in (True, False))


def test_what_works_in_place_gives_the_same_gradients():
    x = torch.randn(6, 3)
    changing, keeping = (gradient_norms(model, x) for model in in_place())
    np.testing.assert_array_equal(changing, keeping)
    before = x.clone()
    gradient_norms(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)), x)
    assert torch.equal(x, before)


def test_frozen_weights_are_measured_and_stay_frozen():
    model, x = small_network(), torch.randn(6, 3, dtype=torch.float64)
    expected = gradient_norms(model, x)
    for frozen in ([model[0].weight], model.parameters()):
        for parameter in frozen:
            parameter.requires_grad_(False)
        np.testing.assert_array_equal(gradient_norms(model, x), expected)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradient_norms_where_gradients_are_off(mode):
    model, x = small_network(), torch.randn(6, 3, dtype=torch.float64)
    expected = gradient_norms(model, x)
    with mode():
        np.testing.assert_array_equal(gradient_norms(model, x.clone()), expected)


def test_gradient_norms_leave_the_random_state():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2))
    state = torch.random.get_rng_state()
    gradient_norms(model, torch.zeros(6, 3))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_parametrised_weight_is_measured_like_another():
    torch.manual_seed(0)
    normed, plain = weight_norm(nn.Linear(3, 5)), nn.Linear(3, 5)
    plain.load_state_dict({"weight": normed.weight.detach(), "bias": normed.bias.detach()})
    x, last = torch.randn(6, 3), nn.Linear(5, 2)
    found, expected = (
        gradient_norms(nn.Sequential(layer, nn.Tanh(), last), x) for layer in (normed, plain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_zero_that_is_meant_stays():
    """Dead units, zero weights, and a batch of two behind a batch norm with hardly any eps."""
    torch.manual_seed(0)
    x = torch.randn(6, 3)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.constant_(model[0].bias, -100)
    norms = gradient_norms(model, x)
    assert norms.signals[0] == 0 < norms.signals[1]
    np.testing.assert_array_equal(norms.weights, 0)
    nn.init.constant_(model[0].bias, 1)
    nn.init.zeros_(model[2].weight)
    norms = gradient_norms(model, x)
    assert norms.signals[0] == norms.weights[0] == 0 < norms.weights[1]
    two = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5, eps=1e-12), nn.Linear(5, 2))
    norms = gradient_norms(two, x[:2])
    assert norms.signals[0] < 1e-9 * norms.signals[1]


def plain_network(layers, size=1.0):
    """Without normalisation, squared gradients fall by half a layer where size is 1."""
    torch.manual_seed(0)
    linear = [nn.Linear(32, 32, bias=False) for _ in range(layers)]
    for layer in linear:
        nn.init.normal_(layer.weight, std=size * 32**-0.5)
    return nn.Sequential(*[module for layer in linear for module in (layer, nn.ReLU())])


def test_underflow_is_refused(unchecked):
    x = torch.randn(16, 32)
    message = (
        "gradient at the (output|weights) of layer [0-9]+ leaves the range of torch.float32: .*"
        "expected fewer layers or weights of another size, or model and x in float64"
    )
    for layers in (250, 300):
        with pytest.raises(ValueError, match=message):
            gradient_norms(plain_network(layers), x)
    norms = gradient_norms(plain_network(300).double(), x.double())
    assert -400 < np.log2(norms.signals[0] / norms.signals[-1]) < -250
    with pytest.raises(ValueError, match=r"leaves the range of torch.float64: .* another size$"):
        gradient_norms(plain_network(60, 1e-6).double(), x.double())


def test_overflow_is_refused():
    x = torch.randn(16, 32)
    with pytest.raises(ValueError, match=r"layer [0-9]+ returns values that are not finite, exp"):
        gradient_norms(plain_network(50, 20), x)
    steep = Through(lambda m, x: 1e30 * (1e20 * ((y := m.a(x)) - y.detach())))
    with pytest.raises(ValueError, match=r"output of layer a leaves .* torch.float32: its largest"):
        gradient_norms(steep, X)


def test_weight_gradients_are_those_of_signals_times_the_variance():
    """On a symmetric batch: width times the variance over the batch."""
    torch.manual_seed(0)
    model = nn.Linear(400, 300, bias=False)
    nn.init.normal_(model.weight, std=400**-0.5)
    x = torch.randn(8, 400) + torch.randn(400)
    norm = nn.Sequential(model, nn.BatchNorm1d(300, eps=1e-12))
    norms = gradient_norms(norm, x)
    variance = float(x.double().var(dim=0).sum())
    assert norms.weights[0] == pytest.approx(variance * norms.signals[0], rel=0.1)


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


def test_arguments_of_propagate_are_refused(unchecked):
    with pytest.raises(ValueError, match="weight_variance is -1, expected"):
        propagate("relu", -1, 3)
    with pytest.raises(ValueError, match="bias_variance is -1, expected"):
        propagate("relu", 1, 3, bias_variance=-1)
    with pytest.raises(ValueError, match="variance is 0, expected"):
        propagate("relu", 1, 3, variance=0)
    with pytest.raises(TypeError, match="layers is a float, expected an integer"):
        propagate("relu", 1, 3.0)
    with pytest.raises(ValueError, match=r"the variance of layer 14 is 1.64e-13, expected between"):
        propagate("relu", 0.2, 20, variance=1.64)
    with pytest.raises(ValueError, match="grows so fast"):
        propagate(lambda z: torch.exp(z * z / 8), 1.0, 2, variance=2.5)
    with pytest.raises(ValueError, match="activation is constant"):
        propagate(lambda z: 2 + 0 * z, 1.0, 3)
    for size, factor in ((1e200, "inf"), (1e-200, "0")):
        with pytest.raises(ValueError, match=f"change by a factor of {factor} in layer 1, beyond"):
            propagate(lambda z, size=size: size * z, 1.0, 1)


class Through(nn.Module):
    """Two layers, and what a function makes of them and the input."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.function(self, x)


def normalised():
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))


X = torch.linspace(-1, 1, 18).reshape(6, 3)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (X.numpy(), TypeError, "x is a ndarray, expected a tensor"),
        (X.tolist(), TypeError, "x is a list, expected a tensor"),
        (X.long(), TypeError, "x has dtype torch.int64, expected a floating-point one"),
        (X > 0, TypeError, "x has dtype torch.bool, expected a floating-point one"),
        (X * 1j, TypeError, "x has dtype torch.complex64, expected a floating-point one"),
        (X.double(), ValueError, r"layer 0 receives \(6, 3\) of torch.float64, expected \(\*batch, 3\) of torch.float32"),
        (X[:, :2], ValueError, r"x of shape \(6, 2\) and torch.float32: layer 0 receives \(6, 2\) of torch.float32, expected \(\*batch, 3\)"),
        (X[0], ValueError, r"x has shape \(3,\), expected \(batch, \*features\)"),
        (X[:1], ValueError, r"model cannot be applied to x of shape \(1, 3\) .* more than 1 value"),
        (X[:0], ValueError, r"x has shape \(0, 3\), expected at least one example"),
        (X / 0, ValueError, r"x\[0, 0\] is -inf, expected finite values only"),
        (X * np.nan, ValueError, r"x\[0, 0\] is nan, expected finite values only"),
    ],
)  # fmt: skip
def test_a_batch_is_refused(x, error, message, unchecked):
    with pytest.raises(error, match=message):
        gradient_norms(normalised(), x)


def test_one_example_will_do_without_batch_norm():
    assert (gradient_norms(nn.Linear(3, 2), X[:1]).signals > 0).all()


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (None, TypeError, "model is a None, expected an nn.Module"),
        (torch.tanh, TypeError, "model is a builtin_function_or_method, expected an nn.Module"),
        (nn.Linear, TypeError, "model is the class Linear, expected an nn.Module"),
        (nn.Tanh(), ValueError, "model has no linear layer, expected at least one nn.Linear"),
        (Through(lambda m, x: x), ValueError, "model calls none of its linear layers"),
        (Through(lambda m, x: (m.a(x), x)), ValueError, "model returns a tuple, expected one tensor"),
        (Through(lambda m, x: m.a(x) > 0), ValueError, r"model returns \(6, 2\) of torch.bool, exp"),
        (Through(lambda m, x: m.a(x)[:0]), ValueError, r"model returns \(0, 2\) of torch.float32"),
        (Through(lambda m, x: m.b(x) * 0 + m.a(x).detach()), ValueError, "does not depend on layer a"),
        (Through(lambda m, x: m.a(x) + 0 * m.b(x)[0].detach()), ValueError, "does not depend on layer b, which"),
        (Through(lambda m, x: m.a(x).detach()), ValueError, "does not depend on layer a, which it calls"),
        (Through(lambda m, x: m.a(x) / 0), ValueError, "model returns values that are not finite"),
    ],
)  # fmt: skip
def test_a_model_is_refused(model, error, message, unchecked):
    with pytest.raises(error, match=message):
        gradient_norms(model, X)


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (1.5, TypeError, "seed is a float, expected an integer"),
        ("a", TypeError, "seed is a str, expected an integer"),
        (None, TypeError, "seed is a None, expected an integer"),
        (True, TypeError, "seed is a bool, expected an integer"),
        (-1, ValueError, "seed is -1, expected at least 0"),
        (2**70, ValueError, r"seed is 1180591620717411303424, expected less than 2\^63"),
    ],
)
def test_a_seed_is_refused(seed, error, message, unchecked):
    with pytest.raises(error, match=message):
        gradient_norms(normalised(), X, seed)


@pytest.mark.parametrize("size", [4, 60])
def test_finer_panels_change_nothing(size, monkeypatch):
    coarse = [growth_rate(name, size) for name in ACTIVATIONS]
    points, weights = np.polynomial.legendre.leggauss(20)
    monkeypatch.setattr(_activation, "POINTS", points)
    monkeypatch.setattr(_activation, "WEIGHTS", weights)
    fine = [growth_rate(name, size) for name in ACTIVATIONS]
    np.testing.assert_allclose(coarse, fine, rtol=1e-9)


@pytest.mark.parametrize("size", [4, 5, 8, 20, 64, 300])
def test_the_identity_keeps_examples_alike(size):
    assert symmetry_multiplier("identity", size) == pytest.approx((size - 1) / (size + 1))


@pytest.mark.parametrize("size", [5, 16])
@pytest.mark.parametrize("name", [*ACTIVATIONS, torch.sin])
def test_one_layer_multiplies_small_differences(name, size):
    """Sampled units of one layer, the deviation there and back so that second orders cancel."""
    function, rng = Function(name), np.random.default_rng(size)
    white, tilt = rng.normal(size=(80_000, size)), rng.normal(size=size)
    tilt -= tilt.mean()
    tilt /= 8 * np.abs(tilt).max()
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
    assert np.sum(out * into) / np.sum(into**2) == pytest.approx(predicted, abs=0.015)
    assert np.linalg.norm(out - predicted * into) < 0.15 * np.linalg.norm(into)


@pytest.mark.parametrize("size", [4, 5, 8, 64, 256])
def test_relu_against_the_eigenvalue_of_yang(size):
    r = -1 / (size - 1)
    slope = 1 - np.arccos(r) / np.pi
    kernel = np.sqrt(1 - r * r) / np.pi + r * slope
    eigenvalue = ((size - 2) * (1 - kernel) + size / (size - 1) * slope) / (
        (size + 1) * (1 - kernel)
    )
    assert symmetry_multiplier("relu", size) == pytest.approx(eigenvalue, rel=1e-9)


def test_the_multiplier_of_large_batches_is_the_limit():
    for name in ("relu", "silu", "abs", "tanh"):
        limit = symmetry_multiplier(name)
        apart = [abs(symmetry_multiplier(name, size) - limit) for size in (100, 1000, 10000)]
        assert apart[2] < apart[1] < apart[0]
        assert apart[2] < 2e-3
    assert symmetry_multiplier("identity") == pytest.approx(1, abs=1e-10)
    assert symmetry_multiplier("relu", 64) < 1 < symmetry_multiplier("silu", 64)
