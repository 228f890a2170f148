"""The Gaussian expectations against adaptive quadrature with its break points at the bend."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy.stats import norm

from bncore.convergence import GaussianHalfspace, Unresolved, losses
from bncore.convergence.quadrature import ACCURACY, ACCURACY_2, REACH, nodes, standard

EPS = np.finfo(np.float64).eps
# The accuracy that is asked of SciPy's adaptive quadrature.
SCIPY = 1e-11
# What is left of E abs(f) by Gauss's rule of 60 nodes on panels as wide as a deviation or a bend: a
# product of some hundred panels' roundings.
GAUSS = 100 * 60 * EPS
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
        integrate.quad(integrand, a, b, epsabs=0, epsrel=SCIPY, limit=200)[0]
        for a, b in itertools.pairwise(edges)
    )


def on_the_line(name, mean, deviation):
    """A problem in one dimension whose z is N(mean, deviation^2)."""
    u, S = np.array([mean]), np.array([[mean**2 + deviation**2]])
    return GaussianHalfspace(u, S, name), np.ones(1)


@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
@pytest.mark.parametrize(("mean", "deviation"), MEANS_AND_DEVIATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_those_of_adaptive_quadrature(name, mean, deviation, near):
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
    lost = EPS * second
    curved = lost / (2 * min(deviation, deviation**2))
    close = SCIPY + ACCURACY
    near(problem.value(w), value, close * size + lost * bend)
    c1, c2 = problem.coefficients(w)
    near(c2, curvature, (close + curved) * bend)
    near(c1, first - curvature * mean, close * slope + (close + curved) * bend * abs(mean))
    # E[phi'(z) z] = c1 u + c2 S w: the two terms may cancel.
    gradient = adaptive(lambda a: loss.dphi(a) * a, mean, deviation)
    scale = slope * abs(mean) + bend * second
    moved = adaptive(lambda a: np.abs(loss.dphi(a) * a), mean, deviation)
    near(problem.gradient(w)[0], gradient, (close + curved) * scale + SCIPY * moved)
    # The slope of the line is that integral itself.
    near(problem.line(w).slope(1.0), gradient, close * moved + curved * scale)


@pytest.mark.parametrize("name", NAMES)
def test_without_weights_the_value_is_that_of_the_loss_at_zero(name, moments, near):
    problem, loss = GaussianHalfspace(*moments(0), name), losses.get(name)
    value, slope = (f(np.zeros(1))[0] for f in (loss.phi, loss.dphi))
    near(problem.value(np.zeros(5)), value, EPS * value)
    near(problem.gradient(np.zeros(5)), slope * problem.u, EPS * slope * np.abs(problem.u))


def test_a_steep_triple_is_integrated_as_well_as_the_named_losses(near):
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
        near(problem.value(w), expected, SCIPY + ACCURACY)  # of values of 1 at most


@pytest.mark.parametrize("name", NAMES)
def test_the_squared_loss_and_odd_losses_have_closed_forms(name, moments, near, error_of):
    u, S = moments(3, share=0.4)
    problem = GaussianHalfspace(u, S, name)
    for seed in range(20):
        w = np.random.default_rng(seed).normal(size=5) * 10 ** (seed / 5 - 2)
        if name == "squared":
            near(problem.value(w), 1 + 2 * u @ w + w @ S @ w, error_of(problem, w)[0])
        else:  # phi(-a) is 1 - phi(a), -phi(a) or phi(a) - a
            reflected = {
                "sigmoid": 1 - problem.value(w),
                "tanh": -problem.value(w),
                "softplus": problem.value(w) - u @ w,
            }[name]
            near(problem.value(-w), reflected, 2 * ACCURACY * (1 + np.sqrt(w @ S @ w)))


# ---- losses that are steep, kinked or bent far from 0 ----


def bent(k, center):
    """A softplus that bends at ``center`` within 1/k."""
    soft = losses.get("softplus")
    return (
        lambda a: soft.phi(k * (a - center)),
        lambda a: k * soft.dphi(k * (a - center)),
        lambda a: k * k * soft.d2phi(k * (a - center)),
    )


def pseudo_huber(k, center):
    def root(a):
        return np.sqrt(1 + (k * (a - center)) ** 2)

    return lambda a: root(a) / k, lambda a: k * (a - center) / root(a), lambda a: k / root(a) ** 3


def around(f, mean, std, center, width):
    """E f(a) by Gauss's rule of 60 nodes between break points around the bend and the mean."""
    points = [center + s * width * 2.0**j for s in (-1, 1) for j in range(-3, 32)]
    points = [p for p in (*points, center) if abs(p - mean) < 14 * std]
    edges = np.unique([*points, *(mean + std * np.arange(-14, 15))])
    x, weights = np.polynomial.legendre.leggauss(60)
    half = np.diff(edges)[:, None] / 2
    a = edges[:-1, None] + half * (1 + x)
    return float((f(a) * norm.pdf(a, mean, std) * half * weights).sum())


