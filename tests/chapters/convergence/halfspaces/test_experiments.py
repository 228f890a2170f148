"""The experiments of the chapter on halfspaces, against formulas, other libraries and the record."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy.stats import norm

from bncore.chapters.convergence.halfspaces import experiments
from bncore.convergence import GaussianHalfspace
from bncore.convergence.losses import LOSSES, check_derivatives
from bncore.convergence.quadrature import ACCURACY

EPS = np.finfo(np.float64).eps
SMOOTH = [*LOSSES.values(), experiments.SINE, experiments.huber(), experiments.huber(5.0)]


@pytest.mark.parametrize(
    "loss", [*SMOOTH[4:], experiments.two_waves(0.5), experiments.scaled(SMOOTH[0], 7.0)]
)
def test_the_losses_have_their_derivatives_and_bounds(loss):
    check_derivatives(loss)
    a = np.linspace(-8, 8, 4001)
    for derivative, bound in ((loss.dphi, loss.slope_bound), (loss.d2phi, loss.curvature_bound)):
        assert np.abs(derivative(a)).max() <= bound * (1 + 8 * EPS)


@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_the_mean_hinge_loss_is_that_of_quadrature(seed):
    u, S = experiments.moments(3, seed)
    w = 2 * experiments.start(u, S, seed)
    m, s = u @ w, np.sqrt(w @ S @ w - (u @ w) ** 2)
    value, slope = experiments.hinge(u, S, w)
    top = max(-1.0, m) + 12 * s
    exact, missed = integrate.quad(
        lambda a: (1 + a) * norm.pdf(a, m, s), -1, top, points=[max(-1.0, m)]
    )
    rounding = 16 * EPS * (1 + abs(m) + s)
    np.testing.assert_allclose(value, exact, rtol=0, atol=missed + rounding)
    # In the tail a relative change of t counts t squared times.
    rounding = 16 * EPS * (1 + ((1 + m) / s) ** 2)
    np.testing.assert_allclose(slope, norm.sf(-1, m, s), rtol=rounding)


@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(1.5, 100), st.floats(0.05, 0.95))
@settings(max_examples=30)
def test_moments_are_as_asked(seed, dimension, condition, strength):
    u, S = experiments.moments(dimension, seed, condition, strength)
    eigenvalues = np.linalg.eigvalsh(S)
    rounding = 16 * dimension * EPS
    np.testing.assert_allclose(eigenvalues[[0, -1]], [1 / condition, 1], rtol=0, atol=rounding)
    found = u @ np.linalg.solve(S, u)
    np.testing.assert_allclose(found, strength, rtol=rounding * condition)
    w = experiments.start(u, S, seed)
    assert -(u @ w) / np.sqrt(w @ S @ w) > 0.05 * np.sqrt(strength)


@given(st.integers(0, 10**6), st.floats(0.3, 2))
@settings(max_examples=20, deadline=None)
def test_two_waves_are_level_off_the_line(seed, apart):
    u, S = experiments.moments(3, seed, strength=0.9)
    w, variance = experiments.off_the_line(u, S, seed, apart)
    rounding = 16 * EPS
    np.testing.assert_allclose(u @ w, -np.pi, rtol=0, atol=rounding * np.abs(u) @ np.abs(w))
    size = np.abs(w) @ np.abs(S) @ np.abs(w)
    np.testing.assert_allclose(w @ S @ w - np.pi**2, variance, rtol=0, atol=rounding * size)
    problem = GaussianHalfspace(u, S, experiments.two_waves(variance))
    # Differences leave a fifth derivative, of at most 32 waves, and what quadrature misses.
    step = 1e-3
    gradient = experiments.differences(problem.value, w, step)
    left = problem.loss.slope_bound * (10 * ACCURACY / step + 32 * step**4)
    assert np.linalg.norm(gradient) < left < 1e-4 * np.linalg.norm(problem.gradient(0.9 * w))
    assert experiments.angle(w, problem.solution_direction) > 0.5


def test_only_the_threshold_makes_breast_cancer_separable():
    assert experiments.separating(experiments.real_data("breast cancer")) is None
    Z = experiments.real_data("breast cancer", threshold=True)
    assert (Z @ experiments.separating(Z)).max() < -0.99
    assert Z.shape == (569, 31)


def test_the_digits_have_no_constant_pixel():
    Z = experiments.real_data("digits")
    assert Z.shape == (1797, 61)
    np.testing.assert_allclose((Z**2).mean(axis=0), 1, rtol=len(Z) * EPS)


def test_the_corrected_bounds_hold_where_the_reconstructed_ones_do_not():
    u, S = experiments.moments(4, 0, condition=2.0, strength=0.95)
    problem = GaussianHalfspace(u, S, experiments.scaled(experiments.huber(5.0), 1e4))
    runs = experiments.bounds_along_a_run(problem, experiments.start(u, S, 0), 20, 5)
    assert list(runs) == ["length", "direction", "combined"]
    for parts in runs.values():
        seen = parts["measured"] > 1e-22 * problem.loss.slope_bound**2
        printed, corrected = (
            (parts["measured"] / parts[form])[seen].max() for form in ("printed", "corrected")
        )
        assert printed > 1.001
        # Bounds hold differences of values, down to a thousandth of them.
        assert 0 < corrected <= 1 + 1000 * ACCURACY


def test_a_race_ends_near_the_least_value():
    Z = experiments.with_outliers(3.0, samples=300)
    found = experiments.race(Z, 200)
    for trace in found["traces"].values():
        assert 0 <= trace.value[-1] - found["least"] < 1e-6


def test_angles_shrink_with_the_sample():
    angles = experiments.sampling_angles([100, 10000], seeds=5)
    assert angles.shape == (2, 5)
    assert 4 < np.median(angles[0]) / np.median(angles[1]) < 25
