"""The experiments of the chapter on neural networks, against formulas, other libraries and the record."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.chapters.convergence.neural_networks import experiments
from bncore.convergence import GaussianNetwork

EPS = np.finfo(np.float64).eps
GRID = 1e-9  # What the grid of Plane promises while scores deviate by at most 2.
GTOL = 1e-9  # The gradient at which searches stop.
PICTURE = 1e-3  # What a picture shows.
ANGLE = np.degrees((16 * EPS) ** 0.5)  # An angle to the line holds a root of a difference.
seeds = st.integers(0, 10**6)


@settings(max_examples=5, deadline=None)
@given(seeds)
def test_the_grid_in_the_plane_agrees_with_the_package(seed):
    rng = np.random.default_rng(seed)
    u, S = experiments.stretched(4.0)
    theta, W = rng.normal(size=2), rng.uniform(-1, 1, size=(2, 2))
    plane, network = experiments.Plane(u, S, theta), GaussianNetwork(u, S, theta)
    missed = GRID * (1 + np.abs(theta).max()) ** 2
    assert plane.value(W) == pytest.approx(network.value(W), abs=missed)
    np.testing.assert_allclose(plane.gradient(W), network.gradient(W), rtol=0, atol=missed)
    for ours, theirs in zip(plane.second_order(W), network.second_order(W), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=missed)


def test_values_are_those_of_the_first_unit():
    plane = experiments.Plane(experiments.U, experiments.S, [3.0, 2.0])
    first, other = np.array([[0.3, -1.0], [1.0, 0.5]]), np.array([-0.4, 0.7])
    expected = [plane.value(np.vstack([w, other])) for w in first]
    rounding = len(plane.weights) * EPS
    np.testing.assert_allclose(plane.values(first, other), expected, rtol=rounding)
    coarse = plane.values(first, other, every=2)
    np.testing.assert_allclose(coarse, expected, rtol=0, atol=PICTURE)


@given(seeds)
def test_angles_are_to_the_line_in_the_norm_of_s(seed):
    angle = np.random.default_rng(seed).uniform(0, 90)
    w = experiments.turned(angle, 1.7)
    assert experiments.off_line(w[np.newaxis])[0] == pytest.approx(angle, abs=ANGLE)
    assert w @ experiments.S @ w == pytest.approx(1.7**2, rel=16 * EPS, abs=0)


@pytest.mark.parametrize("condition", [2.0, 20.0])
def test_stretched_problems_have_the_stated_numbers(condition):
    u, S = experiments.stretched(condition, strength=0.3)
    eigenvalues = np.linalg.eigvalsh(S)
    rounding = 16 * condition * EPS
    assert eigenvalues[1] / eigenvalues[0] == pytest.approx(condition, rel=rounding, abs=0)
    assert u @ np.linalg.solve(S, u) == pytest.approx(0.3, rel=rounding, abs=0)


@pytest.mark.parametrize("strength", [0.25, 0.49, 0.64])
@pytest.mark.parametrize("theta", [1.2, 1.5, 2.0, 3.0])
def test_the_best_pair_is_off_the_line_and_below_it(theta, strength):
    plane, on, off = experiments.splayed(theta, strength)
    rounding = len(plane.weights) * EPS * theta
    for pair in (on, off):
        np.testing.assert_allclose(plane.gradient(pair), 0, atol=rounding)
    assert experiments.off_line(on, plane.u, plane.S).max() < ANGLE
    assert 4 < experiments.off_line(off, plane.u, plane.S).min() < 8.5
    gain = plane.value(on) - plane.value(off)
    assert 0 < gain < 3e-4 * plane.value(on)
    assert strength < 0.3 or gain > 10 * GRID
    assert np.subtract(*plane.second_order(on)[1][0]) < 0
    assert np.abs(np.linalg.eigvalsh(plane.second_order(off)[1])).min() < 10 * rounding


def test_the_curvature_of_turning_a_pair_apart_is_that_of_the_proposition():
    plane, on, _ = experiments.splayed(1.5, 0.49)
    v, h = np.array([[0.0, 1.0], [0.0, -1.0]]), 1e-3
    second = plane.value(on + h * v) - 2 * plane.value(on) + plane.value(on - h * v)
    B = plane.second_order(on)[1]
    # What the difference leaves is a twelfth of a fourth derivative; four values are rounded.
    left = h**2 + 4 * EPS / h**2
    assert second / h**2 == pytest.approx(2 * (B[0, 0] - B[0, 1]), abs=left)


def test_turns_keep_their_bounds_and_undo_each_other():
    _, judged, after, layers = experiments.unit_by_unit(3.0, steps=15, halvings=25)
    for turn in judged:
        assert (turn.measured <= turn.bound * (1 + GRID)).all()
    assert after[1, 0] < 1e-7 < 1e-5 < after[2, 0]
    assert not layers[0].any()
    assert layers[1][0].any()
    assert not layers[1][1].any()


def test_critical_points_off_the_line_have_a_singular_matrix():
    angles, conditions = experiments.critical_points((3, 2), 0.25)
    off = angles > 0.01
    assert off.any()
    assert not off.all()
    assert conditions[off].max() < GRID < 100 * GRID < conditions[~off].min()


@pytest.mark.parametrize("condition", [2, 20])
def test_many_passes_shrink_the_gradient_as_predicted_and_end_in_a_saddle(condition):
    plane, _, after, layers = experiments.unit_by_unit(
        float(condition), steps=12, halvings=20, sweeps=12
    )
    end, factor = experiments.on_the_line(plane)
    totals = experiments.totals(after)
    assert len(totals) == 12
    assert totals[-1] / totals[-2] == pytest.approx(factor, rel=0.01)
    np.testing.assert_allclose(plane.gradient(end), 0, atol=GRID)
    away = [np.abs(layer - end).max() for layer in (layers[16], layers[-1])]
    assert away[1] < 0.7 * away[0]
    curvature, pair = experiments.beside_the_line(plane, end)
    assert curvature < -1e-4
    assert np.linalg.eigvalsh(plane.second_order(end)[1])[0] < -1e-4
    np.testing.assert_allclose(plane.gradient(pair), 0, atol=100 * GTOL)
    assert plane.value(pair) < plane.value(end)
    assert experiments.off_line(pair, plane.u, plane.S).min() > 1


def test_with_turns_too_short_for_the_condition_a_pass_leaves_more_than_the_one_before():
    plane, _, after, layers = experiments.unit_by_unit(
        20.0, steps=4, halvings=14, sweeps=10, seed=1
    )
    totals = experiments.totals(after)
    assert (np.diff(totals[1:] / totals[:-1]) > 0).all()
    assert experiments.off_line(layers[-1], plane.u, plane.S).min() > 10


@pytest.mark.parametrize("angle", [0, 50, 90])
def test_a_unit_without_influence_may_stand_anywhere(angle):
    plane = experiments.Plane(experiments.U, experiments.S, [3.0, 0.0])
    idle = experiments.turned(angle, 2.0)
    layer = np.vstack([plane.best_first(experiments.line(), idle), idle])
    np.testing.assert_allclose(plane.gradient(layer), 0, atol=100 * GTOL)
    assert not plane.second_order(layer)[1][1].any()
    found = experiments.off_line(layer)
    assert found[1] == pytest.approx(angle, abs=ANGLE)
    assert found[0] < 1e-3


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_the_curvature_of_leaving_the_line_is_that_of_b(seed):
    rng = np.random.default_rng(seed)
    plane = experiments.Plane(experiments.U, experiments.S, rng.normal(size=2))
    W, a = np.outer(rng.normal(size=2), experiments.line()), rng.normal(size=2)
    v = np.array([-plane.u[1], plane.u[0]])
    V = np.outer(a, v)
    second = np.sum(V * plane.hessian_product(W, V))
    B = plane.second_order(W)[1]
    # Scores deviate by up to 4 here, beyond what the grid promises.
    assert second == pytest.approx(a @ B @ a * (v @ plane.S @ v), abs=1000 * GRID)
