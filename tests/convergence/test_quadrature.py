"""The Gaussian expectations against adaptive quadrature with its break points at the bend."""

import itertools

import numpy as np
import pytest
from scipy import integrate

from bncore.convergence import GaussianHalfspace, losses

NAMES = ["softplus", "sigmoid", "tanh", "squared"]
MEANS_AND_DEVIATIONS = [
    *((0.0, s) for s in (1e-6, 1e-3, 1.0, 10.0, 1e4, 1e6)),
    *((m, s) for m in (-2.0, 0.5) for s in (1e-5, 0.7, 5.0, 1e6)),
    *((m, s) for m in (-30.0, 30.0) for s in (0.01, 10.0)),
    *((m, s) for m in (-1e6, 1e6) for s in (1e2, 1e6)),
    *((m, s) for m in (-1e-6, 1e-6) for s in (1e-9, 1e-6)),
]


def adaptive(f, mean, deviation):
    """E f(mean + deviation x), x standard normal, integrated in whichever of the two is not rounded."""
    bends = np.array([-40.0, -10, -3, 0, 3, 10, 40])
    center, spread = (mean, deviation) if deviation > 1 else (0.0, 1.0)
    bends = bends if deviation > 1 else (bends - mean) / deviation
    low, high = center - 13 * spread, center + 13 * spread
    edges = np.unique(np.r_[np.clip(bends, low, high), center + spread * np.arange(-13, 14)])

    def integrand(v):
        x, a = ((v - mean) / deviation, v) if deviation > 1 else (v, mean + deviation * v)
        return f(np.array([a]))[0] * np.exp(-x * x / 2) / (spread * np.sqrt(2 * np.pi))

    return sum(
        integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-11, limit=200)[0]
        for a, b in itertools.pairwise(edges)
    )


def on_the_line(name, mean, deviation):
    """A problem in one dimension whose z is N(mean, deviation^2)."""
    u, S = np.array([mean]), np.array([[mean**2 + deviation**2]])
    return GaussianHalfspace(u, S, name), np.ones(1)


@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
@pytest.mark.parametrize(("mean", "deviation"), MEANS_AND_DEVIATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_those_of_adaptive_quadrature(name, mean, deviation):
    problem, w = on_the_line(name, mean, deviation)
    loss = losses.get(name)
    second = mean**2 + deviation**2
    value, first, curvature = (
        adaptive(f, mean, deviation) for f in (loss.phi, loss.dphi, loss.d2phi)
    )
    bend = adaptive(lambda a: np.abs(loss.d2phi(a)), mean, deviation)
    size = adaptive(lambda a: np.abs(loss.phi(a)), mean, deviation)
    slope = adaptive(lambda a: np.abs(loss.dphi(a)), mean, deviation)
    # S - uu' is known to one part in 2^52 of S: the deviation squared moves by that.
    lost = np.finfo(float).eps * second
    curved = lost / (2 * min(deviation, deviation**2))
    close = 1e-11
    np.testing.assert_allclose(problem.value(w), value, rtol=0, atol=close * size + lost * bend)
    c1, c2 = problem.coefficients(w)
    np.testing.assert_allclose(c2, curvature, rtol=0, atol=(close + curved) * bend)
    np.testing.assert_allclose(
        c1,
        first - curvature * mean,
        rtol=0,
        atol=close * slope + (close + curved) * bend * abs(mean),
    )
    # E[phi'(z) z] = c1 u + c2 S w: the two terms may cancel.
    gradient = adaptive(lambda a: loss.dphi(a) * a, mean, deviation)
    scale = slope * abs(mean) + bend * second
    moved = adaptive(lambda a: np.abs(loss.dphi(a) * a), mean, deviation)
    np.testing.assert_allclose(
        problem.gradient(w)[0], gradient, rtol=0, atol=(close + curved) * scale + 1e-14 * moved
    )
    # The slope of the line is that integral itself.
    np.testing.assert_allclose(
        problem.line(w).slope(1.0), gradient, rtol=0, atol=close * moved + curved * scale
    )


@pytest.mark.parametrize("name", NAMES)
def test_without_weights_the_value_is_that_of_the_loss_at_zero(name, moments):
    problem, loss = GaussianHalfspace(*moments(0), name), losses.get(name)
    np.testing.assert_allclose(problem.value(np.zeros(5)), loss.phi(np.zeros(1))[0], rtol=1e-14)
    expected = loss.dphi(np.zeros(1))[0] * problem.u
    np.testing.assert_allclose(problem.gradient(np.zeros(5)), expected, rtol=1e-13)


def test_a_steep_triple_is_integrated_as_well_as_the_named_losses():
    """tanh(k a) bends within 1/k: the rule has to see that."""
    k = 3.0
    triple = (
        lambda a: np.tanh(k * a),
        lambda a: k / np.cosh(np.clip(k * a, -300, 300)) ** 2,
        lambda a: -2 * k * k * np.tanh(k * a) / np.cosh(np.clip(k * a, -300, 300)) ** 2,
    )
    for mean, deviation in ((0.3, 1.0), (-1.0, 4.0), (0.2, 20.0)):
        problem, w = on_the_line(triple, mean, deviation)
        expected = adaptive(triple[0], mean, deviation)
        np.testing.assert_allclose(problem.value(w), expected, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_squared_loss_and_odd_losses_have_closed_forms(name, moments):
    u, S = moments(3, share=0.4)
    problem = GaussianHalfspace(u, S, name)
    for seed in range(20):
        w = np.random.default_rng(seed).normal(size=5) * 10 ** (seed / 5 - 2)
        if name == "squared":
            np.testing.assert_allclose(problem.value(w), 1 + 2 * u @ w + w @ S @ w, rtol=1e-11)
        else:  # phi(-a) is 1 - phi(a), -phi(a) or phi(a) - a
            reflected = {
                "sigmoid": 1 - problem.value(w),
                "tanh": -problem.value(w),
                "softplus": problem.value(w) - u @ w,
            }[name]
            scale = 1 + np.sqrt(w @ S @ w)
            np.testing.assert_allclose(problem.value(-w), reflected, atol=1e-12 * scale)
