"""Every bound over hundreds of random problems, and the printed forms that fail."""

import dataclasses

import numpy as np
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from bncore.convergence import (
    EmpiricalHalfspace,
    GaussianHalfspace,
    LeastSquares,
    bounds,
    gdnp,
    gradient_descent,
    losses,
)
from bncore.convergence.network import GaussianNetwork

BOUNDED = [name for name, loss in losses.LOSSES.items() if np.isfinite(loss.slope_bound)]
WELL = losses.Loss(
    lambda a: -np.exp(-((a + 1) ** 2) / 2),
    lambda a: (a + 1) * np.exp(-((a + 1) ** 2) / 2),
    lambda a: (1 - (a + 1) ** 2) * np.exp(-((a + 1) ** 2) / 2),
    np.exp(-0.5),
    1.0,
    "well",
)
ROOT = losses.Loss(
    lambda a: np.hypot(1, a + 1),
    lambda a: (a + 1) / np.hypot(1, a + 1),
    lambda a: np.hypot(1, a + 1) ** -3,
    1.0,
    1.0,
    "root",
)
# Losses with bounded slopes and, for Gaussian points, a best length.
FINITE = [losses.get("softplus"), WELL, ROOT]
SEEDS = st.integers(0, 10**6)
many = settings(max_examples=200)


def problem_of(draw, seed, loss):
    """Dimension up to 100, condition number up to 1e4, u'S^-1 u up to 0.9."""
    rng = np.random.default_rng(seed)
    d = int(np.exp(rng.uniform(0, np.log(100))))
    condition = np.exp(rng.uniform(0, np.log(1e4))) if d > 1 else 1.0
    share, size = rng.choice([0.01, 0.3, 0.8, 0.9]), 10 ** rng.uniform(-2, 2)
    u, S = draw(seed, d, condition, share, size)
    w0 = rng.normal(size=d) if rng.random() < 0.7 else u + 0.1 * rng.normal(size=d) * abs(u).max()
    return GaussianHalfspace(u, S, loss) if loss else LeastSquares(u, S), w0


def never_above(bound, floor=0.0):
    """No entry above its bound by more than one part in 1e9 and a rounding floor."""
    assert bound.measured.shape == bound.bound.shape
    assert np.isfinite(bound.measured).all()
    assert (bound.measured >= -floor).all()
    excess = bound.measured - bound.bound * (1 + 1e-9) - floor
    assert (excess <= 0).all(), (excess.max(), int(excess.argmax()))


def rounding(problem, trace):
    """What rounding adds to squared gradients in S^-1: (1e-14 condition number)^2 of their scale."""
    scale = problem.loss.slope_bound**2 + problem.loss.curvature_bound**2 * (1 + (trace.g**2).max())
    return (1e-14 * problem.condition_number) ** 2 * scale


@settings(max_examples=20)
@given(seed=SEEDS, condition=st.floats(1, 1e4), d=st.integers(2, 20))
def test_the_rate_is_that_of_the_condition_number(seed, condition, d, moments):
    problem = LeastSquares(*moments(seed, d, condition))
    assert bounds.rate(problem) == pytest.approx((1 - 1 / condition) ** 2, rel=1e-6, abs=1e-9)


