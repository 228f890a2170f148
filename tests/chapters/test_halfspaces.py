"""The halfspaces chapter's answers against other computations, and its figures against the code."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize
from scipy.stats import norm

from bncore.chapters.convergence.halfspaces import exercises, experiments, figures
from bncore.convergence import EmpiricalHalfspace, GaussianHalfspace, gdnp
from bncore.convergence.losses import LOSSES, check_derivatives

SMOOTH = [*LOSSES.values(), experiments.SINE, experiments.huber(), experiments.huber(5.0)]


@pytest.mark.parametrize(
    "loss", [*SMOOTH[4:], experiments.two_waves(0.5), experiments.scaled(SMOOTH[0], 7.0)]
)
def test_the_losses_have_their_derivatives_and_bounds(loss):
    check_derivatives(loss)
    a = np.linspace(-8, 8, 4001)
    for derivative, bound in ((loss.dphi, loss.slope_bound), (loss.d2phi, loss.curvature_bound)):
        assert np.abs(derivative(a)).max() <= bound * (1 + 1e-12)


def test_the_hinge_has_none_at_its_kink():
    with pytest.raises(ValueError, match=r"dphi\(-1\) is 0, expected 0.5"):
        check_derivatives(experiments.HINGE)


@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(1.5, 100), st.floats(0.05, 0.95))
@settings(max_examples=30)
def test_moments_are_as_asked(seed, dimension, condition, strength):
    u, S = experiments.moments(dimension, seed, condition, strength)
    eigenvalues = np.linalg.eigvalsh(S)
    np.testing.assert_allclose(eigenvalues[[0, -1]], [1 / condition, 1])
    np.testing.assert_allclose(u @ np.linalg.solve(S, u), strength)
    w = experiments.start(u, S, seed)
    assert -(u @ w) / np.sqrt(w @ S @ w) > 0.05 * np.sqrt(strength)


@given(st.integers(0, 10**6), st.floats(0.3, 2))
@settings(max_examples=20, deadline=None)
def test_two_waves_are_level_off_the_line(seed, apart):
    u, S = experiments.moments(3, seed, strength=0.9)
    w, variance = experiments.off_the_line(u, S, seed, apart)
    np.testing.assert_allclose(u @ w, -np.pi)
    np.testing.assert_allclose(w @ S @ w - np.pi**2, variance)
    problem = GaussianHalfspace(u, S, experiments.two_waves(variance))
    gradient = experiments.differences(problem.value, w, 1e-3)
    assert np.linalg.norm(gradient) < 1e-7 * np.linalg.norm(problem.gradient(0.9 * w))
    assert experiments.angle(w, problem.solution_direction) > 0.5


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
    for before, after in zip(trace.w, trace.w[1:], strict=False):
        np.testing.assert_allclose(exercises.direction_step(before, u, S), after, rtol=1e-6)
    np.testing.assert_allclose(experiments.least_squares_steps(u, S, w0, 3), trace.w, rtol=1e-6)


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_the_exponential_loss_is_least_at_the_answer(seed, dimension):
    rng = np.random.default_rng(seed)
    root, u = rng.normal(size=(dimension, dimension)), 0.5 * rng.normal(size=dimension)
    covariance = root @ root.T + np.eye(dimension)
    w = exercises.exponential(u, covariance)
    problem = GaussianHalfspace(u, covariance + np.outer(u, u), (np.exp, np.exp, np.exp))
    assert np.linalg.norm(problem.gradient(w)) < 1e-9
    best = problem.value(w)
    assert all(problem.value(w + 0.1 * step) > best for step in rng.normal(size=(5, dimension)))


@given(st.floats(-2, 2), st.floats(0.3, 3))
@settings(max_examples=30, deadline=None)
def test_the_hinge_coefficients_are_derivatives_by_mean_and_deviation(m, s):
    def value(m, s):  # E max(0, 1 + a) in closed form
        t = (1 + m) / s
        return (1 + m) * norm.cdf(t) + s * norm.pdf(t)

    numerical = integrate.quad(lambda a: (1 + a) * norm.pdf(a, m, s), -1, m + 12 * s)[0]
    np.testing.assert_allclose(value(m, s), numerical, atol=1e-7)
    c1, c2 = exercises.hinge(m, s)
    by_mean, by_deviation = experiments.differences(lambda p: value(*p), np.array([m, s]), 1e-4)
    np.testing.assert_allclose([c1 + m * c2, s * c2], [by_mean, by_deviation], atol=1e-8)


@given(st.floats(0.1, 10), st.floats(0.1, 50), st.floats(1e-8, 1))
def test_the_halvings_are_enough_and_no_more(curvature, width, target):
    count = exercises.halvings(curvature, width, target)

    def bound(n):
        return (curvature * 2.0**-n * width) ** 2

    assert bound(count) <= target * (1 + 1e-9)
    assert count == 0 or bound(count - 1) > target * (1 - 1e-9)


@pytest.mark.parametrize("loss", ["softplus", "huber", "squared"])
def test_newton_finds_what_scipy_finds(loss):
    Z = experiments.with_outliers(2.0, samples=200)
    problem = EmpiricalHalfspace(Z, figures.LOSSES[loss])
    w = experiments.newton(problem, Z)
    found = optimize.minimize(problem.value, np.zeros(2), jac=problem.gradient, tol=1e-10)
    np.testing.assert_allclose(w, found.x, atol=1e-5)
    assert np.linalg.norm(problem.gradient(w)) < 1e-10


def test_only_the_threshold_makes_breast_cancer_separable():
    assert experiments.separating(experiments.real_data("breast cancer")) is None
    Z = experiments.real_data("breast cancer", threshold=True)
    assert (Z @ experiments.separating(Z)).max() < -0.99
    assert Z.shape == (569, 31)


def test_the_digits_have_no_constant_pixel():
    Z = experiments.real_data("digits")
    assert Z.shape == (1797, 61)
    np.testing.assert_allclose((Z**2).mean(axis=0), 1)


def test_the_worst_ratios_find_the_misprints_and_no_more():
    u, S = experiments.moments(4, 0, condition=2.0, strength=0.95)
    problem = GaussianHalfspace(u, S, experiments.scaled(experiments.huber(5.0), 1e4))
    worst = experiments.worst_ratios(problem, experiments.start(u, S, 0), bisection_steps=5)
    for name in ("length", "direction", "combined"):
        assert worst[name, "printed"] > 1 >= worst[name, "corrected"] > 0


def test_a_race_ends_near_the_least_value():
    Z = experiments.with_outliers(3.0, samples=300)
    found = experiments.race(Z, 200)
    for trace in found["traces"].values():
        assert -1e-12 <= trace.value[-1] - found["least"] < 1e-6


def test_angles_shrink_with_the_sample():
    angles = experiments.sampling_angles([100, 10000], seeds=5)
    assert angles.shape == (2, 5)
    assert 4 < np.median(angles[0]) / np.median(angles[1]) < 25


def lines(ax):
    return {str(line.get_label()): np.array(line.get_data()).T for line in ax.get_lines()}


@pytest.mark.parametrize("loss", figures.LOSSES)
def test_the_critical_points_of_the_landscape_are_level(loss):
    fig = figures.landscape(loss, 0.2)
    points = lines(fig.axes[0])
    assert ("no critical point here" in points) == (loss == "sigmoid")
    problem = GaussianHalfspace(*figures.plane(0.2), figures.LOSSES[loss])
    for point in points.get("critical points", []):
        assert np.linalg.norm(problem.gradient(point)) < 1e-9
    plt.close(fig)


@pytest.mark.parametrize("loss", ["softplus", "sine"])
@pytest.mark.parametrize("step", [0, 4])
def test_the_walk_lies_on_its_prediction(loss, step):
    fig = figures.walk(loss, step)
    found = lines(fig.axes[1])
    np.testing.assert_allclose(
        found["this loss"], found["least squares"][: step + 1], rtol=1e-6, atol=1e-9
    )
    plt.close(fig)


def test_the_squared_loss_stays_on_the_line_and_softplus_leaves():
    fig = figures.outliers(6.0)
    found = lines(fig.axes[1])
    assert found["squared"][:, 1].max() < 1e-6
    assert found["softplus"][0, 1] < 3 < 30 < found["softplus"][-1, 1]
    plt.close(fig)


def test_the_races_are_drawn_by_iterations_and_by_seconds():
    races = {"sample": experiments.race(experiments.with_outliers(3.0, samples=100), 20)}
    races["again"] = races["sample"]
    for by, drawn in (("iterations", 4), ("seconds", 6)):
        fig = figures.race(races, by)
        assert [len(ax.get_lines()) for ax in fig.axes] == [drawn, drawn]
        plt.close(fig)


def test_the_bounds_and_the_samples_are_drawn():
    runs = {
        name: {form: np.ones(5) for form in ("measured", "printed", "corrected")}
        for name in ("length", "direction", "combined")
    }
    fig = figures.three_bounds(runs, 3)
    assert [len(ax.get_lines()) for ax in fig.axes] == [3, 3, 3]
    assert all(len(line.get_xdata()) == 4 for ax in fig.axes for line in ax.get_lines())
    plt.close(fig)
    fig = figures.sampling([10, 1000], np.array([[4.0, 4.0], [0.5, 0.5]]))
    np.testing.assert_allclose(lines(fig.axes[0])[r"$\propto n^{-1/2}$"], [[10, 4], [1000, 0.4]])
    plt.close(fig)
