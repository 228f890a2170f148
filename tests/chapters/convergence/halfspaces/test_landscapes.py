"""The landscapes of the chapter on halfspaces: their heights, critical points and walks are the package's."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bncore.chapters.convergence.halfspaces import experiments, landscapes
from bncore.convergence import GaussianHalfspace
from bncore.convergence.quadrature import ACCURACY

EPS = np.finfo(np.float64).eps


def lines(ax):
    return {str(line.get_label()): np.array(line.get_data()).T for line in ax.get_lines()}


@pytest.mark.parametrize("loss", landscapes.LOSSES)
@pytest.mark.parametrize("correlation", [-0.6, 0.3])
def test_the_heights_are_those_of_the_problem(loss, correlation):
    problem = GaussianHalfspace(*landscapes.plane(correlation), landscapes.LOSSES[loss])
    grid, heights = landscapes.values(loss, correlation)
    for i, j in np.random.default_rng(0).integers(len(grid), size=(20, 2)):
        exact = problem.value(np.array([grid[j], grid[i]]))
        # A thousandth of the distance between two level curves.
        assert abs(heights[i, j] - exact) < 1e-4 * np.ptp(heights)


def test_critical_points_are_level_on_the_line_and_each_loss_shows_those_of_the_others():
    drawn = {loss: lines(landscapes.landscape(loss, 0.2).axes[0]) for loss in landscapes.LOSSES}
    own = {loss: found.get("critical points", np.empty((0, 2))) for loss, found in drawn.items()}
    assert [loss for loss, points in own.items() if not len(points)] == ["sigmoid"]
    assert "no critical point" in drawn["sigmoid"]
    for loss, found in drawn.items():
        problem = GaussianHalfspace(*landscapes.plane(0.2), landscapes.LOSSES[loss])
        for point in own[loss]:
            assert np.linalg.norm(problem.gradient(point)) < 100 * ACCURACY
            assert experiments.angle(point, problem.solution_direction) < 180 * 16 * EPS
        others = np.concatenate([points for other, points in own.items() if other != loss])
        np.testing.assert_array_equal(found["of the other losses"], others)
    plt.close("all")


def test_the_pair_off_the_line_is_level_and_so_is_what_is_drawn_on_it():
    problem, pair = landscapes.waves()
    fig = landscapes.off_the_line()
    points = lines(fig.axes[0])
    off, on = points["critical, off the line"], points["critical, on the line"]
    np.testing.assert_array_equal(off, [*pair, *-pair])
    # Two sums of two terms and the variance, whose rounding an exponential of 1.5 of it multiplies.
    rounding = problem.loss.curvature_bound * (ACCURACY + 64 * EPS)
    for point in (*off, *on):
        assert np.linalg.norm(problem.gradient(point)) < rounding * np.linalg.norm(problem.u)
    assert all(experiments.angle(w, problem.solution_direction) > 30 for w in off)
    assert np.linalg.norm(problem.gradient(0.9 * pair[0])) > 1e-3
    # Along the line f rises and falls by turns, from one critical point to the next.
    along = problem.solution_direction / problem.norm(problem.solution_direction)
    line = [problem.value(t * along) for t in np.linspace(-4, 4, 161)]
    assert len(on) == np.count_nonzero(np.diff(np.sign(np.diff(line))))
    assert np.linalg.norm(on, axis=1).min() < 64 * EPS  # both terms are level at 0
    plt.close(fig)


def test_the_level_curves_off_the_line_lie_where_the_problem_has_their_heights():
    problem, _ = landscapes.waves()
    ax = landscapes.off_the_line().axes[0]
    levels = np.concatenate([curves.levels for curves in ax.collections])
    paths = [path for curves in ax.collections for path in curves.get_paths()]
    for level, path in zip(levels, paths, strict=True):
        for w in path.vertices[:: len(path.vertices) // 5 + 1]:
            # Between the points of the grid heights are taken for linear.
            assert abs(problem.value(w) - level) < 0.01 * np.ptp(levels)
    plt.close("all")


def test_a_valley_and_a_hill_are_enough_for_a_critical_point_off_the_line():
    loss = (lambda a: a**3 / 3 - a, lambda a: a**2 - 1, lambda a: 2 * a)
    problem = GaussianHalfspace(*landscapes.plane(0.3), loss)
    w = np.array([problem.u[1], -problem.u[0]])
    w /= problem.norm(w)  # the score has the mean 0 and the variance 1
    rounding = ACCURACY + 64 * EPS
    assert np.linalg.norm(problem.gradient(w)) < 10 * rounding
    assert experiments.angle(w, problem.solution_direction) > 45
    assert np.linalg.norm(problem.gradient(0.9 * w)) > 0.1


@pytest.mark.parametrize("loss", ["softplus", "sine"])
@pytest.mark.parametrize("step", [0, 4])
def test_the_walk_lies_on_its_prediction(loss, step):
    fig = landscapes.walk(loss, step)
    found = lines(fig.axes[1])
    # Angles in degrees, after at most four steps.
    expected, rounding = found["least squares"][: step + 1], 4 * 16 * 180 * EPS
    np.testing.assert_allclose(found["this loss"], expected, rtol=0, atol=rounding)
    plt.close(fig)