@many
@given(seed=SEEDS)
def test_least_squares(seed, moments):
    problem, w0 = problem_of(moments, seed, None)
    trace = gdnp(problem, w0, steps=15)
    bound = bounds.least_squares(problem, trace)
    np.testing.assert_allclose(bound.measured, trace.rayleigh_gap, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(bound.bound, trace.bound, rtol=1e-9, atol=1e-300)
    never_above(bound, floor=1e-14 * abs(problem.rayleigh_optimum) * problem.condition_number)


@pytest.mark.parametrize("loss", FINITE, ids=lambda loss: loss.name)
@settings(max_examples=100)
@given(seed=SEEDS, bisection_steps=st.sampled_from([1, 5, 20]))
def test_length_direction_and_both(loss, seed, bisection_steps, moments):
    problem, w0 = problem_of(moments, seed, loss)
    trace = gdnp(problem, w0, steps=6, bisection_steps=bisection_steps)
    floor = rounding(problem, trace)
    never_above(bounds.direction(problem, trace), floor * (1 + trace.g.max() ** 2))
    never_above(bounds.length(problem, trace), floor)
    never_above(bounds.combined(problem, trace), floor)


@pytest.mark.parametrize("name", BOUNDED)
@settings(max_examples=60)
@given(seed=SEEDS, length=st.floats(-3, 3))
def test_the_direction_bound_holds_at_any_length(name, seed, length, moments):
    """Also for losses without a best length: here along the directions of least squares."""
    problem, w0 = problem_of(moments, seed, losses.get(name))
    trace = gdnp(LeastSquares(problem.u, problem.S), w0, steps=6)
    g = np.random.default_rng(seed).choice([-1, 1], size=len(trace.w)) * 10**length
    trace = dataclasses.replace(trace, g=g)
    never_above(bounds.direction(problem, trace), rounding(problem, trace) * (1 + g.max() ** 2))


@settings(max_examples=20)
@given(seed=SEEDS, bisection_steps=st.sampled_from([1, 5, 20]))
def test_a_unit_of_a_network(seed, bisection_steps, moments):
    """Up to three units, the others anywhere on the line."""
    rng = np.random.default_rng(seed)
    halfspace, w0 = problem_of(moments, seed, losses.get("softplus"))
    u, S = halfspace.u, halfspace.S
    units = rng.integers(1, 4)
    i, line = int(rng.integers(units)), np.linalg.solve(S, u)
    W = np.outer(2 * rng.normal(size=units), line / np.sqrt(line @ S @ line))
    unit = GaussianNetwork(u, S, 2 * rng.normal(size=units)).unit(i, W)
    try:
        trace = gdnp(unit, w0, steps=5, bisection_steps=bisection_steps)
    except ValueError as refusal:
        if "no optimal length" not in str(refusal):
            raise
        event("no optimal length")
        return
    scale = (1 + unit.curvature_bound) * (1 + np.abs(trace.g).max())
    floor = (1e-14 * unit.condition_number * scale) ** 2
    never_above(bounds.network(unit, trace), floor)


@pytest.mark.parametrize("loss", FINITE, ids=lambda loss: loss.name)
@settings(max_examples=12)
@given(seed=SEEDS)
def test_what_the_bounds_measure(loss, seed, moments):
    """The parts of the gradient in the metric of S^-1, written out."""
    u, S = moments(seed, 4, share=0.5)
    problem = GaussianHalfspace(u, S, loss)
    trace = gdnp(problem, np.random.default_rng(seed).normal(size=4), steps=5, bisection_steps=6)
    direction = bounds.direction(problem, trace).measured
    length = bounds.length(problem, trace).measured
    both = bounds.combined(problem, trace).measured
    for t, (w, g, weights) in enumerate(zip(trace.w, trace.g, trace.weights, strict=True)):
        gradient = problem.gradient(weights)
        norm = np.sqrt(w @ S @ w)
        slope = gradient @ w / norm
        across = g / norm * (gradient - slope * S @ w / norm)
        size = 1e-9 * gradient @ np.linalg.solve(S, gradient) + 1e-18
        close = {"rel": 1e-6, "abs": size}
        wide = {"rel": 1e-6, "abs": size * g**2}
        assert length[t] == pytest.approx(slope**2, **close)
        assert direction[t] == pytest.approx(norm**2 * across @ np.linalg.solve(S, across), **wide)
        assert both[t] == pytest.approx(gradient @ np.linalg.solve(S, gradient), **close)
        # exactly: ||grad f||^2 = c1^2 gap + (df/dg)^2
        c1, _ = problem.coefficients(weights)
        gap = trace.rayleigh_gap[t]
        assert both[t] == pytest.approx(c1**2 * gap + slope**2, **close)
        assert direction[t] == pytest.approx(g**2 * c1**2 * gap, **wide)


@pytest.mark.parametrize("name", BOUNDED)
@given(
    mean=st.floats(-20, 20),
    deviation=st.sampled_from([1e-3, 0.1, 1.0, 10.0]),
)
@example(mean=-1.3, deviation=1e-3)
def test_the_first_coefficient_is_within_its_bound_by_stein_and_cauchy(name, mean, deviation):
    """|c1| <= Phi / sqrt(1 - |rho|)."""
    second = mean**2 + deviation**2
    problem = GaussianHalfspace(np.array([mean]), np.array([[second]]), name)
    c1, _ = problem.coefficients(np.ones(1))
    share = deviation / np.sqrt(second)
    assert abs(c1) <= losses.get(name).slope_bound / share * (1 + 1e-9)


def test_the_first_coefficient_may_exceed_the_slope_bound():
    """Why the printed direction bound needs 1/(1 - |rho*|): the sigmoid at a mean of -1.3."""
    problem = GaussianHalfspace(np.array([-1.3]), np.array([[1.3**2 + 1e-4]]), "sigmoid")
    c1, _ = problem.coefficients(np.ones(1))
    assert abs(c1) > 1.05 * losses.get("sigmoid").slope_bound


def test_the_printed_length_bound_fails_for_a_small_loss(moments):
    """2^-Ts zeta |b - a| / mu^2 does not scale with S as the measured square does."""
    violated = 0
    for seed in range(20):
        u, S = moments(seed, 4, 10, 0.5, size=1e6)
        problem = GaussianHalfspace(u, S, "softplus")
        trace = gdnp(
            problem, np.random.default_rng(seed).normal(size=4), steps=3, bisection_steps=3
        )
        measured = bounds.length(problem, trace).measured[1:]
        width = np.abs(np.diff(trace.brackets[1:], axis=1)[:, 0])
        mu = problem.smallest_eigenvalue
        printed = 0.5 ** trace.halvings[1:] * problem.smoothness * width / mu**2
        violated += int((measured > printed).any())
    assert violated > 0


def test_the_rate_is_reached():
    """Where the last error lies along the smallest eigenvector, each step gains that rate only."""
    problem = LeastSquares(np.array([1e-6, 0.5]), np.diag([0.1, 1.0]))
    trace = gdnp(problem, np.array([1.0, -1.0]), steps=30)
    bound = bounds.least_squares(problem, trace)
    measured = (bound.measured[20] / bound.measured[10]) ** (1 / 10)
    assert measured == pytest.approx(bounds.rate(problem), rel=0.02)
    assert measured <= bounds.rate(problem) * (1 + 1e-9)


# ---- the right-hand sides, written out ----


def written_out(problem, trace):
    """mu, L, rho* and the Rayleigh gap of the start, from u and S alone."""
    u, S, w0 = problem.u, problem.S, trace.w[0]
    values = np.linalg.eigvalsh(S)
    best = -u @ np.linalg.solve(S, u)
    gap = -((u @ w0) ** 2) / (w0 @ S @ w0) - best
    return (1 - values[0] / values[-1]) ** (2 * np.arange(len(trace.g))), best, gap


def equal(found, expected, scale=None):
    """To 1e-10: a condition number of 10, times some hundred roundings, times the steps."""
    scale = np.abs(expected).max() if scale is None else scale
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * scale)