def test_a_bend_that_no_coarse_node_meets_is_found(near):
    """E phi'' of softplus(10 (a - 700)) for a of mean 100 and deviation 995; by mpmath, to 16 digits."""
    problem, std = GaussianHalfspace([100.0], [[1e6]], bent(10, 700.0)), np.sqrt(1e6 - 1e4)
    c1, c2 = problem.coefficients([1.0])
    near(c2, 0.003342949614304224, ACCURACY * c2)
    # a step of 10, and what smoothing by the variance pi^2 / 300 adds to it: half of the variance
    # times the slope of the density; the next term is smaller by (1/10 / std)^2
    added = np.pi**2 / 600 * 600 / std**2 * 10 * norm.pdf(700, 100, std)
    near(c1 + 100 * c2, 10 * norm.sf(700, 100, std) + added, 10 * ACCURACY)


@settings(max_examples=25)
@given(
    shape=st.sampled_from([bent, pseudo_huber]),
    k=st.sampled_from([0.5, 10.0, 1e3, 1e5]),
    away=st.floats(-6, 6),
    mean=st.floats(-100, 100),
    std=st.sampled_from([0.01, 1.0, 30.0, 1e3]),
)
def test_losses_that_bend_anywhere_are_integrated(shape, k, away, mean, std, near):
    center = mean + away * std
    phi, dphi, d2phi = triple = shape(k, center)
    problem, w = on_the_line(triple, mean, std)
    std = float(np.sqrt(problem.covariance[0, 0]))
    rounded = 4 * EPS * (k * abs(center) + 1)  # the score of the bend, and S - uu'
    exact = [around(f, mean, std, center, 1 / k) for f in (phi, dphi, d2phi)]
    sizes = [
        around(lambda a, f=f: np.abs(f(a)), mean, std, center, 1 / k) for f in (phi, dphi, d2phi)
    ]
    c1, c2 = problem.coefficients(w)
    close = ACCURACY + GAUSS + rounded
    near(problem.value(w), exact[0], close * sizes[0])
    near(c2, exact[2], close * sizes[2])
    near(c1 + c2 * problem.u[0], exact[1], close * sizes[1] + 4 * EPS * abs(c2 * mean))


@given(mean=st.floats(-3, 3), std=st.floats(0.01, 50), edge=st.floats(0.1, 5))
def test_a_loss_with_kinks_is_that_of_the_closed_form(mean, std, edge, near):
    """Huber's: E phi'' is the probability of the part that bends."""
    huber = (
        lambda a: np.where(np.abs(a) < edge, a * a / 2, edge * np.abs(a) - edge**2 / 2),
        lambda a: np.clip(a, -edge, edge),
        lambda a: (np.abs(a) < edge).astype(float),
    )
    problem, w = on_the_line(huber, mean, std)
    std = np.sqrt(problem.covariance[0, 0])
    inside = norm.cdf(edge, mean, std) - norm.cdf(-edge, mean, std)
    # beside the accuracy, what the ends are rounded by times the density there; and SciPy's tails
    ends = 8 * EPS * (edge + abs(mean)) / std + 8 * EPS
    near(problem.coefficients(w)[1], inside, ACCURACY * inside + ends)


@pytest.mark.parametrize("factor", [1e8, 1e-8])
def test_multiplying_a_loss_multiplies_the_answers(factor, near):
    one = pseudo_huber(100, 0.3)
    other = tuple(lambda a, f=f: factor * f(a) for f in one)
    w = np.ones(1)
    for mean, std in ((0.0, 1.0), (5.0, 0.1), (-40.0, 30.0)):
        a, b = on_the_line(one, mean, std)[0], on_the_line(other, mean, std)[0]
        value, bend = factor * a.value(w), factor * a.coefficients(w)[1]
        near(b.value(w), value, 2 * ACCURACY * value)
        near(b.coefficients(w)[1], bend, 2 * ACCURACY * bend)


