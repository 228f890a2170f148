"""The reference answers of the chapter on halfspaces, against other libraries and the package."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy.stats import norm

from bncore.chapters.convergence.halfspaces import exercises, experiments
from bncore.convergence import GaussianHalfspace, gdnp
from bncore.convergence.losses import LOSSES
from bncore.convergence.quadrature import ACCURACY

EPS = np.finfo(np.float64).eps
QUAD = 1.49e-8  # What scipy's quad asks of itself.
SMOOTH = [*LOSSES.values(), experiments.SINE, experiments.huber(), experiments.huber(5.0)]


@given(st.integers(0, 10**6), st.sampled_from(range(len(SMOOTH))), st.floats(0.3, 3))
@settings(max_examples=30, deadline=None)
def test_a_step_of_gdnp_is_the_exercise_whatever_the_loss(seed, index, factor):
    u, S = experiments.moments(4, seed)
    w0 = factor * experiments.start(u, S, seed)
    if SMOOTH[index].name in ("sigmoid", "tanh"):  # bounded and increasing
        with pytest.raises(ValueError, match="w0 has no optimal length"):
            gdnp(GaussianHalfspace(u, S, SMOOTH[index]), w0, steps=1)
        return
    trace = gdnp(GaussianHalfspace(u, S, SMOOTH[index]), w0, steps=3)
    # Three steps with sums of four terms, whose quotient by u'w multiplies rounding.
    rounding = 3 * 4 * 100 * EPS
    for before, after in zip(trace.w, trace.w[1:], strict=False):
        found = exercises.direction_step(before, u, S)
        np.testing.assert_allclose(found, after, rtol=0, atol=rounding * np.abs(after).max())
    found = experiments.least_squares_steps(u, S, w0, 3)
    np.testing.assert_allclose(found, trace.w, rtol=0, atol=rounding * np.abs(trace.w).max())


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_the_exponential_loss_is_least_at_the_answer(seed, dimension):
    rng = np.random.default_rng(seed)
    root, u = rng.normal(size=(dimension, dimension)), 0.5 * rng.normal(size=dimension)
    covariance = root @ root.T + np.eye(dimension)
    w = exercises.exponential(u, covariance)
    problem = GaussianHalfspace(u, covariance + np.outer(u, u), (np.exp, np.exp, np.exp))
    size = np.linalg.norm(u) + np.linalg.norm(problem.S @ w)
    assert np.linalg.norm(problem.gradient(w)) < 10 * ACCURACY * size
    best = problem.value(w)
    assert all(problem.value(w + 0.1 * step) > best for step in rng.normal(size=(5, dimension)))


@given(st.floats(-2, 2), st.floats(0.3, 3))
@settings(max_examples=30, deadline=None)
def test_the_hinge_coefficients_are_derivatives_by_mean_and_deviation(m, s):
    def value(m, s):  # E max(0, 1 + a) in closed form
        t = (1 + m) / s
        return (1 + m) * norm.cdf(t) + s * norm.pdf(t)

    numerical = integrate.quad(lambda a: (1 + a) * norm.pdf(a, m, s), -1, m + 12 * s)[0]
    np.testing.assert_allclose(value(m, s), numerical, rtol=QUAD, atol=QUAD)
    c1, c2 = exercises.hinge(m, s)
    # Differences of fourth order leave a fifth derivative; values of a few are rounded.
    step = 1e-4
    found = experiments.differences(lambda p: value(*p), np.array([m, s]), step)
    left = 10 * step**4 / s**4 + 10 * EPS / step
    np.testing.assert_allclose([c1 + m * c2, s * c2], found, rtol=0, atol=left)


@given(st.floats(0.1, 10), st.floats(0.1, 50), st.floats(1e-8, 1))
def test_the_halvings_are_enough_and_no_more(curvature, width, target):
    count = exercises.halvings(curvature, width, target)

    def bound(n):
        return (curvature * 2.0**-n * width) ** 2

    # The count is a logarithm of at most 2^6, rounded to an integer.
    rounding = 2**6 * EPS
    assert bound(count) <= target * (1 + rounding)
    assert count == 0 or bound(count - 1) > target * (1 - rounding)