@pytest.mark.parametrize("loss", FINITE, ids=lambda loss: loss.name)
@settings(max_examples=12)
@given(seed=SEEDS, halvings=st.integers(1, 12), share=st.floats(0.05, 0.9))
def test_the_bounds_of_a_halfspace_are_the_formulas(loss, seed, halvings, share, moments):
    u, S = moments(seed, 4, condition=10, share=share)
    problem = GaussianHalfspace(u, S, loss)
    w0 = np.random.default_rng(seed).normal(size=4)
    trace = gdnp(problem, w0, steps=6, bisection_steps=halvings)
    decay, best, gap = written_out(problem, trace)
    equal(trace.bound, decay * gap)
    equal(bounds.least_squares(problem, trace).bound, decay * gap)
    slope, bend = loss.slope_bound, loss.curvature_bound
    across = decay * slope**2 * gap / (1 + best)
    equal(bounds.direction(problem, trace).bound, trace.g**2 * across)
    widths = trace.brackets[:, 1] - trace.brackets[:, 0]
    along = bend**2 * 4.0**-trace.halvings * widths**2
    equal(bounds.length(problem, trace).bound, along)
    equal(bounds.combined(problem, trace).bound, across + along)


@settings(max_examples=12)
@given(seed=SEEDS, units=st.integers(1, 3))
def test_the_bound_of_a_unit_is_the_formula(seed, units, moments):
    rng = np.random.default_rng(seed)
    u, S = moments(seed, 4, condition=10, share=0.5)
    lengths, theta, i = rng.normal(size=units), 2 * rng.normal(size=units), int(rng.integers(units))
    unit = GaussianNetwork(u, S, theta).unit(i, np.outer(lengths, np.linalg.solve(S, u)))
    trace = gdnp(LeastSquares(u, S), rng.normal(size=4), steps=5)
    decay, _, gap = written_out(unit, trace)
    softplus, tanh = losses.get("softplus"), losses.get("tanh")
    own = abs(theta[i])
    kappa = own * (own * softplus.curvature_bound + tanh.curvature_bound)
    others = sum(abs(theta[j] * lengths[j]) for j in range(units) if j != i)
    C = own * (1 + softplus.curvature_bound * others) + kappa * np.abs(trace.g)
    widths = trace.brackets[:, 1] - trace.brackets[:, 0]
    expected = C**2 * decay * gap + (kappa * 0.5**trace.halvings * widths) ** 2
    equal(bounds.network(unit, trace).bound, expected)
    assert unit.curvature_bound == pytest.approx(kappa, rel=1e-14)