def test_noise_of_a_careless_derivative_is_no_reason_to_refuse():
    """1 - tanh^2 is rounded to multiples of EPS / 2, where it is as small itself."""
    problem, w = on_the_line(
        (np.tanh, lambda a: 1 - np.tanh(a) ** 2, lambda a: -2 * np.tanh(a) * (1 - np.tanh(a) ** 2)),
        20.0,
        0.5,
    )
    assert abs(problem.coefficients(w)[1]) <= 4 * EPS


def test_what_is_not_resolved_is_refused_with_what_was_reached_and_where(near):
    wave = (np.sin, np.cos, lambda a: -np.sin(a))
    problem, w = on_the_line(wave, 0.0, 1e6)
    with pytest.raises(
        Unresolved,
        match=r"reaches .* expected 1e-12: its integrand needs more than 200000 points, .* the score",
    ):
        problem.value(w)
    problem, w = on_the_line(wave, 0.4, 20.0)
    near(problem.value(w), np.sin(0.4) * np.exp(-(20.0**2) / 2), ACCURACY)
    growing, w = on_the_line((np.exp, np.exp, np.exp), 0.0, 15.0)
    with pytest.raises(Unresolved, match=r"grows so fast .* within 20 deviations"):
        growing.value(w)
    growing, w = on_the_line((np.exp, np.exp, np.exp), 1.0, 8.0)
    exact = np.exp(growing.u[0] + growing.covariance[0, 0] / 2)
    # what lies beyond the reach is that of the density, moved by a deviation
    near(growing.value(w), exact, (ACCURACY + norm.sf(REACH - 8) + 8**2 * EPS) * exact)
    with pytest.raises(ValueError, match="leaves the range of float64"):
        on_the_line((np.exp, np.exp, np.exp), 0.0, 100.0)[0].value(np.ones(1))


@given(mean=st.floats(-5, 5), std=st.floats(1e-3, 1e3), jump=st.floats(-5, 5))
def test_nodes_follow_a_jump(mean, std, jump, near):
    found = nodes(lambda a, xi: (a > jump)[np.newaxis].astype(float), mean, std)
    total = found.weights @ (found.a > jump)
    # the place of the jump is rounded
    expected, rounded = norm.sf(jump, mean, std), 8 * EPS * (abs(jump) + abs(mean)) / std
    near(total, expected, ACCURACY * expected + rounded * norm.pdf((jump - mean) / std) + EPS)
    rounded = 4 * EPS * (abs(mean) + np.abs(found.a)) / std
    near(found.xi, (found.a - mean) / std, rounded)


def test_two_variables_by_either_rule_are_a_product_of_one(near):
    """By the trapezoidal rule where the functions are smooth, by boxes where they are steep."""
    sizes = []
    for k in (1.0, 60.0):

        def functions(xi, k=k):
            return np.array([np.tanh(k * (xi[0] - 0.3)) * np.exp(xi[1]), np.ones(xi.shape[1])])

        xi, weights = standard(functions, 2)
        first, one = functions(xi) @ weights
        exact = around(lambda a, k=k: np.tanh(k * (a - 0.3)), 0.0, 1.0, 0.3, 1 / k) * np.exp(0.5)
        near(first, exact, (ACCURACY_2 + GAUSS) * np.exp(0.5))  # of a size of abs(tanh) <= 1
        near(one, 1.0, ACCURACY_2)
        sizes.append(len(weights))
    assert sizes[0] < 50_000
    xi, weights = standard(lambda xi: np.tanh(60 * (xi - 0.3)), 1)
    near(np.tanh(60 * (xi[0] - 0.3)) @ weights, exact / np.exp(0.5), ACCURACY_2 + GAUSS)
    with pytest.raises(Unresolved, match=r"grows so fast .* within 10 deviations"):
        standard(lambda xi: np.exp(xi[:1] ** 2 / 2.1), 1)


def test_symmetric_steps_are_seen():
    """About 0 every symmetric grid gives 0 for the step, and one number for what lies beside it."""

    def functions(xi):
        return np.tanh(400 * xi[:1])

    xi, weights = standard(functions, 2)
    assert len(weights) > 10_000
    near = np.abs(xi[0]) < 2 / 400
    assert near.any()
