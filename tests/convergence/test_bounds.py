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
from bncore.convergence.quadrature import ACCURACY, ACCURACY_2

EPS = np.finfo(np.float64).eps
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


def rounding(problem, trace):
    """Of a vector in the norm of S^-1, relative to its length, after so many steps of d products each."""
    return len(trace.g) * problem.dimension * EPS * np.sqrt(problem.condition_number)


def error_of_gradients(problem, trace):
    """In the norm of S^-1: of c1 u + c2 S w, where abs(c1) is Phi and kappa g at most, c2 is kappa."""
    relative = ACCURACY + rounding(problem, trace)
    loss = problem.loss
    return relative * (loss.slope_bound + loss.curvature_bound * (1 + np.abs(trace.g)))


def never_above(problem, bound, error):
    """No root above that of its bound by more than its error and the rounding of the bound.

    What is measured is the square of a norm, which is off by an error of its own; u'S^-1 u, of which
    1 + rho* leaves a tenth at least, is off by the condition number.
    """
    assert bound.measured.shape == bound.bound.shape
    assert np.isfinite(bound.measured).all()
    assert (bound.measured >= 0).all()
    relative = 10 * len(bound.bound) * problem.dimension * EPS * problem.condition_number
    excess = np.sqrt(bound.measured) - np.sqrt(bound.bound) * (1 + relative) - error
    assert (excess <= 0).all(), (excess.max(), int(excess.argmax()))


@settings(max_examples=20)
@given(seed=SEEDS, condition=st.floats(1, 1e4), d=st.integers(2, 20))
def test_the_rate_is_that_of_the_condition_number(seed, condition, d, moments, near):
    """Eigenvalues are off by d^2 roundings of the largest."""
    problem = LeastSquares(*moments(seed, d, condition))
    near(bounds.rate(problem), (1 - 1 / condition) ** 2, 2 * d**2 * EPS)


@many
@given(seed=SEEDS)
def test_least_squares(seed, moments, near):
    problem, w0 = problem_of(moments, seed, None)
    trace = gdnp(problem, w0, steps=15)
    bound = bounds.least_squares(problem, trace)
    np.testing.assert_array_equal(bound.measured, trace.rayleigh_gap)  # handed on
    near(bound.bound, trace.bound, 4 * EPS * trace.bound)
    never_above(problem, bound, rounding(problem, trace) * np.sqrt(-problem.rayleigh_optimum))


@pytest.mark.parametrize("loss", FINITE, ids=lambda loss: loss.name)
@settings(max_examples=100)
@given(seed=SEEDS, bisection_steps=st.sampled_from([1, 5, 20]))
def test_length_direction_and_both(loss, seed, bisection_steps, moments):
    problem, w0 = problem_of(moments, seed, loss)
    trace = gdnp(problem, w0, steps=6, bisection_steps=bisection_steps)
    error = error_of_gradients(problem, trace)
    never_above(problem, bounds.direction(problem, trace), error * np.abs(trace.g))
    never_above(problem, bounds.length(problem, trace), error)
    never_above(problem, bounds.combined(problem, trace), error)


@pytest.mark.parametrize("name", BOUNDED)
@settings(max_examples=60)
@given(seed=SEEDS, length=st.floats(-3, 3))
def test_the_direction_bound_holds_at_any_length(name, seed, length, moments):
    """Also for losses without a best length: here along the directions of least squares."""
    problem, w0 = problem_of(moments, seed, losses.get(name))
    trace = gdnp(LeastSquares(problem.u, problem.S), w0, steps=6)
    g = np.random.default_rng(seed).choice([-1, 1], size=len(trace.w)) * 10**length
    trace = dataclasses.replace(trace, g=g)
    error = error_of_gradients(problem, trace) * np.abs(g)
    never_above(problem, bounds.direction(problem, trace), error)


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
    # slope and bend of the softplus and of tanh are 1 at most
    own = np.abs(unit.network.theta).sum()
    size = own + unit.curvature_bound * (1 + np.abs(trace.g))
    never_above(unit, bounds.network(unit, trace), (ACCURACY_2 + rounding(unit, trace)) * size)