@settings(max_examples=12)
@given(seed=SEEDS, share=st.floats(0.05, 5))
def test_the_bound_of_least_squares_is_the_formula(seed, share, moments):
    problem = LeastSquares(*moments(seed, 4, condition=10, share=share))
    trace = gdnp(problem, np.random.default_rng(seed).normal(size=4), steps=6)
    decay, _, gap = written_out(problem, trace)
    equal(trace.bound, decay * gap)
    equal(bounds.least_squares(problem, trace).bound, decay * gap)
    assert bounds.rate(problem) == pytest.approx(decay[1], rel=1e-12)


@settings(max_examples=20)
@given(seed=SEEDS, factor=st.sampled_from([1e-8, 1e8, 1e-100, 1e100]))
def test_no_factor_on_the_loss_changes_a_ratio_of_measured_to_bound(seed, factor, moments):
    u, S = moments(seed, 4, condition=5, share=0.5)
    w0 = np.random.default_rng(seed).normal(size=4)
    times = losses.Loss(
        lambda a: factor * losses.LOSSES["softplus"].phi(a),
        lambda a: factor * losses.LOSSES["softplus"].dphi(a),
        lambda a: factor * losses.LOSSES["softplus"].d2phi(a),
        factor,
        factor / 4,
    )
    found = []
    for loss in ("softplus", times):
        problem = GaussianHalfspace(u, S, loss)
        trace = gdnp(problem, w0, steps=4, bisection_steps=6)
        for judge in (bounds.direction, bounds.length, bounds.combined):
            measured, bound = judge(problem, trace)
            found.append(measured / bound)
    for plain, scaled in zip(found[:3], found[3:], strict=True):
        np.testing.assert_allclose(scaled, plain, rtol=1e-6, atol=1e-12)


# ---- what they take ----


def test_other_problems_and_runs_are_refused(refuses, moments):
    u, S = moments(0, 3)
    plain, halfspace = LeastSquares(u, S), GaussianHalfspace(u, S)
    network = GaussianNetwork(u, S, np.ones(1))
    unit = network.unit(0, np.zeros((1, 3)))
    trace = gdnp(plain, np.ones(3), steps=2)
    wrong = {"kind": TypeError}
    for judge in (bounds.direction, bounds.combined):
        for problem in (plain, unit, EmpiricalHalfspace(np.eye(3))):
            name = type(problem).__name__
            message = f"problem is a {name}, expected a GaussianHalfspace"
            refuses(message, judge, problem, trace, **wrong)
    refuses("problem is a LeastSquares, expected a Unit", bounds.network, plain, trace, **wrong)
    for judge in (bounds.length, bounds.least_squares):
        refuses(
            "problem is a GaussianNetwork, expected a problem: LeastSquares, .*, such as network.unit",
            judge, network, trace, **wrong,
        )  # fmt: skip
    refuses("problem is a GaussianNetwork, expected a problem", bounds.rate, network, **wrong)
    for judge, problem in (
        (bounds.direction, halfspace), (bounds.length, plain), (bounds.network, unit)
    ):  # fmt: skip
        refuses("trace is a list, expected a Trace", judge, problem, [1.0], **wrong)
        other = gdnp(LeastSquares(*moments(0, 2)), np.ones(2), steps=2)
        refuses("trace has weights of 2 dimensions, expected a run", judge, problem, other)
    bare = gradient_descent(halfspace, np.ones(3), steps=2)
    refuses("trace has no brackets", bounds.length, halfspace, bare)
    squared = GaussianHalfspace(u, S, "squared")
    refuses("the slope of the loss has no known bound", bounds.direction, squared, trace)
    unknown = GaussianHalfspace(u, S, (np.sin, np.cos, lambda a: -np.sin(a)))
    refuses("the curvature of the loss has no known bound", bounds.length, unknown, trace)
    loose = GaussianNetwork(u, S, np.ones(1), "squared").unit(0, np.zeros((1, 3)))
    refuses("the slope of the loss has no known bound", bounds.network, loose, trace)