@pytest.mark.parametrize("loss", FINITE, ids=lambda loss: loss.name)
@settings(max_examples=12)
@given(seed=SEEDS)
def test_what_the_bounds_measure(loss, seed, moments, near):
    """The parts of the gradient in the metric of S^-1, written out."""
    u, S = moments(seed, 4, share=0.5)
    problem = GaussianHalfspace(u, S, loss)
    trace = gdnp(problem, np.random.default_rng(seed).normal(size=4), steps=5, bisection_steps=6)
    direction, length, both = (
        np.sqrt(judge(problem, trace).measured)
        for judge in (bounds.direction, bounds.length, bounds.combined)
    )
    errors = error_of_gradients(problem, trace)
    for t, (w, g, weights) in enumerate(zip(trace.w, trace.g, trace.weights, strict=True)):
        gradient = problem.gradient(weights)
        norm = np.sqrt(w @ S @ w)
        slope = gradient @ w / norm
        across = g / norm * (gradient - slope * S @ w / norm)
        near(length[t], abs(slope), errors[t])
        wide = errors[t] * abs(g)
        near(direction[t], norm * np.sqrt(across @ np.linalg.solve(S, across)), wide)
        near(both[t], np.sqrt(gradient @ np.linalg.solve(S, gradient)), errors[t])
        # exactly: ||grad f||^2 = c1^2 gap + (df/dg)^2
        c1, _ = problem.coefficients(weights)
        gap = np.sqrt(trace.rayleigh_gap[t])
        near(both[t], np.hypot(c1 * gap, slope), errors[t])
        near(direction[t], abs(g * c1) * gap, wide)


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
    # S - uu' is off by roundings of S
    error = ACCURACY + 4 * EPS / share**2
    assert abs(c1) <= losses.get(name).slope_bound / share * (1 + error)


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
    # in the limit: a step's factor changes with the square of the sine of what is left
    left = bound.measured[10] / abs(problem.rayleigh_optimum)
    assert measured == pytest.approx(bounds.rate(problem), rel=left)
    error = 2 * EPS * abs(problem.rayleigh_optimum) * problem.condition_number / bound.measured[20]
    assert measured <= bounds.rate(problem) * (1 + error)


# ---- the right-hand sides, written out ----


def written_out(problem, trace):
    """The part of the gap that t steps leave, rho* and the gap of the start, from u and S alone.

    And what rounding does to them, relative to the gap: a difference of numbers of the size of rho*.
    """
    u, S, w0 = problem.u, problem.S, trace.w[0]
    values = np.linalg.eigvalsh(S)
    best = -u @ np.linalg.solve(S, u)
    gap = -((u @ w0) ** 2) / (w0 @ S @ w0) - best
    steps = np.arange(len(trace.g))
    error = len(u) ** 2 * EPS * values[-1] / values[0] * (steps + 1 + abs(best) / gap)
    return (1 - values[0] / values[-1]) ** (2 * steps), best, gap, error


@pytest.mark.parametrize("loss", FINITE, ids=lambda loss: loss.name)
@settings(max_examples=12)
@given(seed=SEEDS, halvings=st.integers(1, 12), share=st.floats(0.05, 0.9))
def test_the_bounds_of_a_halfspace_are_the_formulas(loss, seed, halvings, share, moments, near):
    u, S = moments(seed, 4, condition=10, share=share)
    problem = GaussianHalfspace(u, S, loss)
    w0 = np.random.default_rng(seed).normal(size=4)
    trace = gdnp(problem, w0, steps=6, bisection_steps=halvings)
    decay, best, gap, error = written_out(problem, trace)
    near(trace.bound, decay * gap, error * decay * gap)
    near(bounds.least_squares(problem, trace).bound, decay * gap, error * decay * gap)
    error = error / (1 + best)
    slope, bend = loss.slope_bound, loss.curvature_bound
    across = decay * slope**2 * gap / (1 + best)
    wide = trace.g**2 * across
    near(bounds.direction(problem, trace).bound, wide, error * wide)
    widths = trace.brackets[:, 1] - trace.brackets[:, 0]
    along = bend**2 * 4.0**-trace.halvings * widths**2
    near(bounds.length(problem, trace).bound, along, 8 * EPS * along)
    near(bounds.combined(problem, trace).bound, across + along, error * (across + along))


@settings(max_examples=12)
@given(seed=SEEDS, units=st.integers(1, 3))
def test_the_bound_of_a_unit_is_the_formula(seed, units, moments, near):
    rng = np.random.default_rng(seed)
    u, S = moments(seed, 4, condition=10, share=0.5)
    lengths, theta, i = rng.normal(size=units), 2 * rng.normal(size=units), int(rng.integers(units))
    unit = GaussianNetwork(u, S, theta).unit(i, np.outer(lengths, np.linalg.solve(S, u)))
    trace = gdnp(LeastSquares(u, S), rng.normal(size=4), steps=5)
    decay, _, gap, error = written_out(unit, trace)
    softplus, tanh = losses.get("softplus"), losses.get("tanh")
    own = abs(theta[i])
    kappa = own * (own * softplus.curvature_bound + tanh.curvature_bound)
    others = sum(abs(theta[j] * lengths[j]) for j in range(units) if j != i)
    C = own * (1 + softplus.curvature_bound * others) + kappa * np.abs(trace.g)
    widths = trace.brackets[:, 1] - trace.brackets[:, 0]
    expected = C**2 * decay * gap + (kappa * 0.5**trace.halvings * widths) ** 2
    near(bounds.network(unit, trace).bound, expected, error * expected)
    near(unit.curvature_bound, kappa, 8 * EPS * kappa)


@settings(max_examples=12)
@given(seed=SEEDS, share=st.floats(0.05, 5))
def test_the_bound_of_least_squares_is_the_formula(seed, share, moments, near):
    problem = LeastSquares(*moments(seed, 4, condition=10, share=share))
    trace = gdnp(problem, np.random.default_rng(seed).normal(size=4), steps=6)
    decay, _, gap, error = written_out(problem, trace)
    near(trace.bound, decay * gap, error * decay * gap)
    near(bounds.least_squares(problem, trace).bound, decay * gap, error * decay * gap)
    near(bounds.rate(problem), decay[1], error[1] * decay[1])


@settings(max_examples=20)
@given(seed=SEEDS, factor=st.sampled_from([1e-8, 1e8, 1e-100, 1e100]))
def test_no_factor_on_the_loss_changes_a_ratio_of_measured_to_bound(seed, factor, moments, near):
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
        error = error_of_gradients(problem, trace)
        for judge, size in (
            (bounds.direction, np.abs(trace.g)), (bounds.length, 1), (bounds.combined, 1)
        ):  # fmt: skip
            measured, bound = map(np.sqrt, judge(problem, trace))
            # A search that began where the slope is 0 has a bracket, and a bound, of 0.
            scale = np.where(bound > 0, bound, problem.curvature_bound)
            found.append((measured / scale, size * error / scale))
    for (plain, error), (scaled, _) in zip(found[:3], found[3:], strict=True):
        near(scaled, plain, error)


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


def test_a_linear_rate_decreases_evenly_and_a_sublinear_one_ever_less():
    t = np.arange(1.0, 302.0)
    assert bounds.late_decrease(0.9**t) == pytest.approx(1, rel=600 * EPS)
    expected = np.log(301 / 201) / np.log(201 / 101)
    assert bounds.late_decrease(1 / t) == pytest.approx(expected, rel=64 * EPS)
